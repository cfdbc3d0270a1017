// zoomable(img): a click or Enter shows the picture as large as the window; there plus and minus change its size.

import {make} from "./dom.js";

let dialog = null;
let times = 1;

export function zoomable(img) {
  img.tabIndex = 0;
  img.setAttribute("role", "button");
  img.addEventListener("click", () => open(img));
  img.addEventListener("keydown", (event) => event.key === "Enter" && open(img));
  return img;
}

function open(img) {
  if (!dialog) {
    const button = (text, label, act) => make("button", {type: "button", "aria-label": label, click: act}, text);
    dialog = make("dialog", {class: "zoom", "aria-label": "Enlarged picture"}, make("img", {alt: ""}), make("div", {class: "bar buttons"},
      button("−", "Smaller", () => size(times / 1.5)), button("+", "Larger", () => size(times * 1.5)),
      button("Close", "Close", () => dialog.close())));
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "+" || event.key === "=") size(times * 1.5);
      if (event.key === "-") size(times / 1.5);
    });
    document.body.append(dialog);
  }
  dialog.firstChild.src = img.src;
  dialog.firstChild.alt = img.alt;
  size(1);
  dialog.showModal();
}

function size(to) {
  times = Math.min(12, Math.max(0.5, to));
  dialog.style.setProperty("--times", times);
}
