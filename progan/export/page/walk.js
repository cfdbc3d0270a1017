// walk(element, {points, draw, current, adding, onMove}) -> {pause(), redraw()}: a round trip through two to eight points.
// points: [{title, ...}] to begin with. draw(canvas, point): paints a small picture. current(): the point to add; adding: words on that button.
// onMove(points, position, words): the walk has come here, 0 to 1 once around, while it plays or the handle moves.
//
// roundTrip(points, position) -> {z, label}, for points {z, label}; label: numbers, or null; along great circles at
// even pace, the norm changing evenly too, as in progan/sampling/walk.py.

import {make, slider} from "./dom.js";

const FEWEST = 2;
const MOST = 8;

export function walk(element, {points, draw, current, adding = "Add this picture", onMove}) {
  const chosen = [...points];
  const strip = make("ol", {class: "strip"});
  const play = make("button", {type: "button", class: "main", click: () => (frame ? pause() : start())}, "Play");
  const add = make("button", {type: "button", click: () => change(() => chosen.push(current()))}, adding);
  const place = slider({
    label: "Position", min: 0, max: 1, step: "any", value: 0, words: whereabouts, onInput: () => (pause(), move()),
  });
  const speed = slider({
    label: "Speed", min: 0.2, max: 2, step: 0.1, value: 0.5, words: (x) => `${x.toFixed(1)} pictures a second`,
    onInput: () => {},
  });
  let frame = 0;

  function whereabouts(position) {
    const leg = Math.floor((position % 1) * chosen.length);
    return `${chosen[leg].title} to ${chosen[(leg + 1) % chosen.length].title}`;
  }

  function move() {
    const position = Number(place.input.value);
    onMove(chosen, position % 1, whereabouts(position));
  }

  function start() {
    play.textContent = "Pause";
    let before = performance.now();
    const step = (now) => {
      const passed = Math.max(0, now - before) / 1000;
      before = now;
      place.set((Number(place.input.value) + (passed * Number(speed.input.value)) / chosen.length) % 1);
      move();
      frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
  }

  function pause() {
    cancelAnimationFrame(frame);
    frame = 0;
    play.textContent = "Play";
  }

  // Another point, or one less: the walk goes on from the same place on its way.
  function change(edit) {
    edit();
    list();
    place.set(Number(place.input.value));
  }

  function list() {
    strip.replaceChildren(
      ...chosen.map((point, index) => {
        const canvas = make("canvas", {width: 4, height: 4, "aria-hidden": "true"});
        draw(canvas, point);
        const remove = make("button", {type: "button", click: () => change(() => chosen.splice(index, 1))}, canvas);
        remove.title = `Remove ${point.title}`;
        remove.setAttribute("aria-label", remove.title);
        remove.disabled = chosen.length <= FEWEST;
        return make("li", {}, remove, make("span", {}, point.title));
      }),
    );
    add.disabled = chosen.length >= MOST;
  }

  list();
  element.append(
    strip,
    make("p", {class: "buttons"}, play, add),
    make("div", {class: "sliders"}, place.element, speed.element),
  );
  return {pause, redraw: list};
}

export function roundTrip(points, position) {
  const along = position * points.length;
  const leg = Math.floor(along);
  const share = along - leg;
  const here = points[leg % points.length];
  const there = points[(leg + 1) % points.length];
  const norms = [here, there].map(({z}) => Math.hypot(...z));
  const cosine = here.z.reduce((sum, x, i) => sum + x * there.z[i], 0) / (norms[0] * norms[1]);
  // The same point twice divides by no 0.
  const angle = Math.min(Math.PI - 1e-4, Math.max(1e-4, Math.acos(Math.min(1, Math.max(-1, cosine)))));
  const norm = norms[0] + share * (norms[1] - norms[0]);
  const a = (norm * Math.sin((1 - share) * angle)) / Math.sin(angle) / norms[0];
  const b = (norm * Math.sin(share * angle)) / Math.sin(angle) / norms[1];
  return {
    z: here.z.map((x, i) => a * x + b * there.z[i]),
    label: here.label && here.label.map((x, i) => x + share * (there.label[i] - x)),
  };
}
