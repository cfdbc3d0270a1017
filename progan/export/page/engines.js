// quickestEngine(network, wanted) -> engine: WebGL2, or JavaScript where there is none or where it is quicker.
// wanted: "webgl", "half" (WebGL2 with half floats) or "javascript" to have that one. An engine has besides `run`:
// quick: the resolution of what follows the hand, the largest whose pictures take no longer than QUICK ms, or BEARABLE
// ms where that would be too coarse to show anything; ms: their time. small: the resolution of the pictures on the
// wall, which wait for each other: the largest up to SMALL that take no longer than BEARABLE ms.
// measured(network, engine) -> the engine with quick, ms and small.

import {plainEngine} from "./plain_engine.js";
import {webglEngine} from "./webgl_engine.js";

const QUICK = 60;
const BEARABLE = 300;
const COARSE = 8;
const SMALL = 64;
const SMOOTH = 20; // a picture in this time leaves nothing to wish for

export function quickestEngine(network, wanted) {
  const webgl = wanted === "javascript" ? null : measured(network, shaders(network, wanted === "half"));
  if (webgl && (wanted || webgl.ms < SMOOTH) && (wanted || webgl.quick === network.stage.resolution)) return webgl;
  const plain = measured(network, plainEngine(network));
  return webgl && (webgl.quick > plain.quick || (webgl.quick === plain.quick && webgl.ms < plain.ms)) ? webgl : plain;
}

// A driver may refuse what its limits promise; then it is as if there were none.
function shaders(network, half) {
  try {
    return webglEngine(network, {half});
  } catch (error) {
    console.info(`WebGL2 cannot be used: ${error.message}`);
    return null;
  }
}

export function measured(network, engine) {
  if (!engine) return null;
  const z = new Float32Array(network.latentDim).fill(1);
  let best = {quick: 4, ms: Infinity, small: 4};
  let follows = true;
  for (const resolution of network.resolutions) {
    const ms = time(() => engine.run(z, 0, resolution));
    follows = resolution === 4 || (follows && ms <= (best.quick > COARSE ? QUICK : BEARABLE));
    if (follows) best = {...best, quick: resolution, ms};
    if (resolution <= SMALL && ms <= BEARABLE) best.small = resolution;
    else if (!follows) break;
  }
  return {...engine, ...best};
}

// The least of three, or of as many as BEARABLE ms allow.
function time(act) {
  const times = [];
  const begin = performance.now();
  for (let start = begin; times.length < 3 && start < begin + BEARABLE; start = performance.now()) {
    act();
    times.push(performance.now() - start);
  }
  return Math.min(...times);
}
