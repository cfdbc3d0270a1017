// wall(element, {count, draw, title, onPick}) -> {pick(number), redraw(), rename(), more(count)}:
// pictures 0, 1, ... side by side.
// draw(canvas, number): paints one; called a few at a time, so that the page stays at hand. title(number): its name.
// onPick(number): the visitor chose one. One of them is in the tab order; arrows, Home and End go to the others.

import {make} from "./dom.js";

const BUDGET = 12; // ms of drawing at a stretch

export function wall(element, {count, draw, title, onPick}) {
  const list = make("ul", {class: "wall", keydown: steer});
  const cells = [];
  let waiting = [];
  let frame = 0;
  let chosen = -1;
  element.append(list);

  function more(extra) {
    for (let number = cells.length, end = number + extra; number < end; number++) {
      const canvas = make("canvas", {width: 4, height: 4, "aria-hidden": "true"});
      const button = make("button", {type: "button", tabindex: number ? -1 : 0, click: () => onPick(number)}, canvas);
      button.setAttribute("aria-pressed", String(number === chosen));
      cells.push({canvas, button});
      rename(number);
      list.append(make("li", {}, button));
      waiting.push(number);
    }
    work();
  }

  function rename(only) {
    cells.forEach(({button}, number) => {
      if (only !== undefined && number !== only) return;
      button.title = title(number);
      button.setAttribute("aria-label", title(number));
    });
  }

  function redraw() {
    waiting = cells.map((_, number) => number);
    work();
  }

  function work() {
    if (!frame && waiting.length) frame = requestAnimationFrame(some);
  }

  function some() {
    frame = 0;
    const end = performance.now() + BUDGET;
    do draw(cells[waiting[0]].canvas, waiting.shift());
    while (waiting.length && performance.now() < end);
    work();
  }

  function pick(number) {
    mark(chosen, false);
    chosen = number;
    mark(number, true);
  }

  function mark(number, on) {
    if (!cells[number]) return;
    cells[number].button.setAttribute("aria-pressed", String(on));
    if (on) reach(number);
  }

  function reach(number) {
    for (const {button} of cells) button.tabIndex = -1;
    cells[number].button.tabIndex = 0;
  }

  function steer(event) {
    const at = cells.findIndex(({button}) => button === document.activeElement);
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const places = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns,
      Home: 0, End: cells.length - 1,
    };
    if (at < 0 || !cells[places[event.key]]) return;
    event.preventDefault();
    reach(places[event.key]);
    cells[places[event.key]].button.focus();
  }

  more(count);
  return {pick, redraw, rename: () => rename(), more};
}
