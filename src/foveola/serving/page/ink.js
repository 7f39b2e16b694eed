// A picture taken apart into background and ink, and measured: ink.py in JavaScript; its constants are explained there.
//
// A plane is { height, width, values }: grey levels as numbers, H×W.

import { atMost, toChannels } from "./decoding.js";

const MEASURED_SIDE = 128;
const TO_SPREAD = 1.4826;
const NOISE_SPREADS = 5;
const LEAST_DIFFERENCE = 12;
const FLAT = 4;
const INK_FROM = 0.33;
const TERMS = 6;

export function asGrey(picture) {
  const { height, width, data } = toChannels(picture, 1);
  return { height, width, values: Float64Array.from(data) };
}

export const measuredSize = picture => atMost(picture, MEASURED_SIDE);

/** What stands in a plane, in grey levels and as shares of its sides; null if nothing stands out. */
export function measure(plane, parts = takeApart(plane)) {
  if (parts === null) return null;
  const { height, width } = plane;
  const least = Math.max(INK_FROM * parts.contrast, parts.noise);
  const weights = parts.difference.map(value => (value >= least ? value : 0));
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
  const ink = weights.map(weight => Math.min(weight / parts.contrast, 1));
  const [lowest, highest] = range(parts.background);
  return {
    light: parts.light,
    background: median(parts.background),
    unevenness: highest - lowest,
    contrast: parts.contrast,
    ink: weights.filter(weight => weight > 0).length / weights.length,
    stroke: strokeWidth(ink, height, width) / longer,
    box: { top: y.start, left: x.start, bottom: y.end, right: x.end },
    centre: { y: y.centre, x: x.centre },
    size: Math.max(y.end - y.start, x.end - x.start),
  };
}

/** Start, end and centre of mass of a profile as shares of its length; specks at the ends do not count. */
function extent(profile) {
  const total = sum(profile);
  let [mass, moment, start, end] = [0, 0, 0, 0];
  profile.forEach((weight, index) => {
    if (mass < 0.003 * total) start = index;
    if (mass < 0.997 * total) end = index + 1;
    mass += weight;
    moment += weight * (index + 0.5);
  });
  return { start: start / profile.length, end: end / profile.length, centre: moment / total / profile.length };
}

/** Twice the area of the ink, 0 to 1, by the length of its edge. */
function strokeWidth(ink, height, width) {
  const at = (y, x) => y < 0 || x < 0 || y >= height || x >= width ? 0 : ink[y * width + x];
  let edge = 0;
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const here = at(y, x), down = at(y + 1, x) - here, across = at(y, x + 1) - here;
      edge += Math.sqrt(down * down + across * across);
    }
  }
  return (2 * sum(ink)) / edge;
}

/** How far each pixel lies from the background towards the ink; null if nothing stands out. */
export function takeApart(plane) {
  const background = backgroundOf(plane);
  const towardsLight = plane.values.map((value, pixel) => value - background[pixel]);
  const border = onBorder(plane);
  const spread = TO_SPREAD * median(towardsLight.filter((_, pixel) => border[pixel]).map(Math.abs));
  const noise = Math.max(NOISE_SPREADS * spread, LEAST_DIFFERENCE);
  const above = towardsLight.filter(value => value > noise);
  const below = towardsLight.filter(value => value < -noise).map(value => -value);
  const light = sum(above) >= sum(below);
  const ink = light ? above : below;
  if (ink.length < Math.max(2, plane.values.length / 4000)) return null;
  const difference = light ? towardsLight : towardsLight.map(value => -value);
  return { light, background, difference, noise, contrast: quantile(ink, 0.9) };
}

/** The level of the border, or a surface of second degree where the light is uneven: a number for each pixel. */
export function backgroundOf({ height, width, values }) {
  const picture = { height, width, channels: 1, data: Uint8Array.from(values) };
  const small = asGrey(measuredSize(picture));
  const border = onBorder(small);
  const edge = small.values.filter((_, pixel) => border[pixel]);
  const level = median(edge);
  const flat = edge.filter(value => Math.abs(value - level) <= FLAT).length;
  if (flat >= 0.75 * edge.length || Math.min(small.height, small.width) < 16) {
    return new Float64Array(values.length).fill(level);
  }
  const near = 3 * TO_SPREAD * median(edge.map(value => Math.abs(value - level)));
  let inside = small.values.map((value, pixel) => border[pixel] && Math.abs(value - level) <= near);
  let coefficients;
  for (let turn = 0; turn < 6; turn++) {
    coefficients = fitted(small, inside);
    const surface = surfaceOf(coefficients, small);
    const residual = small.values.map((value, pixel) => Math.abs(value - surface[pixel]));
    const limit = Math.max(3 * TO_SPREAD * median(residual.filter((_, pixel) => inside[pixel])), FLAT);
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
const place = (at, length) => 2 * (at + 0.5) / length - 1;

/** 1, x, y, x², xy, y² of every pixel, each times its coefficient, summed. */
function surfaceOf([one, x, y, xx, xy, yy], { height, width }) {
  const surface = new Float64Array(height * width);
  for (let row = 0, pixel = 0; row < height; row++) {
    const v = place(row, height);
    for (let column = 0; column < width; column++) {
      const u = place(column, width);
      surface[pixel++] = one + x * u + y * v + xx * u * u + xy * u * v + yy * v * v;
    }
  }
  return surface;
}

/** Least squares over the pixels inside; the little on the diagonal makes the solution unique. */
function fitted(plane, inside) {
  const row = k => Array.from({ length: TERMS + 1 }, (_, l) => k === l ? 1e-6 : 0);
  const rows = Array.from({ length: TERMS }, (_, k) => row(k));
  plane.values.forEach((value, pixel) => {
    if (!inside[pixel]) return;
    const u = place(pixel % plane.width, plane.width), v = place(Math.floor(pixel / plane.width), plane.height);
    const equation = [1, u, v, u * u, u * v, v * v, value];
    rows.forEach((row, k) => equation.forEach((term, l) => (row[l] += equation[k] * term)));
  });
  // Symmetric and positive definite, so that elimination needs no pivot
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

/** Between neighbours in proportion, as NumPy. */
function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (at % 1) * (sorted[Math.ceil(at)] - low);
}

/** The lowest and the highest of many values. */
export function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
