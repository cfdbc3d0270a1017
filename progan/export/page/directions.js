// directions(element, {count, limit, onChange}) -> {reset()}: sliders along `count` directions, -limit to limit.
// onChange([number, ...]) while a handle moves and at a reset.

import {make, slider} from "./dom.js";

export function directions(element, {count, limit, onChange}) {
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(1);
  const sliders = Array.from({length: count}, (_, index) =>
    slider({
      label: `Direction ${index + 1}`,
      min: -limit,
      max: limit,
      step: 0.1,
      value: 0,
      origin: 0,
      words: signed,
      onInput: changed,
    }),
  );
  const button = make("button", {type: "button", click: () => (reset(), changed())}, "Reset");
  button.disabled = true;

  function changed() {
    const values = sliders.map(({input}) => Number(input.value));
    button.disabled = values.every((value) => value === 0);
    onChange(values);
  }

  function reset() {
    for (const {set} of sliders) set(0);
    button.disabled = true;
  }

  element.append(
    make("div", {class: "sliders"}, ...sliders.map(({element: one}) => one)),
    make("p", {class: "buttons"}, button),
  );
  return {reset};
}
