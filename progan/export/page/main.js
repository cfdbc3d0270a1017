// The exported page: reads the network that is inside, and joins the widgets. Of the widgets none knows another.
// The part of the address after # may be webgl, half or javascript: the engine to use, in place of the quickest.

import {classes} from "./classes.js";
import {directions} from "./directions.js";
import {make} from "./dom.js";
import {quickestEngine} from "./engines.js";
import {enlarged} from "./enlarged.js";
import {fadeFigure} from "./fade_figure.js";
import {growthSlider} from "./growth_slider.js";
import {readNetwork} from "./network.js";
import {blended, branches, paint, savePng} from "./pictures.js";
import {latentOf} from "./random.js";
import {walk} from "./walk.js";
import {wall} from "./wall.js";

const SMALL = 128; // pixels of a picture on the wall, at most
const REST = 150; // ms without a movement, after which a slow engine draws the whole picture
const AT_ONCE = 64;

const byId = (id) => document.getElementById(id);
const network = readNetwork(JSON.parse(byId("about").textContent), byId("weights").textContent);
const wanted = ["webgl", "half", "javascript"].find((name) => location.hash === `#${name}`);
let engine = quickestEngine(network, wanted);

let stage = network.stage;
let chosenClass = null;
let seed = 0;
let point = faceAt(0);
let shift = network.directions.map(() => 0);
let outputs = {};
let rest = 0;
let seen = new Map(); // outputs of the small pictures by seed

function faceAt(number) {
  const label = network.classes ? new Array(network.classes).fill(0) : null;
  if (label) label[chosenClass ?? number % network.classes] = 1;
  const file = `seed${String(number).padStart(4, "0")}`;
  return {z: latentOf(number, network.latentDim), label, title: `Seed ${number}`, file};
}

function run(...what) {
  if (engine.lost?.()) {
    engine = quickestEngine(network, "javascript");
    tell();
  }
  return engine.run(...what);
}

function moved({z}) {
  return z.map((x, i) => shift.reduce((sum, by, k) => sum + by * network.directions[k][i], x));
}

// A stage that outputs up to `resolution` can show.
function within(resolution) {
  return stage.resolution <= resolution ? stage : {resolution, alpha: 1};
}

function draw(following = false) {
  clearTimeout(rest);
  const resolution = following ? Math.min(stage.resolution, engine.quick) : stage.resolution;
  if (resolution < stage.resolution) rest = setTimeout(draw, REST);
  outputs = run(moved(point), point.label, resolution);
  show();
}

function show() {
  const at = within(Math.max(...Object.keys(outputs)));
  const pictures = branches(outputs, at, network.channels, network.tanh);
  paint(canvas, pictures.blend);
  canvas.setAttribute("aria-label", point.title);
  name.textContent = point.title;
  figure.show(pictures, at);
  large.redraw();
}

function small() {
  return Math.min(SMALL, engine.quick, network.stage.resolution);
}

function drawSmall(canvas, number) {
  if (!seen.has(number)) {
    const {z, label} = faceAt(number);
    seen.set(number, run(z, label, small()));
  }
  paint(canvas, blended(seen.get(number), within(small()), network.channels, network.tanh));
}

function pick(number) {
  seed = Math.max(0, number);
  trip.pause();
  sliders.reset();
  shift = shift.map(() => 0);
  point = faceAt(seed);
  faces.pick(seed);
  draw();
}

function save() {
  const size = `${canvas.width}x${canvas.height}`;
  savePng(canvas, canvas.width === network.stage.resolution ? `${point.file}.png` : `${point.file}-${size}.png`);
}

function tell() {
  const time = engine.quick === network.stage.resolution ? `, ${engine.ms.toFixed(1)} ms a picture` : "";
  byId("engine").textContent = `Computed in your browser by ${engine.name}${time}; nothing is sent or loaded.`;
}

const canvas = make("canvas", {width: 4, height: 4, role: "img"});
const name = make("span", {class: "name"});
byId("picture").append(
  make("button", {type: "button", "aria-label": "Enlarge", click: () => large.open()}, canvas),
  make("div", {class: "buttons"}, name, make("button", {type: "button", click: save}, "Download PNG")),
);
const large = enlarged({
  draw: (to) => {
    paint(to, canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height));
    return point.title;
  },
  onStep: (by) => pick(seed + by),
  onSave: save,
});
const figure = fadeFigure(byId("fade"));
growthSlider(byId("growth"), {
  resolutions: network.resolutions,
  stage,
  onChange: (to) => {
    stage = to;
    if (outputs[Math.min(stage.resolution, engine.quick)]) show();
    if (!outputs[stage.resolution]) draw(true);
    faces.redraw();
  },
});
const faces = wall(byId("wall"), {count: AT_ONCE, draw: drawSmall, title: (number) => `Seed ${number}`, onPick: pick});
byId("more").addEventListener("click", () => faces.more(AT_ONCE));
const sliders = directions(byId("directions"), {
  count: network.directions.length,
  limit: 4,
  onChange: (values) => {
    shift = values;
    draw(true);
  },
});
const trip = walk(byId("walk"), {
  points: [0, 1, 2, 3].map(faceAt),
  draw: (to, {z, label}) =>
    paint(to, blended(run(z, label, small()), {resolution: small(), alpha: 1}, network.channels, network.tanh)),
  current: () => ({...point, z: moved(point)}),
  onMove: (here, words) => {
    point = {...here, title: words, file: "walk"};
    faces.pick(-1);
    draw(true);
  },
});
if (network.classes) {
  classes(byId("classes"), {
    names: network.classNames,
    onChange: (index) => {
      chosenClass = index;
      seen = new Map();
      pick(seed);
      faces.redraw();
    },
  });
}
faces.pick(0);
draw();
tell();
