// make(tag, attributes, ...children) -> element. An attribute that is a function listens to the event of its name;
// one that is undefined or false is left out.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A slider with its label and the value in words: {element, input, set(value)}.
// attributes: of the input; words(value): how the value reads; onInput(value): while the handle moves; origin: where
// the coloured part of the track begins, at the left end by default.
export function slider({label, words, onInput, origin, ...attributes}) {
  const input = make("input", {type: "range", ...attributes, input: () => moved()});
  const value = make("output");
  // A label names the first of its children that can have one, and an output can.
  const element = make("label", {class: "slider"}, make("span", {}, label), input, value);

  function show() {
    const [from, to] = [origin ?? input.min, input.value].map(share).sort((a, b) => a - b);
    input.style.setProperty("--from", from);
    input.style.setProperty("--to", to);
    value.textContent = words(Number(input.value));
    input.setAttribute("aria-valuetext", value.textContent);
  }

  function share(number) {
    const {min, max} = input;
    return max > min ? (number - min) / (max - min) : 1;
  }

  function moved() {
    show();
    onInput(Number(input.value));
  }

  function set(number) {
    input.value = number;
    show();
  }

  show();
  return {element, input, set};
}
