// Two to four runs: their pictures at one moment side by side, their curves over each other, what differs in their configs.

import {chart} from "./chart.js";
import {make} from "./dom.js";
import {moment} from "./moment.js";
import {value} from "./run_page.js";
import {get} from "./server.js";
import {duration, kimg, stageAt, stageWords} from "./words.js";
import {zoomable} from "./zoom.js";

export async function comparePage(main, {words, query, title}) {
  const ids = words[1].split(",");
  const [runs, differences] = [await Promise.all(ids.map((id) => get(`runs/${id}`))), await get(`differences?runs=${ids.join(",")}`)];
  title(`${runs.length} runs`, [["Runs", "#/"]]);
  const byHours = query.get("by") === "hours";
  const clocks = runs.map(clock);
  const end = Math.max(...runs.map((run, i) => (byHours ? clocks[i].seconds(run.nimg) : run.total)), 1);
  const unit = byHours ? duration : kimg;
  const moments = [...new Set(runs.flatMap((run, i) => run.pictures.map((nimg) => (byHours ? clocks[i].seconds(nimg) : nimg))))].sort((a, b) => a - b);

  const figures = runs.map((run, index) => {
    const img = zoomable(make("img", {alt: `Images of ${run.name}`}));
    const words = make("span", {class: "quiet"});
    const name = make("a", {href: `#/run/${ids[index]}`}, run.name);
    const dot = make("i");
    const item = make("figure", {}, img, make("figcaption", {class: "legend"}, make("span", {}, dot, name), words));
    item.querySelector("figcaption").style.setProperty("--of", `var(--c${index})`);
    return {item, img, words};
  });
  const place = make("div");
  const charts = make("div", {class: "charts"});
  const here = `#/compare/${words[1]}`;
  main.append(
    make("div", {class: "lead"}, make("h1", {}, "Compared"), make("div", {class: "actions", role: "group", "aria-label": "Compare by"},
      make("a", {class: `button${byHours ? "" : " main"}`, href: here}, "By images"), make("a", {class: `button${byHours ? " main" : ""}`, href: `${here}?by=hours`}, "By hours"))),
    place, make("div", {class: "pair"}, ...figures.map(({item}) => item)), charts, differenceTable(runs, differences));
  const marks = [];
  const longest = runs.reduce((a, b) => (b.total > a.total ? b : a));
  const scrub = moment(place, {phases: byHours ? [] : longest.phases, end, moments, unit, onChange: show});

  function show(x) {
    runs.forEach((run, i) => {
      const nimg = byHours ? clocks[i].nimg(x) : x;
      const seen = run.pictures.findLast((one) => one <= nimg) ?? run.pictures[0];
      const {img, words} = figures[i];
      if (seen === undefined) return void (words.textContent = "no picture yet");
      img.src = `runs/${ids[i]}/fakes/${seen}`;
      words.textContent = `${kimg(seen)}, ${stageWords(stageAt(run.phases, seen))}`;
    });
    for (const mark of marks) mark.at(x);
  }

  const places = (i, nimg) => (byHours ? nimg.map(clocks[i].seconds) : nimg);
  const bands = byHours ? [] : longest.phases.map(({start, stop, resolution, fading}) => ({from: start, to: stop, name: fading ? "" : `${resolution} × ${resolution}`}));
  const common = {bands, end, unit, onPoint: (x) => {
    scrub.to(x);
    for (const mark of marks) mark.at(x);
  }};
  const measured = new Map();
  runs.forEach((run, i) => {
    for (const {title: name, nimg, levels} of run.metrics) {
      for (const [level, {values, spread, floor}] of Object.entries(levels)) {
        if (level && level !== "average") continue;
        const key = `${name} ${level}`.trim();
        if (!measured.has(key)) measured.set(key, []);
        measured.get(key)[i] = {name: run.name, x: places(i, nimg), y: values, spread, floor};
      }
    }
  });
  for (const [key, series] of measured) marks.push(chart(charts, {...common, title: key, log: true, series: whole(series)}));
  const terms = [...new Set(runs.flatMap((run) => Object.keys(run.losses.terms)))];
  for (const term of terms) {
    const series = whole(runs.map((run, i) => run.losses.terms[term] && {name: run.name, x: places(i, run.losses.nimg), y: run.losses.terms[term]}));
    marks.push(chart(charts, {...common, title: term[0].toUpperCase() + term.slice(1).replaceAll("_", " "), log: !["wasserstein", "generator"].includes(term), series}));
  }

  // A curve keeps its run's colour where another run has none.
  function whole(series) {
    return runs.map((run, i) => series[i] ?? {name: run.name, x: [], y: []});
  }

  if (moments.length) show(moments.at(-1));
  return {};
}

// Seconds of training at nimg, and back.
function clock({speed}) {
  const along = (from, to) => (x) => {
    const i = from.findIndex((one) => one >= x);
    if (i < 0) return to.at(-1) ?? 0;
    const [a, b] = i ? [from[i - 1], from[i]] : [0, from[0]];
    const [c, d] = i ? [to[i - 1], to[i]] : [0, to[0]];
    return b > a ? c + ((x - a) / (b - a)) * (d - c) : d;
  };
  return {seconds: along(speed.nimg, speed.seconds), nimg: along(speed.seconds, speed.nimg)};
}

function differenceTable(runs, differences) {
  if (!differences.length) return make("section", {}, make("h2", {}, "Configuration"), make("p", {class: "hint"}, "They are the same, field by field."));
  return make("section", {}, make("h2", {}, "What differs in their configurations"),
    make("div", {class: "scroll"}, make("table", {},
      make("thead", {}, make("tr", {}, make("th", {}, "field"), ...runs.map(({name}) => make("th", {}, name)))),
      make("tbody", {}, ...differences.map(([field, ...values]) => make("tr", {}, make("td", {}, field), ...values.map((one) => make("td", {}, value(one)))))))));
}
