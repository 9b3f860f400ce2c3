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

function showCell(truth, given, count) {
  const right = truth === given;
  const title = right
    ? `${confusion.classes[truth]}, correctly recognised: ${count}`
    : `${confusion.classes[truth]}, taken for ${confusion.classes[given]}: ${count}`;
  const list = element("ul", undefined, "pictures");
  const cell = confusion.cells[`${truth},${given}`] || [];
  for (const [position, confidence] of cell) {
    const picture = pictureOf(position);
    if (!picture) continue;
    const item = element("li");
    const image = element("img");
    image.src = picture.uri;
    image.alt = `Test image of ${confusion.classes[truth]}`;
    image.loading = "lazy";
    const sure = element("div", `${(100 * confidence).toFixed(1)}% sure`, "said");
    item.append(image, sure, element("div", picture.source, "quiet"));
    list.append(item);
  }
  const shown = list.childElementCount;
  const order = right ? "the least sure first" : "the surest first";
  const told = shown < count ? `${shown} of ${count} are kept in this page, ${order}.` : `${order[0].toUpperCase()}${order.slice(1)}.`;
  panel.replaceChildren(element("h3", title), element("p", told, "quiet"), list);
}

const buttons = [...document.querySelectorAll("[data-truth]")];

function open(button) {
  for (const other of buttons) other.setAttribute("aria-expanded", String(other === button));
  showCell(Number(button.dataset.truth), Number(button.dataset.given), Number(button.dataset.count));
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    open(button);
    panel.scrollIntoView({ block: "nearest" });
  });
}

// The most confused cell is open from the start.
const wrong = buttons.filter((button) => button.dataset.truth !== button.dataset.given);
if (wrong.length) open(wrong.reduce((most, button) => (Number(button.dataset.count) > Number(most.dataset.count) ? button : most)));
