// The page: what is shown, and which widget changes it. The widgets get functions; only this module knows the network.

import {directions} from "./directions.js";
import {make} from "./dom.js";
import {quickestEngine} from "./engines.js";
import {enlarged} from "./enlarged.js";
import {fadeFigure} from "./fade_figure.js";
import {growthSlider} from "./growth_slider.js";
import {readNetwork} from "./network.js";
import {blended, branches, paint, savePng} from "./pictures.js";
import {plainEngine} from "./plain_engine.js";
import {latentOf} from "./random.js";
import {roundTrip, walk} from "./walk.js";
import {wall} from "./wall.js";

const ON_THE_WALL = 40;
const KEPT = 400; // seeds whose outputs stay in memory
const REST = 250; // ms after which a picture in motion is drawn in full

const $ = (id) => document.getElementById(id);
const network = readNetwork(JSON.parse($("network").textContent), $("weights").textContent);
let engine = quickestEngine(network, location.hash.slice(1));

// What is shown: a seed, or a point of the walk; moved along the directions; at a stage of growing.
let seed = 0;
let point = null; // {z, label, words}
let offsets = [];
let stage = network.stage;
let classOf = (number) => number % network.classes;

function run(z, label, resolution) {
  if (engine.lost?.()) engine = {...engine, ...plainEngine(network), lost: undefined};
  return engine.run(z, label, resolution);
}

function labelOf(number) {
  return network.classes ? Array.from({length: network.classes}, (_, i) => Number(i === classOf(number))) : null;
}

function titleOf(number) {
  return network.classes ? `Seed ${number}, ${network.classNames[classOf(number)]}` : `Seed ${number}`;
}

function seedPoint(number) {
  return {z: Array.from(latentOf(number, network.latentDim)), label: labelOf(number), title: titleOf(number)};
}

// The point that the large picture shows.
function current() {
  const base = point ?? seedPoint(seed);
  const z = base.z.map((x, i) => offsets.reduce((sum, by, k) => sum + by * network.directions[k][i], x));
  return {...base, z, title: offsets.some(Boolean) ? `${base.title}, moved` : base.title};
}

// Small pictures: coarser than the stage only where one would take too long, for the colours of older layers have
// drifted; the outputs of a seed are computed once.
const small = engine.small;
const kept = new Map();

function paintOutputs(canvas, outputs, most) {
  const shown = stage.resolution > most ? {resolution: most, alpha: 1} : stage;
  paint(canvas, blended(outputs, shown, network.channels, network.tanh));
}

function drawSeed(canvas, number) {
  const key = `${number}/${network.classes && classOf(number)}`;
  if (!kept.has(key)) {
    if (kept.size >= KEPT) kept.delete(kept.keys().next().value);
    const {z, label} = seedPoint(number);
    kept.set(key, run(z, label, small));
  }
  paintOutputs(canvas, kept.get(key), small);
}

// The large picture. Its outputs serve every stage, so that growing runs no network.
const canvas = $("canvas");
let outputs = null;
let drawn = 0; // the resolution up to which they are computed
let rest = 0;

function compute(hasty) {
  const {z, label} = current();
  drawn = hasty ? engine.quick : network.stage.resolution;
  outputs = run(z, label, drawn);
}

// hasty: the hand is still moving; what takes long waits until it rests.
function show({hasty = false, fresh = true} = {}) {
  clearTimeout(rest);
  const slow = engine.quick < network.stage.resolution;
  if (fresh) compute(hasty || slow);
  if (slow && drawn < stage.resolution) rest = setTimeout(() => (compute(false), display()), REST);
  display();
}

function display() {
  const seen = stage.resolution > drawn ? {resolution: drawn, alpha: 1} : stage;
  paint(canvas, blended(outputs, seen, network.channels, network.tanh));
  canvas.classList.toggle("fine", seen.resolution > 256);
  canvas.setAttribute("aria-label", `${current().title}, ${stage.resolution} by ${stage.resolution} pixels`);
  $("title").textContent = point?.words ?? current().title;
  fade.show(branches(outputs, seen, network.channels, network.tanh), seen);
  dialog.redraw();
}

function pick(number) {
  walker.pause();
  seed = Math.max(0, number);
  point = null;
  theWall.pick(seed);
  $("seed").value = seed;
  show();
}

function save() {
  if (drawn < stage.resolution) {
    compute(false);
    display();
  }
  const whole = stage.resolution === network.stage.resolution && stage.alpha === network.stage.alpha;
  const size = whole ? "" : `-${stage.resolution}x${stage.resolution}`;
  const plain = !point && !offsets.some(Boolean);
  savePng(canvas, `${plain ? `seed${String(seed).padStart(4, "0")}` : "picture"}${size}.png`);
}

const fade = fadeFigure($("fade"));
const dialog = enlarged({
  draw: (large) => {
    large.width = canvas.width;
    large.height = canvas.height;
    large.getContext("2d").drawImage(canvas, 0, 0);
    return canvas.getAttribute("aria-label");
  },
  onStep: (by) => pick(seed + by),
  onSave: save,
});
growthSlider($("growth"), {
  resolutions: network.resolutions,
  stage,
  onChange: (wanted) => {
    stage = wanted;
    show({fresh: false});
    theWall.redraw();
  },
});
const theWall = wall($("wall"), {count: ON_THE_WALL, draw: drawSeed, title: titleOf, onPick: pick});
directions($("directions"), {
  count: network.directions.length,
  limit: 5,
  onChange: (values) => {
    offsets = values;
    show({hasty: true});
  },
});
const walker = walk($("walk"), {
  points: [0, 1, 2, 3].map(seedPoint),
  draw: (small, {z, label}) => paintOutputs(small, run(z, label, engine.quick), engine.quick),
  current,
  onMove: (points, position, words) => {
    point = {...roundTrip(points, position), title: "Walk", words};
    show({hasty: true});
  },
});
if (network.classes) {
  const choice = $("class");
  choice.append(
    make("option", {value: ""}, "each seed its own"),
    ...network.classNames.map((name, number) => make("option", {value: number}, name)),
  );
  choice.addEventListener("change", () => {
    const chosen = choice.value;
    classOf = (number) => (chosen === "" ? number % network.classes : Number(chosen));
    theWall.rename();
    theWall.redraw();
    pick(seed);
  });
}
for (const picture of [canvas, $("enlarge")]) picture.addEventListener("click", () => dialog.open());
$("previous").addEventListener("click", () => pick(seed - 1));
$("next").addEventListener("click", () => pick(seed + 1));
$("save").addEventListener("click", save);
$("more").addEventListener("click", () => theWall.more(ON_THE_WALL));
$("go").addEventListener("submit", (event) => {
  event.preventDefault();
  pick(Math.min(2 ** 53 - 1, Math.floor(Number($("seed").value)) || 0));
});
$("engine").textContent = `${engine.name}, ${engine.ms.toFixed(0)} ms for ${engine.quick} × ${engine.quick} pixels`;
document.documentElement.classList.add("ready");
pick(0);
