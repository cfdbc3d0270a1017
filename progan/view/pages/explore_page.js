// Any snapshot of a run, drawn by the server: growing, seeds, directions, walks, classes, nearest training images.

import {directions} from "./directions.js";
import {make} from "./dom.js";
import {fadeFigure} from "./fade_figure.js";
import {growthSlider} from "./growth_slider.js";
import {get, newest} from "./server.js";
import {kimg} from "./words.js";
import {walk} from "./walk.js";
import {wall} from "./wall.js";

const ON_THE_WALL = 24;
const TOGETHER = 8; // pictures of the wall in one request
const LARGEST_SMALL = 64; // pixels of the pictures on the wall

export async function explorePage(main, {words, title}) {
  const [, id, wanted] = words;
  const run = await get(`runs/${id}`);
  const at = Number(wanted ?? run.snapshots.at(-1));
  const base = `runs/${id}/generators/${at}`;
  const network = await get(base);
  const {stage: full, resolutions, classNames} = network;
  title("Explore", [["Runs", "#/"], [run.name, `#/run/${id}`]]);

  let seed = 0;
  let way = null; // on a walk: {seeds, position, words}
  let moves = [];
  let stage = full;
  let label = "";

  const canvas = make("canvas", {width: full.resolution, height: full.resolution, role: "img"});
  const frame = make("div", {class: "frame"}, canvas);
  const name = make("h2", {"aria-live": "polite"}, "Seed 0");
  const growth = make("div");
  const fade = make("figure", {id: "fade"}, make("figcaption", {}, "What the older layers draw, doubled, and what the newest ones make of it (figure 2 of the paper)."));
  const problem = make("p", {class: "problem"});
  const near = make("section", {});
  const seeds = make("div");
  const moving = make("div");
  const walking = make("div");
  const choice = make("select", {"aria-label": "Class", change: () => ((label = choice.value), theWall.redraw(), theWalk.redraw(), show())},
    make("option", {value: ""}, "each seed its own class"), ...classNames.map((word, i) => make("option", {value: i}, word)));
  const field = make("input", {type: "number", min: 0, step: 1, value: 0, inputmode: "numeric", "aria-label": "Seed"});
  const moments = make("select", {"aria-label": "Snapshot", change: () => (location.hash = `#/explore/${id}/${moments.value}`)},
    ...run.snapshots.map((one) => make("option", {value: one, selected: one === at}, kimg(one))));
  main.append(
    make("div", {class: "lead"}, make("h1", {}, run.name), make("label", {class: "choice"}, "Snapshot ", moments)),
    make("div", {class: "explore"},
      make("section", {class: "stage", "aria-label": "The picture"}, make("div", {class: "hold"}, frame,
        make("div", {class: "side"}, make("div", {class: "bar"}, name, make("div", {class: "buttons"},
          make("button", {type: "button", "aria-label": "Previous seed", click: () => pick(seed - 1)}, "‹"),
          make("button", {type: "button", "aria-label": "Next seed", click: () => pick(seed + 1)}, "›"),
          make("button", {type: "button", click: save}, "Download PNG"))), growth)), problem, fade),
      make("div", {class: "tools"},
        make("section", {}, make("div", {class: "bar"}, make("h2", {}, "Seeds"), ...(classNames.length ? [choice] : []),
          make("form", {submit: (event) => (event.preventDefault(), pick(Math.floor(Number(field.value)) || 0))}, field, " ", make("button", {}, "Show"))), seeds),
        make("section", {}, make("h2", {}, "Directions"), make("p", {class: "hint"}, "The principal components of the network's first features."), moving),
        make("section", {}, make("h2", {}, "Walk"), walking),
        near)));

  function wish(more = {}) {
    const points = way ? [...way.seeds, way.position].join("~") : String(seed);
    const fields = {points, resolution: stage.resolution, alpha: stage.alpha, moves: moves.join(","), label, ...more};
    return new URLSearchParams(fields).toString();
  }

  const ask = newest((bitmap, error) => {
    problem.textContent = error ? error.message : "";
    if (bitmap) paint(canvas, bitmap);
  });
  const askFade = newest((bitmap) => bitmap && showFade(bitmap));

  function paint(onto, bitmap) {
    onto.width = bitmap.width;
    onto.height = bitmap.height;
    onto.getContext("2d").drawImage(bitmap, 0, 0);
    onto.classList.toggle("fine", bitmap.width > 256);
  }

  function show({growing = false} = {}) {
    name.textContent = `${way ? way.words : `Seed ${seed}`}${moves.some(Boolean) ? ", moved" : ""}`;
    canvas.setAttribute("aria-label", `${name.textContent}, ${stage.resolution} by ${stage.resolution} pixels`);
    ask(`${base}/picture?${wish()}`);
    if (growing || stage.resolution <= LARGEST_SMALL) askFade(`${base}/branches?${wish()}`);
    forget();
  }

  function showFade(bitmap) {
    const side = bitmap.height;
    const cut = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    [cut.canvas.width, cut.canvas.height] = [bitmap.width, side];
    cut.drawImage(bitmap, 0, 0);
    const part = (i) => cut.getImageData(i * side, 0, side, side);
    fades.show({older: stage.resolution === 4 ? null : part(0), newer: part(1), blend: part(2)}, stage);
  }

  function seedPoint(number) {
    return {seed: number, title: `Seed ${number}`};
  }

  function pick(number) {
    seed = Math.min(2 ** 53 - 1, Math.max(0, number));
    way = null;
    theWalk.pause();
    field.value = seed;
    theWall.pick(seed);
    show();
  }

  function save() {
    const link = make("a", {href: canvas.toDataURL("image/png"), download: `seed${String(seed).padStart(4, "0")}-${stage.resolution}x${stage.resolution}.png`});
    link.click();
  }

  // The wall's pictures come several at a time.
  let waiting = [];
  let running = false;
  function drawOnWall(onto, number) {
    waiting = waiting.filter((one) => one.onto !== onto);
    waiting.push({onto, number});
    if (!running) runWall();
  }

  async function runWall() {
    running = true;
    await null; // until the wall has asked for all it wants now
    while (waiting.length && document.contains(main)) {
      const some = waiting.splice(0, full.resolution > 256 ? 1 : TOGETHER);
      const seen = stage.resolution > LARGEST_SMALL ? {resolution: Math.min(LARGEST_SMALL, full.resolution), alpha: 1} : stage;
      const fields = {points: some.map(({number}) => number).join(","), columns: some.length, resolution: seen.resolution, alpha: seen.alpha, label};
      try {
        const answer = await fetch(`${base}/picture?${new URLSearchParams(fields)}`);
        if (!answer.ok) break;
        const strip = await createImageBitmap(await answer.blob());
        const side = strip.height;
        some.forEach(({onto}, i) => {
          [onto.width, onto.height] = [side, side];
          onto.getContext("2d").drawImage(strip, i * side, 0, side, side, 0, 0, side, side);
        });
      } catch {
        break;
      }
    }
    running = false;
  }

  function forget() {
    near.replaceChildren(make("div", {class: "bar"}, make("h2", {}, "Nearest training images"), make("button", {type: "button", click: find}, "Look for them")));
    if (!run.dataId) near.replaceChildren(make("h2", {}, "Nearest training images"), make("p", {class: "hint"}, "The data set of this run is not in this folder: give it to the viewer with --data."));
  }

  async function find() {
    const list = make("ul", {class: "near"});
    const hint = make("p", {class: "hint", role: "status"}, "Looking …");
    near.replaceChildren(make("h2", {}, "Nearest training images"), hint, list);
    try {
      const {data, resolution, at: compared, images, found} = await get(`${base}/neighbours?${wish()}`);
      hint.textContent = `Of ${images.toLocaleString("en")}, compared pixel by pixel at ${compared} × ${compared}; the numbers are the root of the mean squared difference, of 255.`;
      list.append(...found.map(({number, distance}) => make("li", {}, make("img", {src: `data/${data}/images/${resolution}/${number}`, alt: `Training image ${number}`, width: resolution, height: resolution}), make("span", {}, distance.toFixed(1)))));
    } catch (error) {
      hint.textContent = error.message;
    }
  }

  const fades = fadeFigure(fade);
  growthSlider(growth, {resolutions, stage: full, onChange: (to) => ((stage = to), show({growing: true}), theWall.redraw())});
  const theWall = wall(seeds, {count: ON_THE_WALL, draw: drawOnWall, title: (number) => `Seed ${number}`, onPick: pick});
  directions(moving, {count: network.directions, limit: 5, onChange: (values) => ((moves = values), show())});
  const theWalk = walk(walking, {
    points: [0, 1, 2, 3].map(seedPoint),
    draw: (onto, {seed: number}) => drawOnWall(onto, number),
    current: () => seedPoint(seed),
    adding: "Add this seed",
    onMove: (points, position, words) => ((way = {seeds: points.map((point) => point.seed), position, words}), show()),
  });
  addEventListener("hashchange", theWalk.pause, {once: true});
  pick(0);
  return {};
}
