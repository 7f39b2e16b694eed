// Segmentation of an image into foreground and background, and measurements of both.
//
// This is inputs/foreground.py in JavaScript; that file explains the constants.
//
// A plane is { height, width, values }: grey levels as numbers, H×W.

import { atMost, toChannels } from "./decoding.js";

const MEASURED_SIDE = 128;
const MAD_TO_STD = 1.4826;
const MIN_FOREGROUND_STDS = 5;
const MIN_DIFFERENCE = 12;
const MAX_FLAT_DEVIATION = 4;
const FOREGROUND_THRESHOLD = 0.33;
const TERMS = 6;

export function asGrey(image) {
  const { height, width, data } = toChannels(image, 1);
  return { height, width, values: Float64Array.from(data) };
}

/** The image, reduced for measuring, which also averages out noise. */
export const measuredSize = image => atMost(image, MEASURED_SIDE);

/** Measurements of a plane in grey levels and in fractions of its sides; null if it has no foreground. */
export function measure(plane, segmentation = segment(plane)) {
  if (segmentation === null) return null;
  const { height, width } = plane;
  const threshold = Math.max(FOREGROUND_THRESHOLD * segmentation.contrast, segmentation.noise);
  const weights = segmentation.difference.map(value => (value >= threshold ? value : 0));
  const rows = new Float64Array(height);
  const columns = new Float64Array(width);
  for (let y = 0, pixel = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      rows[y] += weights[pixel];
      columns[x] += weights[pixel++];
    }
  }
  const [y, x] = [extent(rows), extent(columns)];
  const longer = Math.max((y.end - y.start) * height, (x.end - x.start) * width);
  const foreground = weights.map(weight => Math.min(weight / segmentation.contrast, 1));
  const [lowest, highest] = range(segmentation.background);
  return {
    lightOnDark: segmentation.lightOnDark,
    background: median(segmentation.background),
    unevenness: highest - lowest,
    contrast: segmentation.contrast,
    foreground: weights.filter(weight => weight > 0).length / weights.length,
    stroke: strokeWidth(foreground, height, width) / longer,
    box: { top: y.start, left: x.start, bottom: y.end, right: x.end },
    center: { y: y.center, x: x.center },
    size: Math.max(y.end - y.start, x.end - x.start),
  };
}

/** Start, end and center of mass of a profile, in fractions of its length, without specks at its ends. */
function extent(profile) {
  const total = sum(profile);
  let [mass, moment, start, end] = [0, 0, 0, 0];
  profile.forEach((weight, index) => {
    if (mass < 0.003 * total) start = index;
    if (mass < 0.997 * total) end = index + 1;
    mass += weight;
    moment += weight * (index + 0.5);
  });
  return { start: start / profile.length, end: end / profile.length, center: moment / total / profile.length };
}

/** Twice the area of the foreground, 0 to 1, divided by the length of its edge. */
function strokeWidth(foreground, height, width) {
  const at = (y, x) => y < 0 || x < 0 || y >= height || x >= width ? 0 : foreground[y * width + x];
  let edge = 0;
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const here = at(y, x), down = at(y + 1, x) - here, across = at(y, x + 1) - here;
      edge += Math.sqrt(down * down + across * across);
    }
  }
  return (2 * sum(foreground)) / edge;
}

/** How far each pixel differs from the background in the direction of the foreground; null if there is none. */
export function segment(plane) {
  const background = backgroundOf(plane);
  const towardsLight = plane.values.map((value, pixel) => value - background[pixel]);
  const border = onBorder(plane);
  const deviation = MAD_TO_STD * median(towardsLight.filter((_, pixel) => border[pixel]).map(Math.abs));
  const noise = Math.max(MIN_FOREGROUND_STDS * deviation, MIN_DIFFERENCE);
  const above = towardsLight.filter(value => value > noise);
  const below = towardsLight.filter(value => value < -noise).map(value => -value);
  const lightOnDark = sum(above) >= sum(below);
  const foreground = lightOnDark ? above : below;
  if (foreground.length < Math.max(2, plane.values.length / 4000)) return null;
  const difference = lightOnDark ? towardsLight : towardsLight.map(value => -value);
  return { lightOnDark, background, difference, noise, contrast: quantile(foreground, 0.9) };
}

/** The background of each pixel: the level of the border, or a quadratic surface if the light is uneven. */
export function backgroundOf({ height, width, values }) {
  const image = { height, width, channels: 1, data: Uint8Array.from(values) };
  const small = asGrey(measuredSize(image));
  const border = onBorder(small);
  const edge = small.values.filter((_, pixel) => border[pixel]);
  const level = median(edge);
  const flat = edge.filter(value => Math.abs(value - level) <= MAX_FLAT_DEVIATION).length;
  if (flat >= 0.75 * edge.length || Math.min(small.height, small.width) < 16) {
    return new Float64Array(values.length).fill(level);
  }
  const near = 3 * MAD_TO_STD * median(edge.map(value => Math.abs(value - level)));
  let inside = small.values.map((value, pixel) => border[pixel] && Math.abs(value - level) <= near);
  let coefficients;
  for (let iteration = 0; iteration < 6; iteration++) {
    coefficients = fitted(small, inside);
    const surface = surfaceOf(coefficients, small);
    const residual = small.values.map((value, pixel) => Math.abs(value - surface[pixel]));
    const limit = Math.max(3 * MAD_TO_STD * median(residual.filter((_, pixel) => inside[pixel])), MAX_FLAT_DEVIATION);
    inside = residual.map(value => value <= limit);
  }
  return surfaceOf(coefficients, { height, width }).map(value => Math.min(Math.max(value, 0), 255));
}

function onBorder({ height, width }) {
  const margin = Math.max(Math.floor(Math.min(height, width) / 16), 1);
  const border = new Uint8Array(height * width).fill(1);
  for (let y = margin; y < height - margin; y++) border.fill(0, y * width + margin, (y + 1) * width - margin);
  return border;
}

/** The middle of a pixel, from -1 to 1 across a side of that length. */
const coordinate = (at, length) => 2 * (at + 0.5) / length - 1;

/** 1, x, y, x², xy, y² of every pixel, each times its coefficient, summed. */
function surfaceOf([one, x, y, xx, xy, yy], { height, width }) {
  const surface = new Float64Array(height * width);
  for (let row = 0, pixel = 0; row < height; row++) {
    const v = coordinate(row, height);
    for (let column = 0; column < width; column++) {
      const u = coordinate(column, width);
      surface[pixel++] = one + x * u + y * v + xx * u * u + xy * u * v + yy * v * v;
    }
  }
  return surface;
}

/** Least squares over the pixels inside; a small value on the diagonal makes the solution unique. */
function fitted(plane, inside) {
  const row = k => Array.from({ length: TERMS + 1 }, (_, l) => k === l ? 1e-6 : 0);
  const rows = Array.from({ length: TERMS }, (_, k) => row(k));
  plane.values.forEach((value, pixel) => {
    if (!inside[pixel]) return;
    const u = coordinate(pixel % plane.width, plane.width);
    const v = coordinate(Math.floor(pixel / plane.width), plane.height);
    const equation = [1, u, v, u * u, u * v, v * v, value];
    rows.forEach((row, k) => equation.forEach((term, l) => (row[l] += equation[k] * term)));
  });
  // The matrix is symmetric and positive definite, so elimination needs no pivoting
  for (const [k, pivot] of rows.entries()) {
    for (const [l, row] of rows.entries()) {
      if (l === k) continue;
      const factor = row[k] / pivot[k];
      pivot.forEach((value, column) => (row[column] -= factor * value));
    }
  }
  return rows.map((row, k) => row[TERMS] / row[k]);
}

const sum = values => values.reduce((total, value) => total + value, 0);

const median = values => quantile(values, 0.5);

/** Linear interpolation between neighbours, as in NumPy. */
function quantile(values, fraction) {
  const sorted = Float64Array.from(values).sort();
  const at = fraction * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (at % 1) * (sorted[Math.ceil(at)] - low);
}

/** The median grey level of an image's border, corners twice, as in foveola/images.py. */
export function borderLevel({ height, width, channels, data }) {
  const level = (y, x) => sum(data.subarray((y * width + x) * channels, (y * width + x + 1) * channels)) / channels;
  const levels = [];
  for (let x = 0; x < width; x++) levels.push(level(0, x), level(height - 1, x));
  for (let y = 0; y < height; y++) levels.push(level(y, 0), level(y, width - 1));
  return median(levels);
}

/** Minimum and maximum of many values. */
export function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
