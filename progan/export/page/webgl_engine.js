// webglEngine(network, {half}) -> {name, run, lost}, or null where the browser cannot: the generator in WebGL2 shaders.
// run as in plain_engine.js. lost(): whether the browser has taken the context away. half: half-float maps, although the
// browser has full ones.
//
// Four maps are one RGBA texel. The maps of a layer lie side by side as tiles, one for four maps, each with a border of
// zeros one pixel wide, so that no shader asks whether it is at an edge. Each quadrant of a map has a texture layer of
// its own, and a fragment computes the same place in all four: a weight, once fetched, serves four pixels.
// A draw computes a layer; pixelwise normalisation takes two more.

import {floatsOf, inputsOf, padded} from "./network.js";

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(float(gl_VertexID & 1) * 4.0 - 1.0, float(gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); }`;

const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;
uniform sampler2DArray maps, scales;
uniform sampler2D inputs, weights, biases;
uniform int groups, fromHalf, fromColumns, outGroups, half_, columns;
uniform float slope, count;

ivec2 tile(int group) { return ivec2(group % fromColumns, group / fromColumns) * (fromHalf + 2) + 1; }

// Four maps of the pixel \`at\`, -1 to the resolution, of the tile at \`corner\`.
vec4 pixel(ivec2 corner, ivec2 at) {
  ivec2 quadrant = ivec2(greaterThanEqual(at, ivec2(fromHalf)));
  return texelFetch(maps, ivec3(corner + at - quadrant * fromHalf, 2 * quadrant.y + quadrant.x), 0);
}

// What takes four inputs to four outputs.
mat4 kernel(int group, int row) {
  int i = 4 * group;
  return mat4(texelFetch(weights, ivec2(i, row), 0), texelFetch(weights, ivec2(i + 1, row), 0),
    texelFetch(weights, ivec2(i + 2, row), 0), texelFetch(weights, ivec2(i + 3, row), 0));
}
`;

const QUADRANTS = [0, 1, 2, 3];
const each = (write) => QUADRANTS.map(write).join("\n");
const corner = (q) => `ivec2(${q & 1}, ${q >> 1}) * half_`;

// What a fragment at \`at\`, inside a tile of output group \`group\`, adds to its four sums s0 ... s3.
const BODIES = {
  dense: `
    for (int g = 0; g < groups; g++) {
      vec4 x = texelFetch(inputs, ivec2(g, 0), 0);
      ${each((q) => `s${q} += kernel(g, group * 16 + (at.y + ${q & 2}) * 4 + at.x + ${2 * (q & 1)}) * x;`)}
    }`,
  conv: `
    for (int g = 0; g < groups; g++) {
      ivec2 corner = tile(g);
      for (int t = 0; t < 9; t++) {
        mat4 k = kernel(g, group * 9 + t);
        ivec2 to = at + ivec2(t % 3, t / 3) - 1;
        ${each((q) => `s${q} += k * pixel(corner, to + ${corner(q)});`)}
      }
    }`,
  up: `
    ivec2 odd = at & 1;
    for (int n = 0; n < 4; n++) {
      ivec2 step = ivec2(n & 1, n >> 1);
      ivec2 tap = 3 - odd - 2 * step;
      int row = group * 16 + 4 * tap.y + tap.x;
      ivec2 to = (at >> 1) - 1 + odd + step;
      for (int g = 0; g < groups; g++) {
        ivec2 corner = tile(g);
        mat4 k = kernel(g, row);
        ${each((q) => `s${q} += k * pixel(corner, to + ${corner(q)} / 2);`)}
      }
    }`,
};

const LAYER = (body) => `${HEAD}
layout(location = 0) out vec4 result[4];
void main() {
  ivec2 place = ivec2(gl_FragCoord.xy);
  int size = half_ + 2;
  int group = place.y / size * columns + place.x / size;
  ivec2 at = place % size - 1;
  ${each((q) => `result[${q}] = vec4(0);`)}
  if (group >= outGroups || any(lessThan(at, ivec2(0))) || any(greaterThanEqual(at, ivec2(half_)))) return;
  vec4 s0 = texelFetch(biases, ivec2(group, 0), 0);
  vec4 s1 = s0, s2 = s0, s3 = s0;
  ${body}
  ${each((q) => `result[${q}] = max(s${q}, slope * s${q});`)}
}`;

// 1 / RMS over the maps of a pixel, and the product with it.
const NORM = `${HEAD}
layout(location = 0) out vec4 result[4];
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy) - 1;
  vec4 sum = vec4(0);
  for (int g = 0; g < groups; g++) {
    ivec2 corner = tile(g);
    vec4 x;
    ${each((q) => `x = texelFetch(maps, ivec3(corner + at, ${q}), 0); sum[${q}] += dot(x, x) / count;`)}
  }
  ${each((q) => `result[${q}] = vec4(inversesqrt(sum[${q}] + 1e-8));`)}
}`;
const PRODUCT = `${HEAD}
layout(location = 0) out vec4 result[4];
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  ivec2 inTile = at % (fromHalf + 2);
  ${each((q) => `result[${q}] = texelFetch(maps, ivec3(at, ${q}), 0) * texelFetch(scales, ivec3(inTile, ${q}), 0).x;`)}
}`;
const RGB = `${HEAD}
out vec4 result;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  result = texelFetch(biases, ivec2(0), 0);
  for (int g = 0; g < groups; g++) result += kernel(g, 0) * pixel(tile(g), at);
}`;

export function webglEngine(network, {half = false} = {}) {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2", {antialias: false, depth: false, powerPreference: "high-performance"});
  if (!gl) return null;
  const full = !half && gl.getExtension("EXT_color_buffer_float");
  if (!full && !gl.getExtension("EXT_color_buffer_half_float")) return null;
  const format = full ? gl.RGBA32F : gl.RGBA16F;
  const widest = gl.getParameter(gl.MAX_TEXTURE_SIZE);

  // A texture of numbers, RGBA; `layers` makes it one for maps.
  function texture(width, height, internal = format, layers = 0) {
    const kind = layers ? gl.TEXTURE_2D_ARRAY : gl.TEXTURE_2D;
    const made = gl.createTexture();
    gl.bindTexture(kind, made);
    if (layers) gl.texStorage3D(kind, 1, internal, width, height, layers);
    else gl.texStorage2D(kind, 1, internal, width, height);
    gl.texParameteri(kind, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(kind, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    return {texture: made, kind, width, height};
  }

  function filled(width, height, internal, type, values) {
    const made = texture(width, height, internal);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, type, values);
    return made;
  }

  function target(width, height, layers) {
    const made = texture(width, height, format, layers);
    made.framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, made.framebuffer);
    if (layers) {
      const attachments = QUADRANTS.map((q) => gl.COLOR_ATTACHMENT0 + q);
      attachments.forEach((to, q) => gl.framebufferTextureLayer(gl.FRAMEBUFFER, to, made.texture, 0, q));
      gl.drawBuffers(attachments);
    } else {
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, made.texture, 0);
    }
    return made;
  }

  function program(source) {
    const made = gl.createProgram();
    for (const [type, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, source]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
    const uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
      const {name} = gl.getActiveUniform(made, i);
      uniforms[name] = gl.getUniformLocation(made, name);
    }
    return {program: made, uniforms};
  }

  // How the tiles of a layer lie: nearly a square.
  function tiles(outputs, resolution) {
    const half = resolution / 2;
    const count = padded(outputs) / 4;
    const columns = Math.min(Math.ceil(Math.sqrt(count)), Math.floor(widest / (half + 2)));
    return {half, count, columns, width: columns * (half + 2), height: Math.ceil(count / columns) * (half + 2)};
  }

  const programs = Object.fromEntries(Object.entries(BODIES).map(([kind, body]) => [kind, program(LAYER(body))]));
  Object.assign(programs, {norm: program(NORM), product: program(PRODUCT), rgb: program(RGB)});
  const layers = network.layers.map((layer) => {
    const {kind, inputs, outputs, resolution, taps, weight, bias} = layer;
    const groups = padded(outputs) / 4;
    return {
      ...layer,
      weights: full // software takes a seventh longer where each fetch turns halves into floats
        ? filled(padded(inputs), groups * taps, gl.RGBA32F, gl.FLOAT, floatsOf(weight))
        : filled(padded(inputs), groups * taps, gl.RGBA16F, gl.HALF_FLOAT, weight),
      biases: filled(groups, 1, gl.RGBA32F, gl.FLOAT, bias),
      out: tiles(outputs, resolution),
      colours: kind === "rgb" ? target(resolution, resolution) : null,
    };
  });
  const inputs = texture(padded(layers[0].inputs) / 4, 1, gl.RGBA32F);
  const maps = layers.filter((layer) => layer.kind !== "rgb");
  const width = Math.max(...maps.map((layer) => layer.out.width));
  const height = Math.max(...maps.map((layer) => layer.out.height));
  if (Math.max(height, ...layers.map((layer) => layer.weights.height)) > widest) return null;
  const pair = [target(width, height, 4), target(width, height, 4)];
  const scales = target(layers.at(-1).resolution / 2 + 2, layers.at(-1).resolution / 2 + 2, 4);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) return null;

  function draw({program, uniforms}, to, [width, height], textures, numbers) {
    gl.useProgram(program);
    gl.bindFramebuffer(gl.FRAMEBUFFER, to.framebuffer);
    gl.viewport(0, 0, width, height);
    Object.entries(textures).forEach(([name, {texture, kind}], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(kind, texture);
      gl.uniform1i(uniforms[name], unit);
    });
    for (const [name, value] of Object.entries(numbers)) {
      if (name === "slope" || name === "count") gl.uniform1f(uniforms[name], value);
      else gl.uniform1i(uniforms[name], value);
    }
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  function run(z, label, resolution) {
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, inputs.texture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, inputs.width, 1, gl.RGBA, gl.FLOAT, inputsOf(network, z, label));
    let [maps, other] = pair;
    let from = {groups: inputs.width, fromHalf: 0, fromColumns: 1};
    const done = [];
    for (const {kind, resolution: r, outputs, slope, norm, weights, biases, out, colours} of layers) {
      if (r > resolution) break;
      if (kind === "rgb") {
        draw(programs.rgb, colours, [r, r], {maps, weights, biases}, from);
        done.push({r, colours});
        continue;
      }
      const size = [out.width, out.height];
      const to = {outGroups: out.count, half_: out.half, columns: out.columns};
      const read = kind === "dense" ? {inputs} : {maps};
      draw(programs[kind], other, size, {...read, weights, biases}, {...from, ...to, slope});
      from = {groups: out.count, fromHalf: out.half, fromColumns: out.columns};
      [maps, other] = [other, maps];
      if (norm) {
        draw(programs.norm, scales, [out.half + 2, out.half + 2], {maps}, {...from, count: outputs});
        draw(programs.product, other, size, {maps, scales}, from);
        [maps, other] = [other, maps];
      }
    }
    const images = {};
    for (const {r, colours} of done) {
      images[r] = new Float32Array(r * r * 4);
      gl.bindFramebuffer(gl.FRAMEBUFFER, colours.framebuffer);
      gl.readPixels(0, 0, r, r, gl.RGBA, gl.FLOAT, images[r]);
    }
    return images;
  }

  return {name: full ? "WebGL2" : "WebGL2 with half floats", run, lost: () => gl.isContextLost()};
}
