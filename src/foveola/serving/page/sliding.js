// What a convolution and a pooling compute: the arithmetic of the filter lab, as in foveola.explanation.convolution.
// As in every deep-learning library, "convolution" means cross-correlation: the kernel is not turned round.
// A matrix is { rows, columns, values }, its values row by row.

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

/** At every place, the sum of pixel times weight; "same" adds zeros around the image. */
export function convolve(image, kernel, stride, padding) {
  return slide({ image, kernel, operation: "convolution", window: [kernel.rows, kernel.columns], stride, padding },
    values => values.reduce((sum, value, at) => sum + (value ?? 0) * kernel.values[at], 0));
}

/** The largest value ("max") or the mean ("average") of every window; padding does not count, as in Keras. */
export function pool(image, operation, size, stride, padding) {
  return slide({ image, kernel: null, operation, window: [size, size], stride, padding }, values => {
    const inside = values.filter(value => value !== undefined);
    return operation === "max" ? Math.max(...inside) : inside.reduce((sum, value) => sum + value, 0) / inside.length;
  });
}

/** The pixels that an output sees, row by row; undefined where there is only padding. */
export function field({ image, window: [high, wide], stride, edges: [top, left] }, row, column) {
  return Array.from({ length: high * wide }, (_, at) => {
    const y = row * stride - top + Math.floor(at / wide), x = column * stride - left + at % wide;
    return y >= 0 && y < image.rows && x >= 0 && x < image.columns ? image.values[y * image.columns + x] : undefined;
  });
}

/** The settings, with `edges`, the pixels added above, left, below and right, and `output`, a matrix.
 *
 * Throws an Error where the settings cannot be used.
 */
function slide(settings, result) {
  const { image, window: [high, wide], stride, padding } = settings;
  if (!Number.isInteger(stride) || stride < 1) {
    throw new Error(`A stride of ${stride} does not do. Choose a whole number of 1 or more.`);
  }
  if (high > image.rows || wide > image.columns) {
    const sizes = `The window is ${high}×${wide}, the image only ${image.rows}×${image.columns}`;
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

/** Pixels added before and after, and places of the window, along one side; an odd pixel comes after, as in Keras. */
function along(side, size, stride, padding) {
  if (padding === "valid") return [0, 0, Math.floor((side - size) / stride) + 1];
  const places = Math.ceil(side / stride), added = Math.max((places - 1) * stride + size - side, 0);
  return [Math.floor(added / 2), Math.ceil(added / 2), places];
}
