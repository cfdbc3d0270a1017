// One run: a moment of it, the images of that moment beside real ones, and every curve with that moment marked.

import {chart} from "./chart.js";
import {make} from "./dom.js";
import {moment} from "./moment.js";
import {get} from "./server.js";
import {duration, kimg, plain, short, stageAt, stageWords, STATES} from "./words.js";
import {zoomable} from "./zoom.js";

export async function runPage(main, {words, title}) {
  const id = words[1];
  let run = await get(`runs/${id}`);
  title(run.name, [["Runs", "#/"]]);

  const state = make("span", {class: "state"});
  const facts = make("p", {class: "quiet"});
  const problem = make("p", {class: "problem"});
  const fakes = zoomable(make("img", {alt: "Generated images", error: () => (of.textContent = "this picture cannot be read")}));
  const of = make("span", {"aria-live": "polite"});
  const size = make("span", {class: "quiet"});
  const reals = zoomable(make("img", {alt: "Real images"}));
  const realsFigure = make("figure", {}, reals, make("figcaption", {}, make("span", {}, "Real images"), make("span", {class: "quiet"}, `${run.full} × ${run.full}`)));
  realsFigure.hidden = true;
  reals.addEventListener("load", () => (realsFigure.hidden = false));
  const place = make("div");
  const charts = make("div", {class: "charts"});
  const actions = make("div", {class: "actions"});
  const config = make("section");
  main.append(
    make("div", {class: "lead"}, make("h1", {}, run.name), actions),
    make("div", {}, make("p", {}, state), facts, problem),
    place,
    make("div", {class: "pair"}, make("figure", {}, fakes, make("figcaption", {}, of, size)), realsFigure),
    charts,
    config,
  );
  let marks = [];
  let at = run.pictures.at(-1) ?? 0;
  const scrub = moment(place, {phases: run.phases, end: run.total, moments: run.pictures, unit: kimg, onChange: show});

  function show(nimg) {
    at = nimg;
    fakes.src = `runs/${id}/fakes/${nimg}`;
    fakes.classList.toggle("large", run.full > 256);
    of.textContent = `Generated after ${kimg(nimg)}`;
    const stage = stageAt(run.phases, nimg);
    size.textContent = stageWords(stage);
    fakes.alt = `Generated images after ${kimg(nimg)}, at ${stageWords(stage)}`;
    for (const mark of marks) mark.at(nimg);
    const snapshot = run.snapshots.findLast((one) => one <= nimg) ?? run.snapshots[0];
    actions.replaceChildren(
      ...(snapshot === undefined ? [] : [make("a", {class: "button main", href: `#/explore/${id}/${snapshot}`}, "Explore this moment")]),
      ...(run.dataId ? [make("a", {class: "button", href: `#/data/${run.dataId}`}, "Its data")] : []),
    );
  }

  function tell(summary) {
    state.className = `state ${summary.state}`;
    state.textContent = `${STATES[summary.state]}${summary.full ? ` at ${stageWords(summary)}` : ""}`;
    problem.textContent = summary.problem;
    facts.textContent = [
      `${plain(summary.nimg / 1000, 1)} of ${kimg(summary.total)}`,
      summary.seconds && `${duration(summary.seconds)} of training`,
      summary.img_per_s && `${plain(summary.img_per_s)} images a second`,
      summary.left !== null && `${duration(summary.left)} left`,
    ].filter(Boolean).join(" · ");
  }

  function curves() {
    if (run.reals && !reals.src) reals.src = `runs/${id}/reals`;
    charts.replaceChildren();
    marks = runCharts(charts, run, (x) => {
      scrub.to(x);
      for (const mark of marks) mark.at(x); // the values under the pointer, between two pictures too
    });
    for (const mark of marks) mark.at(at);
  }

  let changed = run.changed;
  let fetching = false;
  async function news({runs}) {
    const summary = runs.find((one) => one.id === id);
    if (!summary) {
      state.className = "state gone";
      state.textContent = "moved or deleted; what you see was read before";
      return;
    }
    tell(summary);
    if (fetching || (summary.changed === changed && summary.picture === (run.pictures.at(-1) ?? null))) return;
    fetching = true;
    try {
      changed = summary.changed;
      run = await get(`runs/${id}`);
      scrub.grow(run.pictures);
      if (!charts.contains(document.activeElement)) curves();
    } catch {
      // it is being moved or deleted: the next news will say so
    } finally {
      fetching = false;
    }
  }

  tell(run);
  curves();
  if (run.pictures.length) show(at);
  config.append(configTable(run));
  return {news, leave: () => scrub.leave?.()};
}

// All charts of a run, each with `at(nimg)`.
export function runCharts(element, run, onPoint) {
  const bands = run.phases.map(({start, stop, resolution, fading}) => ({from: start, to: stop, name: fading ? "" : `${resolution} × ${resolution}`}));
  const common = {bands, end: run.total, unit: kimg, onPoint};
  const marks = [];
  for (const {title, images, nimg, levels} of run.metrics) {
    const series = Object.entries(levels).map(([level, {values, spread, floor}]) => ({
      name: level || "generated", x: nimg, y: values, spread, floor,
    }));
    series.sort((a, b) => (b.name === "average") - (a.name === "average"));
    marks.push(chart(element, {...common, title: `${title}${images ? `, ${plain(images)} images` : ""}`, series, log: true}));
  }
  const {nimg, terms} = run.losses;
  const groups = {"Critic": ["wasserstein", "lsgan_reals", "lsgan_fakes"], "Penalty and drift": ["gradient_penalty", "drift"]};
  const left = new Set(Object.keys(terms));
  for (const [title, names] of Object.entries(groups)) {
    const there = names.filter((name) => left.delete(name));
    if (there.length) marks.push(chart(element, {...common, title, log: title !== "Critic", series: there.map((name) => ({name: name.replaceAll("_", " "), x: nimg, y: terms[name]}))}));
  }
  for (const name of left) marks.push(chart(element, {...common, title: name[0].toUpperCase() + name.slice(1).replaceAll("_", " "), series: [{name: name.replaceAll("_", " "), x: nimg, y: terms[name]}]}));
  const {speed} = run;
  if (speed.nimg.length) marks.push(chart(element, {...common, title: "Speed", log: true, series: [{name: "images a second", x: speed.nimg, y: speed.img_per_s}]}));
  return marks;
}

function configTable({preset, differs, config}) {
  const rows = differs.map(([field, theirs, own]) => make("tr", {}, make("td", {}, field), make("td", {}, value(own)), make("td", {class: "quiet"}, value(theirs))));
  const all = Object.entries(config).map(([field, own]) => make("tr", {}, make("td", {}, field), make("td", {}, value(own))));
  return make("div", {},
    make("h2", {}, "Configuration"),
    make("p", {class: "hint"}, differs.length ? `The preset ${preset}, but for` : `The preset ${preset}, unchanged.`),
    ...(rows.length ? [make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "field"), make("th", {}, "this run"), make("th", {}, preset))), make("tbody", {}, ...rows))] : []),
    make("details", {class: "fine"}, make("summary", {class: "quiet"}, "All fields"), make("table", {}, make("tbody", {}, ...all))));
}

export function value(x) {
  if (x === null) return "none";
  if (typeof x === "number") return short(x);
  if (typeof x === "object") return Object.entries(x).map(([key, one]) => `${key}: ${short(one)}`).join(", ");
  return String(x);
}
