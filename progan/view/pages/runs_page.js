// Everything in the folder: runs with their newest picture, studies, data sets; live.

import {make} from "./dom.js";
import {duration, kimg, plain, stageWords, STATES} from "./words.js";

const MOST_COMPARED = 4;

export function runsPage(main, {overview, title}) {
  title("");
  const chosen = new Set();
  const cards = new Map(); // of runs, by id
  const grid = make("ul", {class: "cards"});
  const heading = make("h1", {}, "Runs");
  const compare = make("a", {class: "button main", href: "#/"}, "Compare");
  const rest = make("div");
  const lead = make("div", {class: "lead"}, heading, make("div", {class: "actions"}, compare));
  main.append(lead, grid, rest);

  function choose(id, on) {
    if (on && chosen.size < MOST_COMPARED) chosen.add(id);
    else chosen.delete(id);
    for (const [other, card] of cards) card.box.checked = chosen.has(other);
    grid.classList.toggle("picking", chosen.size > 0);
    offer();
  }

  function offer() {
    const ready = chosen.size >= 2;
    compare.setAttribute("aria-disabled", String(!ready));
    compare.href = ready ? `#/compare/${[...chosen].join(",")}` : "#/";
    compare.textContent = chosen.size ? `Compare ${chosen.size} runs` : "Compare: choose two to four";
  }

  function news({folder, runs, data, studies}) {
    compare.hidden = runs.length < 2;
    const order = [...runs].sort((a, b) => (b.state === "training") - (a.state === "training") || (b.changed ?? 0) - (a.changed ?? 0));
    const gone = [...cards.keys()].filter((id) => !runs.some((run) => run.id === id));
    for (const id of gone) {
      cards.get(id).element.remove();
      cards.delete(id);
      choose(id, false);
    }
    for (const run of order) {
      if (!cards.has(run.id)) cards.set(run.id, card(run.id, choose));
      cards.get(run.id).show(run);
    }
    const wanted = order.map(({id}) => cards.get(id).element);
    if (wanted.some((element, index) => grid.children[index] !== element)) grid.replaceChildren(...wanted);
    rest.replaceChildren(
      ...(runs.length ? [] : [nothing(folder)]),
      ...list("Studies", "study", studies),
      ...list("Data sets", "data", data),
    );
  }

  offer();
  news(overview);
  return {news};
}

function nothing(folder) {
  return make("div", {class: "empty"},
    make("p", {}, `There is no run in ${folder} yet. One comes to be with`),
    make("p", {}, make("code", {}, "progan train --data DATA --out RUN")),
    make("p", {}, "and is shown here as soon as it begins."));
}

function list(heading, kind, entries) {
  if (!entries.length) return [];
  const items = entries.map(({id, name}) => make("li", {}, make("a", {href: `#/${kind}/${id}`}, name)));
  return [make("section", {}, make("h2", {}, heading), make("ul", {class: "lines"}, ...items))];
}

function card(id, choose) {
  const shot = make("div", {class: "shot"});
  const link = make("a", {href: `#/run/${id}`});
  const box = make("input", {type: "checkbox", change: () => choose(id, box.checked)});
  const state = make("span", {class: "state"});
  const stage = make("span");
  const done = make("span");
  const time = make("span");
  const bar = make("span");
  const problem = make("p", {class: "problem"});
  const element = make("li", {class: "card"},
    shot,
    make("label", {class: "pick"}, box),
    make("div", {class: "words"}, make("h2", {}, link), make("div", {class: "row"}, state, stage),
      make("div", {class: "progress", "aria-hidden": "true"}, bar), make("div", {class: "row"}, done, time), problem));
  let picture;

  function show(run) {
    link.textContent = run.name;
    link.title = run.name;
    box.setAttribute("aria-label", `Choose ${run.name} to compare`);
    state.className = `state ${run.state}`;
    state.textContent = STATES[run.state];
    stage.textContent = run.full ? stageWords(run) : "";
    done.textContent = run.total ? `${plain(run.nimg / 1000, run.total < 1e5 ? 1 : 0)} of ${kimg(run.total)}` : "";
    time.textContent = run.left !== null ? `${duration(run.left)} left` : run.seconds ? duration(run.seconds) : "";
    time.title = run.img_per_s ? `${plain(run.img_per_s)} images a second` : "";
    bar.style.setProperty("--share", run.total ? run.nimg / run.total : 0);
    problem.textContent = run.problem;
    if (run.picture === picture) return;
    picture = run.picture;
    shot.replaceChildren(
      picture === null
        ? make("span", {class: "missing"}, "no picture yet")
        : make("img", {
            src: `runs/${id}/thumbnail/${picture}`, loading: "lazy", width: 256, height: 256, alt: `Images of ${run.name}`,
            error: () => shot.replaceChildren(make("span", {class: "missing"}, "its newest picture cannot be read")),
          }),
    );
  }

  return {element, box, show};
}
