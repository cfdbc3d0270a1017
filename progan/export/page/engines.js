// quickestEngine(network, wanted) -> engine: WebGL2, or JavaScript where there is none or where it is quicker.
// wanted: "webgl", "half" (WebGL2 with half floats) or "javascript" to have that one. An engine has besides `run`:
// quick: the largest resolution whose pictures take no longer than QUICK ms, for what follows the hand; ms: their time.

import {plainEngine} from "./plain_engine.js";
import {webglEngine} from "./webgl_engine.js";

const QUICK = 60;
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

function measured(network, engine) {
  if (!engine) return null;
  const z = new Float32Array(network.latentDim).fill(1);
  let best = {quick: 4, ms: Infinity};
  for (const quick of network.resolutions) {
    const times = [0, 1, 2].map(() => {
      const start = performance.now();
      engine.run(z, 0, quick);
      return performance.now() - start;
    });
    const ms = Math.min(...times);
    if (ms > QUICK && quick > 4) break;
    best = {quick, ms};
  }
  return {...engine, ...best};
}
