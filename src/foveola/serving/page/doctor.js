// What makes a picture unlike the training images, and what would mend it: doctor.py in JavaScript.

import { asGrey, backgroundOf, measure, measuredSize, takeApart } from "./ink.js";
import { atMost, resize, round, toChannels } from "./decoding.js";

// In the order in which they are applied
const FIXES = ["grey", "invert", "contrast", "crop", "center"];
const OVERSAMPLING = 4;
const FIXED_SIDE = 1024;

const finding = (code, text, fix = null) => ({ code, text, fix });
const percent = share => `${round(100 * share)}%`;

/** The findings of a picture, those first that should be fixed first. */
export function examine(picture, statistics, shape) {
  const found = shapeFindings(picture, shape);
  if (statistics === null) return found;
  const whole = measure(asGrey(measuredSize(picture)));
  if (whole === null) return [...found, finding("blank", "blank: nothing stands out from the background")];
  const reduced = measure(asGrey(resize(picture, shape[0], shape[1])));
  return [
    ...found,
    ...polarityFindings(whole, statistics),
    ...backgroundFindings(whole, statistics),
    ...sizeFindings(whole, statistics),
    ...centringFindings(whole, statistics),
    ...inkFindings(whole, reduced, statistics),
  ];
}

function shapeFindings({ height, width, channels }, [rows, columns, wanted]) {
  const found = [];
  if (channels > wanted) found.push(finding("channels", "in colour, where the training images are grey", "grey"));
  if (channels < wanted) found.push(finding("channels", "grey, where the training images are in colour"));
  if (height < rows / 2 || width < columns / 2) {
    const text = `only ${height}×${width} pixels, where the training images have ${rows}×${columns}`;
    found.push(finding("resolution", text));
  }
  const stretch = height / width / (rows / columns);
  if (Math.max(stretch, 1 / stretch) > 1.25) {
    const text = `${height}×${width} pixels (height × width), which resizing to ${rows}×${columns} distorts`;
    found.push(finding("shape", text, "crop"));
  }
  return found;
}

function polarityFindings(whole, { polarity }) {
  const found = whole.light ? "light on dark" : "dark on light";
  if (found === polarity) return [];
  return [finding("polarity", `${found}, where the training images are ${polarity}; invert it`, "invert")];
}

function backgroundFindings(whole, { polarity, background, unevenness }) {
  const lightAsWanted = whole.light === (polarity === "light on dark");
  const level = lightAsWanted ? whole.background : 255 - whole.background;
  if (whole.unevenness > unevenness.high + 25) {
    const text = `unevenly lit: the background varies by ${round(whole.unevenness)} grey levels; even it out`;
    return [finding("background", text, "contrast")];
  }
  if (level >= background.low - 25 && level <= background.high + 25) return [];
  const here = `on a background of grey level ${round(level)}${lightAsWanted ? "" : " once inverted"}`;
  const text = `${here}, where the training images have ${round(background.middle)}; even it out`;
  return [finding("background", text, "contrast")];
}

function sizeFindings(whole, { size }) {
  const largest = Math.min(1.15 * size.high, 0.99 + size.high / 20);
  if (whole.size >= 0.85 * size.low && whole.size <= largest) return [];
  const word = whole.size < size.low ? "small" : "large";
  const shares = `it takes ${percent(whole.size)} of the side, ${percent(size.middle)} in the training images`;
  return [finding("size", `too ${word}: ${shares}; crop it to size`, "crop")];
}

function centringFindings({ centre }, statistics) {
  const { centre_y: y, centre_x: x } = statistics;
  const away = [];
  if (centre.y < y.low - 0.05) away.push("high");
  if (centre.y > y.high + 0.05) away.push("low");
  if (centre.x < x.low - 0.05) away.push("far left");
  if (centre.x > x.high + 0.05) away.push("far right");
  if (away.length === 0) return [];
  return [finding("centring", `off centre: too ${away.join(" and too ")}; centre it`, "center")];
}

function inkFindings(whole, reduced, { contrast, ink, size }) {
  const strength = reduced === null ? 0 : reduced.contrast;
  if (strength < 0.75 * contrast.low || reduced === null) {
    const here = `faint: at the network's size its ink is ${round(strength)} grey levels from the background`;
    return [finding("contrast", `${here}, ${round(contrast.middle)} in the training images`, "contrast")];
  }
  const share = reduced.ink * (size.middle / whole.size) ** 2;
  if (share >= 0.6 * ink.low && share <= 1.6 * ink.high) return [];
  const thin = share < ink.low;
  const here = `too ${thin ? "thin" : "thick"}: of its size, ink covers ${percent(share)} of the picture`;
  const text = `${here}, ${percent(ink.low)} to ${percent(ink.high)} in the training images`;
  return [finding("ink", text, thin ? "contrast" : null)];
}

/** The fixes that findings propose, in the order in which they are applied. */
export const proposed = findings => inOrder(findings.map(found => found.fix));

export const inOrder = names => FIXES.filter(name => names.includes(name));

/** The picture as the network gets it, with these fixes and no others. */
export function fix(picture, fixes, statistics, [height, width, channels]) {
  const wanted = name => fixes.includes(name) && statistics !== null;
  if (wanted("contrast") || wanted("crop") || wanted("center")) {
    picture = oversampled(picture, statistics, Math.max(height, width));
  }
  if (fixes.includes("grey") || channels === 1) picture = toChannels(picture, 1);
  if (fixes.includes("invert")) picture = { ...picture, data: picture.data.map(value => 255 - value) };
  if (wanted("contrast")) picture = evened(picture, statistics);
  if (wanted("crop") || wanted("center")) {
    picture = framed(picture, wanted("crop"), wanted("center"), statistics, height / width);
  }
  picture = resize(toChannels(picture, channels), height, width);
  return wanted("contrast") ? strengthened(picture, statistics) : picture;
}

/** Reduced until the ink has a few times the size that it will have. */
function oversampled(picture, statistics, longer) {
  const size = measure(asGrey(measuredSize(picture)))?.size ?? 1;
  const side = OVERSAMPLING * longer * Math.max(statistics.size.middle / size, 1);
  return atMost(picture, Math.min(round(side), FIXED_SIDE));
}

/** Background and ink at the levels of the training images, thin strokes widened. */
function evened(picture, statistics) {
  const grey = asGrey(picture), parts = takeApart(grey);
  if (parts === null) return picture;
  const measures = measure(grey, parts);
  // What the noise reaches is background; full ink keeps its strength
  const strength = parts.contrast / Math.max(parts.contrast - parts.noise, 1);
  let ink = inkOf(picture, parts.light).map(value => Math.max(value - parts.noise, 0) * strength);
  if (measures.stroke < statistics.stroke.low) {
    const side = Math.max(picture.height, picture.width);
    const missing = (statistics.stroke.middle - measures.stroke) * measures.size * side;
    const steps = round(missing / 2); // a pixel on either side
    for (let step = 0; step < steps; step++) ink = widened(ink, picture, step % 2 === 1);
  }
  return drawn(picture, ink, statistics.contrast.middle / parts.contrast, parts.light, statistics);
}

/** How far each value of a picture lies from the background of its channel, towards the ink. */
function inkOf({ height, width, channels, data }, light) {
  const ink = new Float64Array(data.length);
  for (let channel = 0; channel < channels; channel++) {
    const values = Float64Array.from({ length: height * width }, (_, pixel) => data[pixel * channels + channel]);
    const background = backgroundOf({ height, width, values });
    values.forEach((value, pixel) => {
      ink[pixel * channels + channel] = (light ? 1 : -1) * (value - background[pixel]);
    });
  }
  return ink;
}

/** The largest value of each pixel and its 4 or 8 neighbours; taken in turns, strokes widen nearly roundly. */
function widened(ink, { height, width, channels }, diagonally) {
  const row = width * channels;
  const column = ink.map((value, at) => Math.max(value, ink[at - row] ?? 0, ink[at + row] ?? 0));
  const beside = diagonally ? column : ink;
  return column.map((value, at) => {
    const x = Math.floor((at % row) / channels);
    return Math.max(value, x > 0 ? beside[at - channels] : 0, x < width - 1 ? beside[at + channels] : 0);
  });
}

/** Cut, or widened with background, to the window that the network shall see. */
function framed(picture, crop, center, statistics, proportion) {
  const measures = measure(asGrey(picture));
  if (measures === null) return picture;
  const { height: rows, width: columns } = picture;
  const { top, left, bottom, right } = measures.box;
  let [height, width] = [rows, columns];
  if (crop) {
    height = Math.max((bottom - top) * rows, (right - left) * columns * proportion) / statistics.size.middle;
    width = height / proportion;
  }
  let [y, x] = [rows / 2, columns / 2];
  if (center) {
    y = measures.centre.y * rows + (0.5 - statistics.centre_y.middle) * height;
    x = measures.centre.x * columns + (0.5 - statistics.centre_x.middle) * width;
  } else if (crop) {
    [y, x] = [((top + bottom) / 2) * rows, ((left + right) / 2) * columns];
  }
  const first = { row: round(y - height / 2), column: round(x - width / 2) };
  const size = { height: Math.max(round(height), 1), width: Math.max(round(width), 1) };
  return cut(picture, first, size, round(measures.background));
}

/** So many rows and columns from `first` on, which may lie outside of the picture. */
function cut(picture, first, { height, width }, fill) {
  const { channels } = picture;
  const data = new Uint8Array(height * width * channels).fill(fill);
  const [left, right] = [Math.max(first.column, 0), Math.min(first.column + width, picture.width)];
  for (let y = 0; y < height; y++) {
    const row = first.row + y;
    if (row < 0 || row >= picture.height || left >= right) continue;
    const start = row * picture.width;
    const source = picture.data.subarray((start + left) * channels, (start + right) * channels);
    data.set(source, (y * width + left - first.column) * channels);
  }
  return { height, width, channels, data };
}

/** Full ink brought to full strength once more: strokes fade where a picture is reduced. */
function strengthened(picture, statistics) {
  const parts = takeApart(asGrey(picture));
  if (parts === null) return picture;
  const { channels, data } = picture;
  const sign = parts.light ? 1 : -1;
  const ink = Float64Array.from(data, (value, at) =>
    Math.max(sign * (value - parts.background[Math.floor(at / channels)]), 0),
  );
  return drawn(picture, ink, Math.max(statistics.contrast.middle / parts.contrast, 1), parts.light, statistics);
}

/** Ink, in grey levels, so many times as strong, on the background of the training images. */
function drawn({ height, width, channels }, ink, strength, light, { polarity, background }) {
  const level = light === (polarity === "light on dark") ? background.middle : 255 - background.middle;
  const sign = light ? strength : -strength;
  const data = Uint8Array.from(ink, value => Math.min(Math.max(round(level + sign * value), 0), 255));
  return { height, width, channels, data };
}
