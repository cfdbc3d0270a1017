// fadeFigure(element) -> {show({older, newer, blend}, {resolution, alpha})}: figure 2 of the paper, drawn live.
// older, newer, blend: ImageData; older is null at 4x4, where nothing fades.

import {make} from "./dom.js";
import {paint} from "./pictures.js";

export function fadeFigure(element) {
  const older = branch("older");
  const newer = branch("newer");
  const sum = branch("sum");
  const sign = (text) => make("span", {class: "sign", "aria-hidden": "true"}, text);
  element.prepend(make("div", {class: "branches"}, older.element, sign("+"), newer.element, sign("="), sum.element));

  function show(pictures, {resolution, alpha}) {
    const half = resolution / 2;
    const size = `${resolution} × ${resolution}`;
    const weight = resolution === 4 ? 1 : alpha;
    older.show(pictures.older, 1 - weight, resolution === 4 ? "nothing older" : `${half} × ${half}, doubled`);
    newer.show(pictures.newer, weight, `new ${size}`);
    sum.show(pictures.blend, null, `${size} shown`);
  }

  return {show};
}

function branch(name) {
  const canvas = make("canvas", {width: 4, height: 4, role: "img"});
  const weight = make("span", {class: "weight"});
  const bar = make("span", {class: "bar", "aria-hidden": "true"});
  const text = make("span", {class: "what"});
  const element = make("div", {class: `branch ${name}`}, canvas, bar, make("p", {}, weight, text));

  function show(picture, share, what) {
    if (picture) paint(canvas, picture);
    canvas.classList.toggle("empty", !picture);
    canvas.setAttribute("aria-label", what);
    weight.textContent = share === null ? "" : `${share.toFixed(2)} × `;
    bar.style.setProperty("--share", share ?? 1);
    text.textContent = what;
  }

  return {element, show};
}
