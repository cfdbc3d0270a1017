// A study: its table and pictures as they are written, and its runs while they train.

import {make} from "./dom.js";
import {get} from "./server.js";
import {kimg, STATES} from "./words.js";
import {zoomable} from "./zoom.js";

export async function studyPage(main, {words, title}) {
  const id = words[1];
  let study = await get(`studies/${id}`);
  title(study.name, [["Studies", "#/"]]);
  const table = make("section");
  const pictures = make("section", {class: "gallery"});
  const runs = make("section");
  main.append(make("div", {class: "lead"}, make("h1", {}, study.name), make("p", {class: "quiet"}, Object.values(study.facts).filter((fact) => typeof fact === "string" && fact.length < 40).join(" · "))), table, pictures, runs);

  function show() {
    table.replaceChildren(...(study.table ? markdown(study.table) : [make("p", {class: "empty"}, "The table is written when the first run has been measured.")]));
    pictures.replaceChildren(...study.pictures.map((name) => make("figure", {}, zoomable(make("img", {src: `studies/${id}/pictures/${encodeURIComponent(name)}`, alt: name, loading: "lazy"})), make("figcaption", {}, name))));
    list(study.runs);
  }

  function list(all) {
    runs.replaceChildren(make("h2", {}, `${all.filter(({state}) => state === "done").length} of ${all.length} runs are done`), make("div", {class: "scroll"}, make("table", {}, make("tbody", {}, ...all.map((run) => {
      const bar = make("span");
      bar.style.setProperty("--share", run.total ? run.nimg / run.total : 0);
      return make("tr", {}, make("td", {}, make("a", {href: `#/run/${run.id}`}, run.name)), make("td", {}, make("span", {class: `state ${run.state}`}, STATES[run.state])), make("td", {class: "number"}, `${kimg(run.nimg)} of ${kimg(run.total)}`), make("td", {}, make("div", {class: "progress"}, bar)));
    })))));
  }

  let done = study.runs.filter(({state}) => state === "done").length;
  async function news(overview) {
    const mine = new Set(study.runs.map((run) => run.id));
    const now = overview.runs.filter((run) => mine.has(run.id) || run.name.startsWith(`${study.name}/`));
    list(now);
    const ready = now.filter(({state}) => state === "done").length;
    if (ready === done && now.length === study.runs.length) return;
    done = ready;
    study = await get(`studies/${id}`);
    show();
  }

  show();
  return {news};
}

// As much of Markdown as tables of studies use: headings, tables, paragraphs, `code` and **bold**.
function markdown(text) {
  const found = [];
  for (const block of text.split(/\n\s*\n/)) {
    const lines = block.split("\n").filter((line) => line.trim());
    if (!lines.length) continue;
    const heading = lines[0].match(/^(#+) (.*)/);
    if (heading) found.push(make(heading[1].length > 1 ? "h3" : "h2", {}, heading[2]));
    const rest = heading ? lines.slice(1) : lines;
    if (rest[0]?.startsWith("|")) {
      const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
      const right = cells(rest[1] ?? "").map((cell) => cell.endsWith(":"));
      const row = (line, tag) => make("tr", {}, ...cells(line).map((cell, i) => make(tag, {class: right[i] ? "number" : ""}, ...inline(cell))));
      found.push(make("div", {class: "scroll"}, make("table", {}, make("thead", {}, row(rest[0], "th")), make("tbody", {}, ...rest.slice(2).map((line) => row(line, "td"))))));
    } else if (rest.length) {
      found.push(make("p", {class: "hint fine"}, ...inline(rest.join(" "))));
    }
  }
  return found;
}

function inline(text) {
  return text.split(/(`[^`]*`|\*\*[^*]*\*\*)/).map((part) => {
    if (part.startsWith("`") && part.length > 1) return make("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 4) return make("strong", {}, part.slice(2, -2));
    return part;
  });
}
