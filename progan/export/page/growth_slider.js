// growthSlider(element, {resolutions, stage, onChange}) -> {set(stage)}: from 4x4 to the last stage through every fade.
// onChange({resolution, alpha}) while the handle moves. One step of the handle's way is one resolution: between two of
// them the newer fades in. Keys: arrows a twentieth of a step, Page Up and Page Down a whole one, Home and End.

import {make, slider} from "./dom.js";

export function growthSlider(element, {resolutions, stage, onChange}) {
  const positionOf = ({resolution, alpha}) => (resolution === 4 ? 0 : resolutions.indexOf(resolution) - 1 + alpha);
  const last = positionOf(stage);

  function stageAt(position) {
    const index = Math.ceil(position);
    const alpha = index ? 1 - (index - position) : 1;
    return {resolution: resolutions[index], alpha: Math.round(alpha * 1e4) / 1e4};
  }

  function words(position) {
    const {resolution, alpha} = stageAt(position);
    const size = `${resolution} × ${resolution}`;
    return alpha === 1 ? size : `${size} at ${Math.round(alpha * 100)}%`;
  }

  const growth = slider({
    label: "Growth",
    min: 0,
    max: last,
    step: "any",
    value: last,
    words,
    onInput: (position) => onChange(stageAt(position)),
  });

  function go(position) {
    growth.set(Math.min(last, Math.max(0, Math.round(position * 1e4) / 1e4)));
    onChange(stageAt(Number(growth.input.value)));
  }

  growth.input.addEventListener("keydown", (event) => {
    const at = Number(growth.input.value);
    const places = {
      ArrowRight: at + 0.05,
      ArrowUp: at + 0.05,
      ArrowLeft: at - 0.05,
      ArrowDown: at - 0.05,
      PageUp: Math.floor(at + 1),
      PageDown: Math.ceil(at - 1),
      Home: 0,
      End: last,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    go(places[event.key]);
  });

  const ticks = resolutions.filter((_, index) => index <= last).map((resolution, index) => {
    const tick = make("button", {type: "button", tabindex: -1, click: () => go(index)}, String(resolution));
    tick.setAttribute("aria-label", `${resolution} by ${resolution} pixels`);
    tick.style.setProperty("--at", last ? index / last : 0);
    return tick;
  });
  element.append(growth.element, make("div", {class: "ticks"}, ...ticks));
  return {set: (wanted) => growth.set(positionOf(wanted))};
}
