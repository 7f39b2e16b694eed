// Decoding and resizing of images with the results of Pillow, because a model gets every grey level that differs.
//
// An image is { height, width, channels, data }: data a Uint8Array, H×W×C, channels 1 (grey) or 3 (RGB).

import { readDeep } from "./deep.js";

const MIN_CONTRAST = 12;

/** Rounds as Python does: halves to the even neighbour. */
export function round(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + Math.abs(low % 2) : Math.round(value);
}

/** Decode a file: upright, on white, without its colour profile; grey if no pixel has a colour.
 *
 * Gives { image, onBlack, peak }. Black is taken behind transparent pixels if nothing stands out from white. `peak` is the
 * largest value of a file of 16 bits per pixel, otherwise null; of these, `whiteLevel` (null: 65,535) becomes 255.
 */
export async function decode(blob, maxPixels, whiteLevel = null) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(
      "The file is not an image that this browser can read, or it is damaged. Choose a PNG, JPEG, WebP or GIF file.");
  }
  const { height, width } = bitmap;
  if (height * width > maxPixels) {
    throw new Error(`The image has ${height}×${width} pixels, more than the maximum of ${maxPixels}. Reduce it first.`);
  }
  const deep = await readDeep(blob);
  const draw = deep?.values ? ground => scaled(deep, whiteLevel, ground) : ground => drawn(bitmap, ground);
  const onWhite = draw(255), onBlack = standsOut(onWhite) ? onWhite : draw(0);
  bitmap.close();
  const dark = !standsOut(onWhite) && standsOut(onBlack);
  const image = dark ? onBlack : onWhite;
  return { image, onBlack: dark, peak: deep && (deep.peak ?? highBytePeak(image, whiteLevel)) };
}

/** The largest 16-bit value of an image of which only the high bytes are known. */
function highBytePeak({ data }, whiteLevel) {
  const peak = 256 * data.reduce((most, value) => Math.max(most, value), 0) + 255;
  if (whiteLevel === null || peak > whiteLevel) return peak;
  const bits = whiteLevel.toString(2).length;
  throw new Error(
    `The file has 16 bits per channel, of which only ${bits} are used, and this page reads the upper 8. Convert it to ` +
    `8 bits, for example with ImageMagick: magick IN.png -evaluate multiply ${2 ** (16 - bits)} -depth 8 OUT.png`);
}

/** A bitmap on a ground of that grey level. */
function drawn(bitmap, ground) {
  const { height, width } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { height, width });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${ground}, ${ground}, ${ground})`;
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

/** The grey levels of 16-bit values; the transparent one becomes `ground`. */
function scaled({ height, width, values, transparent, peak }, whiteLevel, ground) {
  const white = whiteLevel !== null && peak <= whiteLevel ? whiteLevel : 65535;
  const data = Uint8Array.from(values, value =>
    value === transparent ? ground : Math.floor((255 * value + Math.floor(white / 2)) / white));
  return { height, width, channels: 1, data };
}

/** Whether an image has more than the noise of a background. */
function standsOut({ channels, data }) {
  const low = Array(channels).fill(255), high = Array(channels).fill(0);
  data.forEach((value, at) => {
    const channel = at % channels;
    if (value < low[channel]) low[channel] = value;
    if (value > high[channel]) high[channel] = value;
  });
  return high.some((value, channel) => value - low[channel] >= MIN_CONTRAST);
}

function withoutAlpha({ height, width, data: rgba }) {
  const data = new Uint8Array(3 * height * width);
  let coloured = false;
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    data[to] = rgba[from];
    data[to + 1] = rgba[from + 1];
    data[to + 2] = rgba[from + 2];
    coloured ||= rgba[from] !== rgba[from + 1] || rgba[from] !== rgba[from + 2];
  }
  const image = { height, width, channels: 3, data };
  return coloured ? image : toChannels(image, 1);
}

/** RGB to grey by the weights of ITU-R 601 in integers, as Pillow does; grey to RGB by repetition. */
export function toChannels(image, channels) {
  if (image.channels === channels) return image;
  const { height, width, data: from } = image, data = new Uint8Array(height * width * channels);
  for (let at = 0; at < height * width; at++) {
    if (channels === 3) data.fill(from[at], 3 * at, 3 * at + 3);
    else data[at] = (19595 * from[3 * at] + 38470 * from[3 * at + 1] + 7471 * from[3 * at + 2] + 0x8000) >> 16;
  }
  return { height, width, channels, data };
}

/** The image with a longer side of at most `side` pixels. */
export function atMost(image, side) {
  const scale = side / Math.max(image.height, image.width);
  if (scale >= 1) return image;
  const [height, width] = [image.height, image.width].map(length => Math.max(round(scale * length), 1));
  return resize(image, height, width);
}

/** The image in height×width: stretched, or in a letterbox with the grey level `fill` beside it. */
export function fit(image, height, width, how, fill) {
  return how === "letterbox" ? letterbox(image, height, width, fill) : resize(image, height, width);
}

/** The image resized in its own aspect to fit into height×width, in the middle: letterbox in inputs/resize.py. */
function letterbox(image, height, width, fill) {
  const scaled = (side, other, target) => Math.floor((2 * side * target + other) / (2 * other));
  const rows = Math.min(Math.max(scaled(image.height, image.width, width), 1), height);
  const columns = Math.min(Math.max(scaled(image.width, image.height, height), 1), width);
  const { channels, data } = resize(image, rows, columns);
  const box = new Uint8Array(height * width * channels).fill(fill);
  const top = Math.floor((height - rows) / 2), left = Math.floor((width - columns) / 2);
  for (let row = 0; row < rows; row++) {
    const line = data.subarray(row * columns * channels, (row + 1) * columns * channels);
    box.set(line, ((top + row) * width + left) * channels);
  }
  return { height, width, channels, data: box };
}

/** Bilinear, averaging over all source pixels when it shrinks: the same bytes as Pillow's filter. */
export function resize(image, height, width) {
  // Each axis is rounded; since version 13, Pillow takes the rows first if they shrink by over twice as many pixels
  const rowsFirst = image.height > height && image.height - height > 2 * (image.width - width);
  return rowsFirst ? toWidth(toHeight(image, height), width) : toHeight(toWidth(image, width), height);
}

function toWidth({ height, width, channels, data }, newWidth) {
  if (newWidth !== width) data = resampled(data, height, width, channels, newWidth);
  return { height, width: newWidth, channels, data };
}

function toHeight({ height, width, channels, data }, newHeight) {
  if (newHeight !== height) data = resampled(data, 1, height, width * channels, newHeight);
  return { height: newHeight, width, channels, data };
}

/** The middle axis of lines×length×depth resampled to `newLength`. */
function resampled(data, lines, length, depth, newLength) {
  const averages = Array.from({ length: newLength }, (_, to) => averaged(to, length, newLength));
  const result = new Uint8Array(lines * newLength * depth);
  let to = 0;
  for (let line = 0; line < lines; line++) {
    for (const { first, weights } of averages) {
      const start = (line * length + first) * depth;
      for (let from = start; from < start + depth; from++) {
        let sum = 2 ** 21; // a half
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[from + i * depth];
        result[to++] = sum >> 22;
      }
    }
  }
  return result;
}

/** The first source pixel of pixel `to` of the result, and the weights of it and the following ones, times 2²². */
function averaged(to, length, newLength) {
  const scale = length / newLength, support = Math.max(scale, 1), center = (to + 0.5) * scale;
  const first = Math.max(Math.trunc(center - support + 0.5), 0);
  const end = Math.min(Math.trunc(center + support + 0.5), length);
  const triangle = Array.from({ length: end - first }, (_, i) =>
    Math.max(1 - Math.abs((first + i - center + 0.5) * (1 / support)), 0)); // as Pillow rounds
  const total = triangle.reduce((sum, weight) => sum + weight);
  return { first, weights: triangle.map(weight => Math.trunc(weight / total * 2 ** 22 + 0.5)) };
}
