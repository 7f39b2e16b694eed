// Findings: how an image differs from the training images; inputs/checks.py in JavaScript.

import { asGrey, borderLevel, measure, measuredSize } from "./foreground.js";
import { fit, round } from "./decoding.js";

const SIMILAR_ASPECT = 1.25;
const WHITE_LEVELS = [255, 1023, 4095, 16383];

const finding = (code, text, fix = null) => ({ code, text, fix });
const percent = fraction => `${round(100 * fraction)}%`;

/** The findings of an image, those to fix first at the front. */
export function checkImage(image, { statistics, image_shape: shape, originals, resize }) {
  const found = [
    ...channelFindings(image, shape[2], originals.colour),
    ...resolutionFindings(image, shape, originals),
    ...(resize === "stretch" ? shapeFindings(image, originals.aspect, statistics !== null) : []),
  ];
  if (statistics === null) return found;
  const small = measuredSize(image), background = round(borderLevel(image));
  const whole = measure(asGrey(resize === "letterbox" ? wholeLetterbox(small, shape, background) : small));
  if (whole === null) return [...found, finding("blank", "blank: nothing stands out from the background")];
  const reduced = measure(asGrey(fit(image, shape[0], shape[1], resize, background)));
  return [
    ...found,
    ...polarityFindings(whole, statistics),
    ...backgroundFindings(whole, statistics),
    ...sizeFindings(whole, statistics),
    ...centringFindings(whole, statistics),
    ...foregroundFindings(whole, reduced, statistics),
  ];
}

/** The image with background beside it, in the aspect of the network's input. */
function wholeLetterbox(image, [rows, columns], background) {
  const { height, width } = image, proportion = rows / columns;
  const whole = [Math.max(height, round(width * proportion)), Math.max(width, round(height / proportion))];
  return fit(image, ...whole, "letterbox", background);
}

/** What was assumed when a file was decoded. */
export function fileFindings({ onBlack, peak }, whiteLevel) {
  const found = [];
  if (onBlack) {
    const text = "light on a transparent ground: put on black, because on white nothing would be left";
    found.push(finding("transparency", text));
  }
  if (peak === null) return found;
  const likely = WHITE_LEVELS.find(level => peak <= level);
  if (whiteLevel !== null && peak > whiteLevel) {
    const text = `of ${bits(peak)} bits, but the training images have ${bits(whiteLevel)}`;
    found.push(finding("depth", `${text}: its values up to 65,535 became grey levels`));
  } else if (whiteLevel === null && likely !== undefined) {
    const text = `of 16 bits, but its values end at ${peak.toLocaleString("en-US")}; if it has ${bits(likely)} bits, `;
    found.push(finding("depth", `${text}it is too dark: multiply them by ${65536 / (likely + 1)}`));
  }
  return found;
}

const bits = value => value.toString(2).length;

function channelFindings({ channels }, expected, colour) {
  const fraction = expected === 1 ? 0 : colour ?? 1;
  if (fraction === 0 && channels === 3) {
    return [finding("channels", "in colour, but the training images are grey", "grey")];
  }
  if (fraction === 1 && channels === 1) return [finding("channels", "grey, but the training images are in colour")];
  return [];
}

function resolutionFindings({ height, width }, shape, originals) {
  const [rows, columns] = [Math.min(shape[0], originals.height.low), Math.min(shape[1], originals.width.low)];
  if (2 * height >= rows && 2 * width >= columns) return [];
  const text = `only ${height}×${width} pixels, but the training images have at least ${rows}×${columns}`;
  return [finding("resolution", text)];
}

function shapeFindings({ height, width }, aspect, canCrop) {
  const own = height / width;
  if (own >= aspect.low / SIMILAR_ASPECT && own <= aspect.high * SIMILAR_ASPECT) return [];
  const text = `${ratio(width / height)} times as wide as high, but the training images ${aspectText(aspect)}`;
  return [finding("shape", `${text}; resizing distorts it`, canCrop ? "crop" : null)];
}

const ratio = value => (round(100 * value) / 100).toFixed(2);

function aspectText(aspect) {
  const [low, high] = [ratio(1 / aspect.high), ratio(1 / aspect.low)];
  return low === high ? low : `${low} to ${high}`;
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
