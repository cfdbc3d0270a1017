// A data set: what it is, a contact sheet of every level, its classes, and what the doctor found.

import {make} from "./dom.js";
import {get} from "./server.js";
import {plain} from "./words.js";
import {zoomable} from "./zoom.js";

export async function dataPage(main, {words, title}) {
  const id = words[1];
  const {name, facts, labels, report} = await get(`data/${id}`);
  title(name, [["Data sets", "#/"]]);
  const most = Math.max(...labels.map(([, count]) => count), 1);
  main.append(
    make("div", {class: "lead"}, make("h1", {}, name)),
    zoomable(make("img", {class: "sheet", src: `data/${id}/sheet`, alt: "The same images at every level"})),
    make("section", {}, make("h2", {}, "What it is"), make("table", {class: "fine"}, make("tbody", {}, ...facts.map(([key, text]) => make("tr", {}, make("th", {}, key), make("td", {}, key === "command" ? make("code", {}, text) : text)))))),
    ...(labels.length ? [make("section", {}, make("h2", {}, `${labels.length} classes`), make("table", {}, make("tbody", {}, ...labels.map(([label, count]) => {
      const bar = make("span");
      bar.style.setProperty("--share", count / most);
      return make("tr", {}, make("td", {}, label), make("td", {class: "number"}, plain(count)), make("td", {}, make("div", {class: "progress"}, bar)));
    }))))] : []),
    make("section", {}, make("h2", {}, "The doctor's report"), ...doctor(report)),
  );
  return {};
}

function doctor(report) {
  if (!report) return [make("p", {class: "hint fine"}, "There is none here. ", make("code", {}, "progan data doctor DATA --report DATA/doctor.json"), " writes one.")];
  const rows = Object.values(report.kinds).map(({title, files, mend}) => make("tr", {}, make("td", {}, title), make("td", {class: "number"}, plain(files ?? 0)), make("td", {}, mend)));
  if (!rows.length) return [make("p", {class: "hint"}, `${report.file}: nothing was found wrong.`)];
  return [make("p", {class: "hint"}, report.file), make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "found"), make("th", {class: "number"}, "files"), make("th", {}, "what helps"))), make("tbody", {}, ...rows))];
}
