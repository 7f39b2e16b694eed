// Convolution and pooling, position by position: foveola.explanation.convolution in JavaScript, and its sums in words.
// As in every deep-learning library, "convolution" means cross-correlation: the kernel is not flipped.
// A matrix is { rows, columns, values }, its values row by row.

import { colours, numberText } from "./pixels.js";

// Longer sums are given by their number of terms; as in reports/filter_lab.py
const MAX_TERMS = 25;

export const KERNELS = {
  "vertical-edge": matrix([[1, 0, -1], [1, 0, -1], [1, 0, -1]]),
  "horizontal-edge": matrix([[1, 1, 1], [0, 0, 0], [-1, -1, -1]]),
  "diagonal": matrix([[-1, -1, 2], [-1, 2, -1], [2, -1, -1]]),
  "sharpen": matrix([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
  "blur": matrix([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
};

export function matrix(rows, divisor = 1) {
  return { rows: rows.length, columns: rows[0].length, values: rows.flat().map(value => value / divisor) };
}

/** At every position, the sum of pixel times weight; "same" pads the image with zeros. */
export function convolve(image, kernel, stride, padding) {
  return slide({ image, kernel, operation: "convolution", window: [kernel.rows, kernel.columns], stride, padding },
    values => values.reduce((sum, value, at) => sum + (value ?? 0) * kernel.values[at], 0));
}

/** The maximum ("max") or the mean ("average") of every window, without its padding, as in Keras. */
export function pool(image, operation, size, stride, padding) {
  return slide({ image, kernel: null, operation, window: [size, size], stride, padding }, values => {
    const inside = values.filter(value => value !== undefined);
    return operation === "max" ? Math.max(...inside) : inside.reduce((sum, value) => sum + value, 0) / inside.length;
  });
}

/** The receptive field of an output, row by row; undefined where there is only padding. */
export function field({ image, window: [high, wide], stride, edges: [top, left] }, row, column) {
  return Array.from({ length: high * wide }, (_, at) => {
    const y = row * stride - top + Math.floor(at / wide), x = column * stride - left + at % wide;
    return y >= 0 && y < image.rows && x >= 0 && x < image.columns ? image.values[y * image.columns + x] : undefined;
  });
}

/** The arithmetic of one output as one writes it; `values` is its receptive field.
 *
 * Equal to the sum in the document of `foveola convolve`: _sum in reports/filter_lab.py.
 */
export function arithmetic({ kernel, operation }, values, result) {
  const inside = values.filter(value => value !== undefined), equals = ` = ${numberText(result)}`;
  if (kernel) {
    if (values.length > MAX_TERMS) return `sum of ${values.length} products${equals}`;
    return values.map((value, at) => product(value ?? 0, kernel.values[at])).join(" + ") + equals;
  }
  const word = operation === "max" ? "largest" : "mean";
  if (inside.length > MAX_TERMS) return `${word} of ${inside.length} values${equals}`;
  if (operation === "max") return `largest of ${inside.map(numberText).join(", ")}${equals}`;
  return `(${inside.map(bracketed).join(" + ")}) / ${inside.length}${equals}`;
}

export const product = (value, weight) => `${numberText(value)}×${bracketed(weight)}`;

/** A number as text, in brackets if it has a minus sign. */
function bracketed(value) {
  const text = numberText(value);
  return text.startsWith("-") ? `(${text})` : text;
}

/** Colours for the values of a matrix: pixels from black to white, negative and positive values blue and orange. */
export function matrixColours({ values }) {
  const low = values.reduce((one, other) => Math.min(one, other));
  const high = values.reduce((one, other) => Math.max(one, other));
  return colours(low, low < 0 ? high : Math.max(high, 1));
}

/** The settings with `edges`, the pixels added above, left, below and right, and `output`, a matrix.
 *
 * Throws an Error if the settings cannot be used.
 */
function slide(settings, result) {
  const { image, window: [high, wide], stride, padding } = settings;
  if (!Number.isInteger(stride) || stride < 1) {
    throw new Error(`The stride is ${stride}, but must be a whole number. Choose 1 or more.`);
  }
  if (high > image.rows || wide > image.columns) {
    const sizes = `The window is ${high}×${wide}, but the image is only ${image.rows}×${image.columns}`;
    throw new Error(`${sizes}. Choose a smaller window.`);
  }
  const [top, bottom, rows] = along(image.rows, high, stride, padding);
  const [left, right, columns] = along(image.columns, wide, stride, padding);
  const sliding = { ...settings, edges: [top, left, bottom, right], output: { rows, columns, values: [] } };
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) sliding.output.values.push(result(field(sliding, row, column)));
  }
  return sliding;
}

/** Pixels added before and after, and number of positions, along one side; an odd pixel comes after, as in Keras. */
function along(side, size, stride, padding) {
  if (padding === "valid") return [0, 0, Math.floor((side - size) / stride) + 1];
  const positions = Math.ceil(side / stride), added = Math.max((positions - 1) * stride + size - side, 0);
  return [Math.floor(added / 2), Math.ceil(added / 2), positions];
}
