// Fixes that make an image more like the training images; inputs/fixes.py in JavaScript.

import { asGrey, backgroundOf, measure, measuredSize, segment } from "./foreground.js";
import { atMost, fit, round, toChannels } from "./decoding.js";

// In the order in which they are applied
const FIXES = ["grey", "invert", "contrast", "crop", "center"];
const OVERSAMPLING = 4;
const MAX_FIXED_SIDE = 1024;

/** The fixes that findings propose, in the order in which they are applied. */
export const proposedFixes = findings => inOrder(findings.map(finding => finding.fix));

export const inOrder = names => FIXES.filter(name => names.includes(name));

/** The network's input: the image with these fixes and no others. */
export function applyFixes(image, fixes, { statistics, image_shape: [height, width, channels], originals, resize, fill }) {
  const { low, high } = originals.aspect, whole = resize === "letterbox";
  const proportion = whole ? height / width : Math.min(Math.max(image.height / image.width, low), high);
  const requested = name => fixes.includes(name) && statistics !== null;
  if (requested("contrast") || requested("crop") || requested("center")) {
    image = oversampled(image, statistics, Math.max(height, width));
  }
  if (fixes.includes("grey") || channels === 1) image = toChannels(image, 1);
  if (fixes.includes("invert")) image = { ...image, data: image.data.map(value => 255 - value) };
  if (requested("contrast")) image = evened(image, statistics);
  if (requested("crop") || requested("center")) {
    image = framed(image, requested("crop"), requested("center"), statistics, proportion, whole);
  }
  image = fit(toChannels(image, channels), height, width, resize, fill);
  return requested("contrast") ? strengthened(image, statistics) : image;
}

/** The image, reduced so that its foreground is a few times as large as in the network's input. */
function oversampled(image, statistics, longer) {
  const size = measure(asGrey(measuredSize(image)))?.size ?? 1;
  const side = OVERSAMPLING * longer * Math.max(statistics.size.middle / size, 1);
  return atMost(image, Math.min(round(side), MAX_FIXED_SIDE));
}

/** Background and foreground at the grey levels of the training images, thin strokes widened. */
function evened(image, statistics) {
  const grey = asGrey(image), segmentation = segment(grey);
  if (segmentation === null) return image;
  const measurements = measure(grey, segmentation);
  // Differences up to the noise become background; full-strength foreground keeps its strength
  const { contrast, lightOnDark, noise } = segmentation, strength = contrast / Math.max(contrast - noise, 1);
  let foreground = differenceOf(image, lightOnDark).map(value => Math.max(value - noise, 0) * strength);
  if (measurements.stroke < statistics.stroke.low) {
    const side = Math.max(image.height, image.width);
    const missing = (statistics.stroke.middle - measurements.stroke) * measurements.size * side;
    const steps = round(missing / 2); // a pixel on either side
    for (let step = 0; step < steps; step++) foreground = widened(foreground, image, step % 2 === 1);
  }
  return drawn(image, foreground, statistics.contrast.middle / contrast, lightOnDark, statistics);
}

/** How far each value of an image differs from the background of its channel, in the direction of the foreground. */
function differenceOf({ height, width, channels, data }, lightOnDark) {
  const difference = new Float64Array(data.length);
  for (let channel = 0; channel < channels; channel++) {
    const values = Float64Array.from({ length: height * width }, (_, pixel) => data[pixel * channels + channel]);
    const background = backgroundOf({ height, width, values });
    values.forEach((value, pixel) => {
      difference[pixel * channels + channel] = (lightOnDark ? 1 : -1) * (value - background[pixel]);
    });
  }
  return difference;
}

/** The maximum of each pixel and its 4 or 8 neighbours; alternating both widens strokes almost evenly. */
function widened(foreground, { height, width, channels }, diagonally) {
  const row = width * channels;
  const column = foreground.map((value, at) =>
    Math.max(value, foreground[at - row] ?? 0, foreground[at + row] ?? 0));
  const beside = diagonally ? column : foreground;
  return column.map((value, at) => {
    const x = Math.floor((at % row) / channels);
    return Math.max(value, x > 0 ? beside[at - channels] : 0, x < width - 1 ? beside[at + channels] : 0);
  });
}

/** The image cropped, or padded with background, to the window that the network gets; `whole`: in a letterbox. */
function framed(image, crop, center, statistics, proportion, whole) {
  const measurements = measure(asGrey(image));
  if (measurements === null) return image;
  const { height: rows, width: columns } = image;
  const { top, left, bottom, right } = measurements.box;
  let [height, width] = [rows, columns];
  if (whole) {
    height = Math.max(height, width * proportion);
    width = height / proportion;
  }
  if (crop) {
    height = Math.max((bottom - top) * rows, (right - left) * columns * proportion) / statistics.size.middle;
    width = height / proportion;
  }
  let [y, x] = [rows / 2, columns / 2];
  if (center) {
    y = measurements.center.y * rows + (0.5 - statistics.centre_y.middle) * height;
    x = measurements.center.x * columns + (0.5 - statistics.centre_x.middle) * width;
  } else if (crop) {
    [y, x] = [((top + bottom) / 2) * rows, ((left + right) / 2) * columns];
  }
  const first = { row: round(y - height / 2), column: round(x - width / 2) };
  const size = { height: Math.max(round(height), 1), width: Math.max(round(width), 1) };
  return cut(image, first, size, round(measurements.background));
}

/** `height` rows and `width` columns from `first` on; what is outside the image gets the grey level `fill`. */
function cut(image, first, { height, width }, fill) {
  const { channels } = image;
  const data = new Uint8Array(height * width * channels).fill(fill);
  const [left, right] = [Math.max(first.column, 0), Math.min(first.column + width, image.width)];
  for (let y = 0; y < height; y++) {
    const row = first.row + y;
    if (row < 0 || row >= image.height || left >= right) continue;
    const start = row * image.width;
    const source = image.data.subarray((start + left) * channels, (start + right) * channels);
    data.set(source, (y * width + left - first.column) * channels);
  }
  return { height, width, channels, data };
}

/** Full-strength foreground at full strength again: strokes fade when an image is reduced. */
function strengthened(image, statistics) {
  const segmentation = segment(asGrey(image));
  if (segmentation === null) return image;
  const { channels, data } = image, { background, contrast, lightOnDark } = segmentation;
  const sign = lightOnDark ? 1 : -1;
  const foreground = Float64Array.from(data, (value, at) =>
    Math.max(sign * (value - background[Math.floor(at / channels)]), 0),
  );
  return drawn(image, foreground, Math.max(statistics.contrast.middle / contrast, 1), lightOnDark, statistics);
}

/** The foreground, in grey levels, times `strength` on the background of the training images. */
function drawn({ height, width, channels }, foreground, strength, lightOnDark, { polarity, background }) {
  const level = lightOnDark === (polarity === "light on dark") ? background.middle : 255 - background.middle;
  const sign = lightOnDark ? strength : -strength;
  const data = Uint8Array.from(foreground, value => Math.min(Math.max(round(level + sign * value), 0), 255));
  return { height, width, channels, data };
}
