// enlarged({draw, onStep, onSave}) -> {open(), redraw()}: the picture as large as the window, in a dialog.
// draw(canvas) -> words: paints the picture and names it. onStep(by): the visitor wants the next (1) or the one before
// (-1). onSave(): wants it as a file. Keys: arrows left and right, Escape.

import {make} from "./dom.js";

export function enlarged({draw, onStep, onSave}) {
  const canvas = make("canvas", {width: 4, height: 4, role: "img"});
  const words = make("p", {"aria-live": "polite"});
  const button = (text, act) => make("button", {type: "button", click: act}, text);
  const dialog = make(
    "dialog",
    {class: "enlarged", "aria-label": "Enlarged picture", keydown: steer},
    canvas,
    make(
      "div", {class: "buttons"}, words, button("Previous", () => step(-1)), button("Next", () => step(1)),
      button("Download PNG", onSave), button("Close", () => dialog.close()),
    ),
  );
  document.body.append(dialog);

  function redraw() {
    if (!dialog.open) return;
    words.textContent = draw(canvas);
    canvas.setAttribute("aria-label", words.textContent);
  }

  function step(by) {
    onStep(by);
    redraw();
  }

  function steer(event) {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  }

  function open() {
    dialog.showModal();
    redraw();
  }

  return {open, redraw};
}
