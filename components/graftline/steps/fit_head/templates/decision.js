"use strict";
(() => {
  const peek = document.getElementById("peek");
  const block = document.getElementById("map-images");
  if (!peek || !block) return;
  const images = JSON.parse(block.textContent);
  const frame = peek.parentElement;
  const picture = peek.querySelector("img");
  const [said, file] = peek.querySelectorAll("div");
  frame.addEventListener("pointerover", (event) => {
    const dot = event.target.closest("[data-image]");
    if (!dot) { peek.hidden = true; return; }
    const [uri, label, source] = images[Number(dot.dataset.image)];
    picture.hidden = !uri;
    if (uri) picture.src = uri;
    said.textContent = label;
    file.textContent = source.split("/").pop();
    peek.hidden = false;
    const outer = frame.getBoundingClientRect();
    const at = dot.getBoundingClientRect();
    const left = Math.min(Math.max(0, at.left - outer.left + 14), outer.width - peek.offsetWidth);
    peek.style.left = left + "px";
    peek.style.top = (at.top - outer.top + 14) + "px";
  });
  frame.addEventListener("pointerleave", () => { peek.hidden = true; });
})();
