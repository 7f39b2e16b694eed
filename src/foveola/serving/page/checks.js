// Findings: how an image differs from the training images; inputs/checks.py in JavaScript.

import { asGrey, measure, measuredSize } from "./foreground.js";
import { resize, round } from "./decoding.js";

const finding = (code, text, fix = null) => ({ code, text, fix });
const percent = fraction => `${round(100 * fraction)}%`;

/** The findings of an image, those to fix first at the front. */
export function checkImage(image, statistics, shape) {
  const found = shapeFindings(image, shape);
  if (statistics === null) return found;
  const whole = measure(asGrey(measuredSize(image)));
  if (whole === null) return [...found, finding("blank", "blank: nothing stands out from the background")];
  const reduced = measure(asGrey(resize(image, shape[0], shape[1])));
  return [
    ...found,
    ...polarityFindings(whole, statistics),
    ...backgroundFindings(whole, statistics),
    ...sizeFindings(whole, statistics),
    ...centringFindings(whole, statistics),
    ...foregroundFindings(whole, reduced, statistics),
  ];
}

function shapeFindings({ height, width, channels }, [rows, columns, expected]) {
  const found = [];
  if (channels > expected) found.push(finding("channels", "in colour, but the training images are grey", "grey"));
  if (channels < expected) found.push(finding("channels", "grey, but the training images are in colour"));
  if (height < rows / 2 || width < columns / 2) {
    const text = `only ${height}×${width} pixels, but the training images have ${rows}×${columns}`;
    found.push(finding("resolution", text));
  }
  const stretch = height / width / (rows / columns);
  if (Math.max(stretch, 1 / stretch) > 1.25) {
    const text = `distorted when resized from ${height}×${width} pixels (height × width) to ${rows}×${columns}`;
    found.push(finding("shape", text, "crop"));
  }
  return found;
}

function polarityFindings(whole, { polarity }) {
  const found = whole.lightOnDark ? "light on dark" : "dark on light";
  if (found === polarity) return [];
  return [finding("polarity", `${found}, but the training images are ${polarity}; invert it`, "invert")];
}

function backgroundFindings(whole, { polarity, background, unevenness }) {
  const asInTraining = whole.lightOnDark === (polarity === "light on dark");
  const level = asInTraining ? whole.background : 255 - whole.background;
  if (whole.unevenness > unevenness.high + 25) {
    const text = `unevenly lit: the background varies by ${round(whole.unevenness)} grey levels; even it out`;
    return [finding("background", text, "contrast")];
  }
  if (level >= background.low - 25 && level <= background.high + 25) return [];
  const here = `on a background of grey level ${round(level)}${asInTraining ? "" : " once inverted"}`;
  const text = `${here}, but the training images have ${round(background.middle)}; even it out`;
  return [finding("background", text, "contrast")];
}

function sizeFindings(whole, { size }) {
  const largest = Math.min(1.15 * size.high, 0.99 + size.high / 20);
  if (whole.size >= 0.85 * size.low && whole.size <= largest) return [];
  const word = whole.size < size.low ? "small" : "large";
  const shares = `it fills ${percent(whole.size)} of the side, ${percent(size.middle)} in the training images`;
  return [finding("size", `too ${word}: ${shares}; crop or pad it`, "crop")];
}

function centringFindings({ center }, statistics) {
  const { centre_y: y, centre_x: x } = statistics;
  const away = [];
  if (center.y < y.low - 0.05) away.push("high");
  if (center.y > y.high + 0.05) away.push("low");
  if (center.x < x.low - 0.05) away.push("far left");
  if (center.x > x.high + 0.05) away.push("far right");
  if (away.length === 0) return [];
  return [finding("centring", `off center: too ${away.join(" and too ")}; center it`, "center")];
}

function foregroundFindings(whole, reduced, { contrast, ink, size }) {
  const strength = reduced === null ? 0 : reduced.contrast;
  if (strength < 0.75 * contrast.low || reduced === null) {
    const here = `faint: at the network's input size its contrast is ${round(strength)} grey levels`;
    return [finding("contrast", `${here}, ${round(contrast.middle)} in the training images`, "contrast")];
  }
  const coverage = reduced.foreground * (size.middle / whole.size) ** 2;
  if (coverage >= 0.6 * ink.low && coverage <= 1.6 * ink.high) return [];
  const thin = coverage < ink.low;
  const here = `too ${thin ? "thin" : "thick"}: scaled to the usual size, it covers ${percent(coverage)} of the image`;
  const text = `${here}, ${percent(ink.low)} to ${percent(ink.high)} in the training images`;
  return [finding("ink", text, thin ? "contrast" : null)];
}
