// Pictures as pixels, computed as the training's Pillow does it: a model sees every grey level that differs.
//
// A picture is { height, width, channels, data }: data a Uint8Array, H×W×C, channels 1 (grey) or 3 (RGB).

/** As Python rounds: halves go to the even neighbour. */
export function round(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + Math.abs(low % 2) : Math.round(value);
}

/** The picture in a file: upright, over white, its colour profile ignored; grey where no pixel has a colour. */
export async function decode(blob, mostPixels) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("The file is no picture that this browser reads, or is damaged. Choose a PNG, JPEG, WebP or GIF.");
  }
  const { height, width } = bitmap;
  if (height * width > mostPixels) {
    throw new Error(`The picture has ${height}×${width} pixels; at most ${mostPixels} are read. Save it smaller.`);
  }
  const canvas = Object.assign(document.createElement("canvas"), { height, width });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return withoutAlpha(context.getImageData(0, 0, width, height));
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
  const picture = { height, width, channels: 3, data };
  return coloured ? picture : toChannels(picture, 1);
}

/** RGB to grey by the weights of ITU-R 601 in whole numbers, as Pillow does; grey to RGB by repeating. */
export function toChannels(picture, channels) {
  if (picture.channels === channels) return picture;
  const { height, width, data: from } = picture, data = new Uint8Array(height * width * channels);
  for (let at = 0; at < height * width; at++) {
    if (channels === 3) data.fill(from[at], 3 * at, 3 * at + 3);
    else data[at] = (19595 * from[3 * at] + 38470 * from[3 * at + 1] + 7471 * from[3 * at + 2] + 0x8000) >> 16;
  }
  return { height, width, channels, data };
}

/** The picture with its longer side of at most so many pixels. */
export function atMost(picture, side) {
  const scale = side / Math.max(picture.height, picture.width);
  if (scale >= 1) return picture;
  const [height, width] = [picture.height, picture.width].map(length => Math.max(round(scale * length), 1));
  return resize(picture, height, width);
}

/** Bilinear, averaging over all source pixels where it shrinks: Pillow's filter, to the last bit. */
export function resize(picture, height, width) {
  const { channels } = picture;
  let { data } = picture;
  if (width !== picture.width) data = resampled(data, picture.height, picture.width, channels, width);
  if (height !== picture.height) data = resampled(data, 1, picture.height, width * channels, height);
  return { height, width, channels, data };
}

/** The middle axis of lines×length×depth at another length. */
function resampled(data, lines, length, depth, wanted) {
  const averages = Array.from({ length: wanted }, (_, to) => averaged(to, length, wanted));
  const result = new Uint8Array(lines * wanted * depth);
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

/** The first of the pixels that pixel `to` of the result is the mean of, and their weights in parts of 2²². */
function averaged(to, length, wanted) {
  const scale = length / wanted, support = Math.max(scale, 1), centre = (to + 0.5) * scale;
  const first = Math.max(Math.trunc(centre - support + 0.5), 0);
  const end = Math.min(Math.trunc(centre + support + 0.5), length);
  const triangle = Array.from({ length: end - first }, (_, i) =>
    Math.max(1 - Math.abs(first + i - centre + 0.5) / support, 0));
  const total = triangle.reduce((sum, weight) => sum + weight);
  return { first, weights: triangle.map(weight => Math.trunc(weight / total * 2 ** 22 + 0.5)) };
}
