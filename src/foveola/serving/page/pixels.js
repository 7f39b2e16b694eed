// Numbers as text and as colours, and colours on a canvas.
// `foveola convolve` puts this file and sliding.js into its page: reports/filter_lab.py.

// Okabe and Ito's blue and orange: told apart with every kind of colour blindness
const BLUE = [0, 114, 178], ORANGE = [230, 120, 0];

/** The bytes of a base64 text. */
export const bytes = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));

/** A function from values to [red, green, blue].
 *
 * If `low` is not negative, 0 is black and `high` white; otherwise 0 is white, positive values orange, negative blue.
 */
export function colours(low, high) {
  const highest = Math.max(Math.abs(low), Math.abs(high)) || 1;
  return value => {
    const strength = Math.min(Math.max(value / highest, -1), 1);
    return low < 0 ? towards(strength > 0 ? ORANGE : BLUE, Math.abs(strength)) : Array(3).fill(255 * strength);
  };
}

const towards = (hue, strength) => hue.map(level => 255 + strength * (level - 255));

/** A heat map's value, -1 to 1, over a grey level: orange if positive, blue if negative; visible on every level. */
export function overlaid(grey, heat) {
  const base = 40 + 0.7 * grey, opacity = 0.85 * Math.min(Math.abs(heat), 1);
  return (heat > 0 ? ORANGE : BLUE).map(level => base + opacity * (level - base));
}

/** Fill a canvas with height×width pixels; `colour(index)` gives each as [red, green, blue]. */
export function paint(canvas, height, width, colour) {
  const image = new ImageData(width, height);
  for (let at = 0; at < height * width; at++) image.data.set([...colour(at), 255], 4 * at);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Show the network's input, { shape: [height, width, channels], pixels: base64 }. */
export function paintSeen(canvas, seen) {
  const [height, width, channels] = seen.shape, pixels = bytes(seen.pixels);
  paint(canvas, height, width, at =>
    channels === 1 ? Array(3).fill(pixels[at]) : pixels.subarray(3 * at, 3 * at + 3));
}

/** The network's input as grey levels, 0 to 255; colours by the weights of ITU-R 601, rounded as Pillow does. */
export function greys(seen) {
  const pixels = bytes(seen.pixels);
  if (seen.shape[2] === 1) return pixels;
  return Uint8Array.from({ length: pixels.length / 3 }, (_, at) =>
    (19595 * pixels[3 * at] + 38470 * pixels[3 * at + 1] + 7471 * pixels[3 * at + 2] + 0x8000) >> 16);
}

/** A number with at most two decimals and no more digits than needed, or with two digits from 10,000 on.
 *
 * The text is that of number_text in reports/filter_lab.py: what lies in the middle is rounded to an even digit.
 */
export function numberText(value) {
  if (Math.abs(value) < 10000) {
    const inTheMiddle = Math.abs(8 * value) % 2 === 1; // only odd eighths end in a binary 0.005 exactly
    return String(Number(inTheMiddle ? 2 * Math.round(50 * value) / 100 : value.toFixed(2)) + 0);
  }
  const digits = value.toExponential();
  const rounded = /\.[02468]5e/.test(digits) ? digits.replace("5e", "e") : value.toExponential(1);
  return rounded.replace(".0e", "e").replace(/e\+(\d)$/, "e+0$1");
}

/** A fraction between 0 and 1 in percent. */
export const percent = fraction => `${(100 * fraction).toFixed(1)}\u00a0%`;
