// A click on a cell of the confusion matrix, or on a pair, shows the images in it.
const confusion = JSON.parse(document.getElementById("confusion-data").textContent);
const panel = document.getElementById("cell");

function pictureOf(position) {
  const small = confusion.pictures[position];
  if (small) return small;
  const shown = document.querySelector(`img[data-position="${Number(position)}"]`);
  return shown ? { uri: shown.src, source: shown.dataset.source } : null;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function pictureList(truth, given, sayGiven) {
  const list = element("ul", undefined, "pictures");
  for (const [position, confidence] of confusion.cells[`${truth},${given}`] || []) {
    const picture = pictureOf(position);
    if (!picture) continue;
    const item = element("li");
    const image = element("img");
    image.src = picture.uri;
    image.alt = `Test image of ${confusion.classes[truth]}`;
    image.loading = "lazy";
    const sure = `${(100 * confidence).toFixed(1)}% sure`;
    item.append(image, element("div", sure, "said"));
    if (sayGiven) item.append(element("div", sayGiven));
    item.append(element("div", picture.source, "quiet"));
    list.append(item);
  }
  return list;
}

function cellTitle(truth, given, count) {
  return truth === given
    ? `${confusion.classes[truth]}, correctly recognised: ${count}`
    : `${confusion.classes[truth]}, taken for ${confusion.classes[given]}: ${count}`;
}

function showCell(truth, given, count) {
  const list = pictureList(truth, given);
  const shown = list.childElementCount;
  const order = truth === given ? "the least sure first" : "the surest first";
  const note = shown < count ? `${shown} of ${count} are kept in this page, ${order}.` : `${order[0].toUpperCase()}${order.slice(1)}.`;
  panel.replaceChildren(element("h3", cellTitle(truth, given, count)), element("p", note, "quiet"), list);
}

// A click on a class shows its images: those recognised, those missed, and others taken for it.
function showClass(chosen) {
  const sheet = document.getElementById("class");
  const name = confusion.classes[chosen];
  const others = confusion.classes.map((_, index) => index).filter((index) => index !== chosen);
  const groups = [
    [`Correctly recognised`, [[chosen, chosen, ""]]],
    [`Missed: other labels given`, others.map((given) => [chosen, given, `taken for ${confusion.classes[given]}`])],
    [`Mistaken for ${name}: other classes`, others.map((truth) => [truth, chosen, confusion.classes[truth]])],
  ];
  const parts = [element("h3", name)];
  for (const [title, cells] of groups) {
    const count = cells.reduce((sum, [truth, given]) => sum + (confusion.counts[`${truth},${given}`] || 0), 0);
    if (!count) continue;
    const list = element("ul", undefined, "pictures");
    for (const [truth, given, said] of cells) list.append(...pictureList(truth, given, said).children);
    const shown = list.childElementCount;
    const kept = shown < count ? ` (${shown} of them are kept in this page)` : "";
    parts.push(element("p", `${title}: ${count}${kept}`, "said"), list);
  }
  if (parts.length === 1) parts.push(element("p", "It has no test images, and no image was given this label.", "quiet"));
  sheet.replaceChildren(...parts);
  sheet.scrollIntoView({ block: "nearest", behavior: "instant" });
}

const classButtons = [...document.querySelectorAll("[data-class]")];
for (const button of classButtons) {
  button.addEventListener("click", () => {
    for (const other of classButtons) other.setAttribute("aria-expanded", String(other === button));
    showClass(Number(button.dataset.class));
  });
}

const buttons = [...document.querySelectorAll("[data-truth]")];

function open(button) {
  for (const other of buttons) other.setAttribute("aria-expanded", String(other === button));
  showCell(Number(button.dataset.truth), Number(button.dataset.given), Number(button.dataset.count));
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    open(button);
    panel.scrollIntoView({ block: "nearest", behavior: "instant" });
  });
}

// The most confused cell is open from the start.
const wrong = buttons.filter((button) => button.dataset.truth !== button.dataset.given);
if (wrong.length) open(wrong.reduce((most, button) => (Number(button.dataset.count) > Number(most.dataset.count) ? button : most)));
