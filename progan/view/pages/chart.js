// chart(element, {title, series, bands, end, unit, log, onPoint}) -> {at(x)}: curves over training.
// series: [{name, x: [number], y: [number or null], spread, floor}]; spread: the ± of each value; floor: a dashed line.
// bands: [{from, to, name}] behind them; end: the largest x; unit(x): how x reads. log: a logarithmic axis, if all is
// above 0. onPoint(x): the pointer or an arrow key is at x; at(x): marks x on all curves and shows the values there.

import {make} from "./dom.js";
import {short} from "./words.js";

const WIDTH = 480;
const HEIGHT = 220;
const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 24;
const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function chart(element, {title, series, bands = [], end, unit, log = false, onPoint}) {
  const values = series.flatMap(({y, spread, floor}) => [
    ...y.flatMap((v, i) => (v === null ? [] : [v - (spread?.[i] ?? 0), v + (spread?.[i] ?? 0)])),
    ...(floor === null || floor === undefined ? [] : [floor]),
  ]);
  const usable = values.filter(Number.isFinite);
  const logarithmic = log && usable.every((v) => v > 0);
  const scale = logarithmic ? Math.log10 : (v) => v;
  let [low, high] = [Math.min(...usable.map(scale)), Math.max(...usable.map(scale))];
  if (!usable.length) [low, high] = [0, 1];
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const margin = 0.06 * (high - low);
  [low, high] = [low - margin, high + margin];
  const px = (x) => LEFT + (x / end) * (WIDTH - LEFT - RIGHT);
  const py = (v) => TOP + ((high - scale(v)) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const colour = (index) => `var(--c${index % 6})`;

  const svg = draw("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0, "aria-label": title});
  bands.forEach(({from, to, name}, index) => {
    if (index % 2) svg.append(draw("rect", {class: "band", x: px(from), y: TOP, width: px(to) - px(from), height: HEIGHT - TOP - BOTTOM}));
    if (px(to) - px(from) > 30) svg.append(draw("text", {x: (px(from) + px(to)) / 2, y: TOP + 11, "text-anchor": "middle"}, name));
  });
  for (const tick of ticks(low, high, logarithmic)) {
    const y = TOP + ((high - scale(tick)) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    svg.append(draw("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y}));
    svg.append(draw("text", {x: LEFT - 8, y: y + 4, "text-anchor": "end"}, short(tick)));
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    svg.append(draw("text", {x: px(share * end), y: HEIGHT - 6, "text-anchor": anchor}, unit(share * end)));
  }
  series.forEach(({x, y, spread, floor}, index) => {
    if (floor !== null && floor !== undefined) {
      svg.append(draw("path", {class: "floor", stroke: colour(index), d: `M${LEFT} ${py(floor)}H${WIDTH - RIGHT}`}));
    }
    if (spread?.some((s) => s > 0)) {
      const there = x.map((_, i) => i).filter((i) => y[i] !== null && (!logarithmic || y[i] - (spread[i] ?? 0) > 0));
      const over = there.map((i) => `${px(x[i])} ${py(y[i] + (spread[i] ?? 0))}`);
      const under = there.map((i) => `${px(x[i])} ${py(y[i] - (spread[i] ?? 0))}`).reverse();
      if (there.length) svg.append(draw("path", {class: "spread", fill: colour(index), d: `M${[...over, ...under].join("L")}Z`}));
    }
    let pen = "M";
    const line = x.map((at, i) => {
      if (y[i] === null || (logarithmic && y[i] <= 0)) return ((pen = "M"), "");
      const step = `${pen}${px(at).toFixed(1)} ${py(y[i]).toFixed(1)}`;
      pen = "L";
      return step;
    });
    svg.append(draw("path", {class: "line", stroke: colour(index), d: line.join("")}));
  });
  const mark = draw("line", {class: "at", x1: 0, x2: 0, y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
  const dots = series.map((_, index) => draw("circle", {class: "dot", r: 4, fill: colour(index), visibility: "hidden"}));
  svg.append(mark, ...dots);

  const shown = series.map(() => make("b"));
  const legend = make("ul", {class: "legend"}, ...series.map(({name}, index) => {
    const item = make("li", {}, make("i"), `${name} `, shown[index]);
    item.style.setProperty("--of", colour(index));
    return item;
  }));
  const where = make("span", {class: "quiet"});
  element.append(make("div", {class: "chart"}, make("div", {class: "head"}, make("h3", {}, title), where, legend), svg, numbers(series, unit)));

  let last = end;
  function at(x) {
    last = x;
    mark.setAttribute("x1", px(x));
    mark.setAttribute("x2", px(x));
    mark.setAttribute("visibility", "visible");
    where.textContent = unit(x);
    series.forEach((one, index) => {
      const i = nearestIndex(one, x);
      shown[index].textContent = i < 0 ? "–" : `${short(one.y[i])}${one.spread?.[i] ? ` ± ${short(one.spread[i])}` : ""}`;
      const seen = i >= 0 && !(logarithmic && one.y[i] <= 0);
      dots[index].setAttribute("visibility", seen ? "visible" : "hidden");
      if (seen) {
        dots[index].setAttribute("cx", px(one.x[i]));
        dots[index].setAttribute("cy", py(one.y[i]));
      }
    });
  }

  const point = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * end;
    onPoint(Math.min(end, Math.max(0, x)));
  };
  svg.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(event));
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("keydown", (event) => {
    const by = {ArrowLeft: -0.02, ArrowRight: 0.02}[event.key];
    if (!by) return;
    event.preventDefault();
    onPoint(Math.min(end, Math.max(0, last + by * end)));
  });
  return {at};
}

// Of the point nearest to x, -1 if there is none.
function nearestIndex({x, y}, wanted) {
  let best = -1;
  x.forEach((at, i) => {
    if (y[i] !== null && (best < 0 || Math.abs(at - wanted) < Math.abs(x[best] - wanted))) best = i;
  });
  return best;
}

function ticks(low, high, logarithmic) {
  if (logarithmic && high - low > 0.6) {
    const found = [];
    const steps = high - low > 1.5 ? [1] : [1, 2, 5];
    for (let power = Math.floor(low); power <= high; power++) found.push(...steps.map((n) => n * 10 ** power));
    return found.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  }
  const [from, to] = logarithmic ? [10 ** low, 10 ** high] : [low, high];
  const rough = (to - from) / 4;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * size).find((s) => s >= rough);
  const found = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  return found.filter((tick) => !logarithmic || tick > 0);
}

// The numbers behind the curves, for who cannot see them.
function numbers(series, unit) {
  const details = make("details", {}, make("summary", {}, "Numbers"));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const places = [...new Set(series.flatMap(({x}) => x))].sort((a, b) => a - b);
    const step = Math.ceil(places.length / 100);
    const some = places.filter((_, i) => (places.length - 1 - i) % step === 0);
    const cell = (one, x) => {
      const i = one.x.indexOf(x);
      return make("td", {class: "number"}, i < 0 ? "" : short(one.y[i]));
    };
    details.append(make("div", {class: "scroll"}, make("table", {},
      make("thead", {}, make("tr", {}, make("th", {}, "at"), ...series.map(({name}) => make("th", {class: "number"}, name)))),
      make("tbody", {}, ...some.map((x) => make("tr", {}, make("td", {}, unit(x)), ...series.map((one) => cell(one, x))))),
    )));
  });
  return details;
}
