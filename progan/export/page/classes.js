// classes(element, {names, onChange}): a choice among the classes of a network with labels.
// onChange(index), or onChange(null) where the seed decides, as in `progan generate`.

import {make} from "./dom.js";

export function classes(element, {names, onChange}) {
  const option = (text, value) => make("option", {value}, text);
  const select = make(
    "select",
    {"aria-label": "Class", change: () => onChange(select.value === "" ? null : Number(select.value))},
    option("Every class", ""),
    ...names.map((name, index) => option(name, index)),
  );
  element.append(select);
}
