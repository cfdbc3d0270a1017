// plainEngine(network) -> {name, run}: the generator in plain JavaScript, where there is no WebGL2.
// run(z, label, resolution) -> {4: Float32Array [4 * 4 * 4], ...}: every RGB output up to `resolution`, before blend
// and tanh, row by row, four numbers a pixel.

import {floatsOf, inputsOf, padded} from "./network.js";

// Maps lie pixel by pixel, [R + 2][R + 2][maps], with a border of zeros.
export function plainEngine(network) {
  const layers = network.layers.map((layer) => ({...layer, weight: floatsOf(layer.weight)}));

  function run(z, label, resolution) {
    const outputs = {};
    let maps = inputsOf(network, z, label);
    for (const layer of layers) {
      if (layer.resolution > resolution) break;
      if (layer.kind === "rgb") {
        outputs[layer.resolution] = inner(convolved(layer, maps), layer.resolution);
      } else {
        maps = layer.kind === "dense" ? dense(layer, maps) : convolved(layer, maps);
        finish(layer, maps);
      }
    }
    return outputs;
  }

  return {name: "JavaScript", run};
}

function dense(layer, inputs) {
  const outputs = padded(layer.outputs);
  const maps = new Float32Array(36 * outputs);
  for (let y = 0; y < 4; y++) {
    for (let x = 0; x < 4; x++) {
      const to = ((y + 1) * 6 + x + 1) * outputs;
      for (let o = 0; o < outputs; o += 4) {
        add(maps, to + o, layer, o, inputs, [0], [4 * y + x]);
      }
    }
  }
  return maps;
}

function convolved(layer, maps) {
  const {kind, resolution} = layer;
  const outputs = padded(layer.outputs);
  const inputs = padded(layer.inputs);
  const from = (kind === "up" ? resolution / 2 : resolution) + 2;
  const size = resolution + 2;
  const result = new Float32Array(size * size * outputs);
  const starts = [];
  const taps = [];
  for (let y = 0; y < resolution; y++) {
    for (let x = 0; x < resolution; x++) {
      tapsOf(kind, y, x, (iy, ix, tap, n) => {
        starts[n] = ((iy + 1) * from + ix + 1) * inputs;
        taps[n] = tap;
      });
      const to = ((y + 1) * size + x + 1) * outputs;
      for (let o = 0; o < outputs; o += 4) add(result, to + o, layer, o, maps, starts, taps);
    }
  }
  return result;
}

// Which pixels of the input an output pixel sees, and through which tap of the kernel.
function tapsOf(kind, y, x, see) {
  if (kind === "rgb") see(y, x, 0, 0);
  if (kind === "conv") {
    for (let tap = 0; tap < 9; tap++) see(y + Math.floor(tap / 3) - 1, x + (tap % 3) - 1, tap, tap);
  }
  if (kind === "up") {
    for (let n = 0; n < 4; n++) {
      const a = n >> 1;
      const b = n & 1;
      const ky = 3 - (y & 1) - 2 * a;
      const kx = 3 - (x & 1) - 2 * b;
      see((y >> 1) - 1 + (y & 1) + a, (x >> 1) - 1 + (x & 1) + b, 4 * ky + kx, n);
    }
  }
}

// Four outputs of one pixel: the bias, and the sum over the pixels it sees.
function add(result, to, layer, output, maps, starts, taps) {
  const {weight, bias} = layer;
  const inputs = padded(layer.inputs);
  const row = (output / 4) * layer.taps;
  let a = bias[output];
  let b = bias[output + 1];
  let c = bias[output + 2];
  let d = bias[output + 3];
  for (let n = 0; n < starts.length; n++) {
    const start = starts[n];
    let w = (row + taps[n]) * inputs * 4;
    for (let i = start; i < start + inputs; i++, w += 4) {
      const x = maps[i];
      a += x * weight[w];
      b += x * weight[w + 1];
      c += x * weight[w + 2];
      d += x * weight[w + 3];
    }
  }
  result[to] = a;
  result[to + 1] = b;
  result[to + 2] = c;
  result[to + 3] = d;
}

// Activation and pixelwise normalisation, in place.
function finish(layer, maps) {
  const outputs = padded(layer.outputs);
  const {slope} = layer;
  for (let i = 0; i < maps.length; i++) if (maps[i] < 0) maps[i] *= slope;
  if (!layer.norm) return;
  for (let start = 0; start < maps.length; start += outputs) {
    let sum = 0;
    for (let i = start; i < start + outputs; i++) sum += maps[i] * maps[i];
    const scale = 1 / Math.sqrt(sum / layer.outputs + 1e-8);
    for (let i = start; i < start + outputs; i++) maps[i] *= scale;
  }
}

// The pixels without the border.
function inner(maps, resolution) {
  const pixels = new Float32Array(resolution * resolution * 4);
  for (let y = 0; y < resolution; y++) {
    const start = ((y + 1) * (resolution + 2) + 1) * 4;
    pixels.set(maps.subarray(start, start + resolution * 4), y * resolution * 4);
  }
  return pixels;
}
