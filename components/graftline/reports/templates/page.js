// Tables whose headers can be clicked: sorted by the cell's data-value, else by its text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") !== "descending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const compare = (a, b) =>
        typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
      const rows = [...body.rows].sort((x, y) => compare(key(x), key(y)));
      body.append(...(descending ? rows.reverse() : rows));
    });
  });
}

// What is wider than the window says so in words, beside the shadow at its edge.
const scrolled = [...document.querySelectorAll(".scroll")];
function sayMore() {
  for (const box of scrolled) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    const said = box.previousElementSibling?.classList.contains("more");
    if (wide && !said) {
      const hint = document.createElement("p");
      hint.className = "more";
      hint.textContent = "Scroll sideways to see all columns →";
      box.before(hint);
    } else if (!wide && said) box.previousElementSibling.remove();
  }
}
sayMore();
window.addEventListener("resize", sayMore);

// Paper cannot be clicked: what is folded is printed open.
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    folded.dataset.closed = "";
  }
});
window.addEventListener("afterprint", () => {
  for (const folded of document.querySelectorAll("details[data-closed]")) {
    folded.open = false;
    delete folded.dataset.closed;
  }
});

// A page's neighbours stand beside it in a run's folder, and one folder up among MLflow's artifacts.
// Where a server shows the page alone (MLflow's blob, Kubeflow's srcdoc), a link is plain text.
for (const link of document.querySelectorAll("a.beside")) {
  if (!/^(file|https?):$/.test(location.protocol) || !location.pathname.endsWith(".html")) {
    link.replaceWith(...link.childNodes);
  } else if (/\/(evaluation|model-[^/]+)\/[^/]+$/.test(location.pathname)) {
    link.setAttribute("href", `../${link.getAttribute("href")}`);
  }
}
