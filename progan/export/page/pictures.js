// Pictures from the outputs of an engine.
//
// blended(outputs, {resolution, alpha}, channels, tanh) -> ImageData: the picture at a stage of growing (figure 2).
// branches(...) -> {older, newer, blend}: what it is made of; older is null at 4x4.
// paint(canvas, picture): puts a picture on a canvas of its size. savePng(canvas, name): offers it as a file.

export function blended(outputs, {resolution, alpha}, channels, tanh) {
  const newer = outputs[resolution];
  if (alpha === 1 || resolution === 4) return picture(newer, resolution, channels, tanh);
  const older = doubled(outputs[resolution / 2], resolution);
  for (let i = 0; i < older.length; i++) older[i] += alpha * (newer[i] - older[i]);
  return picture(older, resolution, channels, tanh);
}

export function branches(outputs, stage, channels, tanh) {
  const {resolution} = stage;
  return {
    older: resolution === 4 ? null : picture(doubled(outputs[resolution / 2], resolution), resolution, channels, tanh),
    newer: picture(outputs[resolution], resolution, channels, tanh),
    blend: blended(outputs, stage, channels, tanh),
  };
}

export function paint(canvas, picture) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

export function savePng(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}

function doubled(pixels, resolution) {
  const result = new Float32Array(resolution * resolution * 4);
  for (let y = 0; y < resolution; y++) {
    for (let x = 0; x < resolution; x++) {
      const from = 4 * ((y >> 1) * (resolution >> 1) + (x >> 1));
      for (let c = 0; c < 4; c++) result[4 * (y * resolution + x) + c] = pixels[from + c];
    }
  }
  return result;
}

// [-1, 1] becomes [0, 255], rounded to nearest. One channel is gray, two are gray and alpha, four RGB and alpha.
function picture(pixels, resolution, channels, tanh) {
  const result = new ImageData(resolution, resolution);
  const colours = [[0, 0, 0], [0, 0, 0], [0, 1, 2], [0, 1, 2]][channels - 1];
  const opacity = [null, 1, null, 3][channels - 1];
  const byte = (x) => ((tanh ? Math.tanh(x) : x) + 1) * 127.5;
  for (let i = 0; i < pixels.length; i += 4) {
    for (let c = 0; c < 3; c++) result.data[i + c] = byte(pixels[i + colours[c]]);
    result.data[i + 3] = opacity === null ? 255 : byte(pixels[i + opacity]);
  }
  return result;
}
