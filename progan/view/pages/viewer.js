// The viewer: which page is shown, and the news from the server that it is given. Pages know nothing of each other.
//
// A page is page(main, context) -> {news(overview), leave()}, both optional. context: {overview, words: of the address,
// query, title(text, links)}.

import {comparePage} from "./compare_page.js";
import {dataPage} from "./data_page.js";
import {make} from "./dom.js";
import {explorePage} from "./explore_page.js";
import {runPage} from "./run_page.js";
import {runsPage} from "./runs_page.js";
import {news, Refused} from "./server.js";
import {studyPage} from "./study_page.js";

const PAGES = {"": runsPage, run: runPage, compare: comparePage, explore: explorePage, data: dataPage, study: studyPage};

const main = document.getElementById("main");
const crumbs = document.getElementById("crumbs");
const link = document.getElementById("link");
let overview = null;
let page = null;
let turn = 0;

function title(text, links = []) {
  document.title = text ? `${text} · progan` : "progan";
  crumbs.replaceChildren(...[...links, [text, null]].flatMap(([words, href], index) => [
    ...(index ? [" / "] : []), href ? make("a", {href}, words) : words,
  ]));
}

async function show() {
  const mine = ++turn;
  page?.leave?.();
  page = null;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const words = path.split("/");
  const room = make("div", {class: "page"});
  main.replaceChildren(room);
  try {
    const made = await (PAGES[words[0]] ?? runsPage)(room, {overview, words, query: new URLSearchParams(query), title});
    if (mine === turn) page = made;
    else made?.leave?.();
    page?.news?.(overview);
  } catch (error) {
    if (mine !== turn) return;
    if (!(error instanceof Refused)) throw error;
    title("");
    room.replaceChildren(make("p", {class: "empty"}, error.message, " ", make("a", {href: "#/"}, "All runs")));
  }
  scrollTo(0, 0);
  document.documentElement.classList.add("ready");
}

addEventListener("hashchange", show);
news(
  (now) => {
    const first = overview === null;
    overview = now;
    if (first) show();
    else page?.news?.(overview);
  },
  (lost) => {
    link.textContent = lost ? "The viewer does not answer" : "";
    link.classList.toggle("lost", lost);
  },
);
