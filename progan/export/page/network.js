// readNetwork(about, base64) -> network: what progan/export/web.py packed, ready for an engine.
//
// network.layers: in turn, {kind: "dense" | "conv" | "up" | "rgb", inputs, outputs, resolution, taps, slope, norm,
// weight, bias}. weight: Uint16Array of half floats [groups of 4 outputs][taps][inputs, a multiple of 4][4 outputs];
// bias: Float32Array [outputs, a multiple of 4]. slope: of the activation, or null; norm: whether pixelwise
// normalisation follows.

export const TAPS = {dense: 16, conv: 9, up: 16, rgb: 1};

export function readNetwork(about, base64) {
  const halves = new Uint16Array(bytesOf(base64).buffer);
  let start = 0;
  const take = (count) => halves.subarray(start, (start += count));
  const layers = about.layers.map((layer) => {
    const outputs = padded(layer.outputs);
    const taps = TAPS[layer.kind];
    const weight = take(outputs * taps * padded(layer.inputs));
    return {...layer, taps, weight, bias: floatsOf(take(outputs))};
  });
  return {...about, layers};
}

export function padded(count) {
  return 4 * Math.ceil(count / 4);
}

export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Half floats as numbers: every one of the 65,536 is computed once.
let table = null;

export function floatsOf(halves) {
  table ??= Float32Array.from({length: 65536}, (_, half) => halfToNumber(half));
  const floats = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) floats[i] = table[halves[i]];
  return floats;
}

function halfToNumber(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
}

// The numbers that the first layer reads: the latent, the one-hot class behind it, scaled to unit RMS if the network
// does so; padded with zeros to a multiple of 4.
export function inputsOf(network, z, label) {
  const inputs = new Float32Array(padded(network.latentDim + network.classes));
  inputs.set(z);
  if (network.classes) {
    if (typeof label === "number") inputs[network.latentDim + label] = 1;
    else inputs.set(label, network.latentDim);
  }
  if (network.normalizeLatent) {
    const count = network.latentDim + network.classes;
    let sum = 0;
    for (const x of inputs) sum += x * x;
    const scale = 1 / Math.sqrt(sum / count + 1e-8);
    for (let i = 0; i < count; i++) inputs[i] *= scale;
  }
  return inputs;
}
