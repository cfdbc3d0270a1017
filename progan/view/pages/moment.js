// moment(element, {phases, end, moments, unit, onChange}) -> {to(x), at(), grow(moments)}: one place in training, chosen
// by a slider over the phases. moments: nimg of each picture; onChange(nimg): another was chosen. Play runs through them.

import {make, slider} from "./dom.js";

const PLAY_MS = 400;

export function moment(element, {phases, end, moments, unit, onChange}) {
  let known = moments;
  let place = moments.length - 1;
  let timer = 0;
  const handle = slider({
    label: "Moment", min: 0, max: Math.max(0, known.length - 1), step: 1, value: place,
    words: (index) => (known.length ? unit(known[index]) : "no picture yet"),
    onInput: (index) => (pause(), show(index)),
  });
  const play = make("button", {type: "button", class: "main", click: () => (timer ? pause() : start())}, "Play");
  const spans = phases.map(({start, stop, resolution, fading}) => {
    const span = make("span", {class: fading ? "fading" : "", title: `${resolution} × ${resolution}${fading ? ", fading in" : ""}`}, fading ? "" : String(resolution));
    span.style.setProperty("--share", stop - start);
    return span;
  });
  const line = make("i");
  const timeline = make("div", {class: "timeline", "aria-hidden": "true", click: jump}, ...spans, line);
  element.append(make("div", {class: "moment"}, make("div", {class: "row"}, play, handle.element), timeline));

  function show(index) {
    place = index;
    paint();
    if (known.length) onChange(known[index]);
  }

  function paint() {
    const nimg = known[place] ?? 0;
    line.style.setProperty("--at", end ? Math.min(1, nimg / end) : 0);
    const now = phases.findLastIndex(({start}) => start <= nimg);
    spans.forEach((span, index) => span.classList.toggle("now", index === now));
  }

  function nearest(nimg) {
    return known.reduce((best, at, index) => (Math.abs(at - nimg) < Math.abs(known[best] - nimg) ? index : best), 0);
  }

  function to(nimg) {
    const index = nearest(nimg);
    if (!known.length || index === place) return;
    handle.set(index);
    show(index);
  }

  function jump(event) {
    const box = timeline.getBoundingClientRect();
    to(((event.clientX - box.left) / box.width) * end);
  }

  function start() {
    if (place === known.length - 1) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (place >= known.length - 1) return pause();
      handle.set(place + 1);
      show(place + 1);
    }, PLAY_MS);
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  // More pictures have come: who looks at the newest goes on doing so.
  function grow(more) {
    const newest = place === known.length - 1;
    known = more;
    handle.input.max = Math.max(0, known.length - 1);
    handle.set(newest ? known.length - 1 : place);
    if (newest) show(known.length - 1);
  }

  paint();
  return {to, at: () => known[place], grow};
}
