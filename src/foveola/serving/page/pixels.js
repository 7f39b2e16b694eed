// Numbers as colours, and colours on a canvas.

// Okabe and Ito's blue and orange: told apart with every kind of colour blindness
const BLUE = [0, 114, 178], ORANGE = [230, 120, 0];

/** The bytes of a base64 text. */
export const bytes = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));

/** A function from values to [red, green, blue]: black to white where `low` is not below 0, otherwise 0 is white,
 * values above it are orange and those below it blue. */
export function colours(low, high) {
  const highest = Math.max(Math.abs(low), Math.abs(high)) || 1;
  return value => {
    const strength = Math.min(Math.max(value / highest, -1), 1);
    return low < 0 ? towards(strength > 0 ? ORANGE : BLUE, Math.abs(strength)) : Array(3).fill(255 * strength);
  };
}

const towards = (hue, strength) => hue.map(part => 255 + strength * (part - 255));

/** Heat from -1 to 1 over a grey level: orange above 0, blue below. Kept off black and white, so that both show. */
export function overlaid(grey, heat) {
  const base = 40 + 0.7 * grey, opacity = 0.85 * Math.min(Math.abs(heat), 1);
  return (heat > 0 ? ORANGE : BLUE).map(part => base + opacity * (part - base));
}

/** Fill a canvas with height×width pixels; `colour(index)` gives each as [red, green, blue]. */
export function paint(canvas, height, width, colour) {
  const image = new ImageData(width, height);
  for (let at = 0; at < height * width; at++) image.data.set([...colour(at), 255], 4 * at);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Show { shape: [height, width, channels], pixels: base64 } as it is. */
export function paintSeen(canvas, seen) {
  const [height, width, channels] = seen.shape, pixels = bytes(seen.pixels);
  paint(canvas, height, width, at =>
    channels === 1 ? Array(3).fill(pixels[at]) : pixels.subarray(3 * at, 3 * at + 3));
}

/** Grey levels of what the network sees, 0 to 255: of colours by the weights of ITU-R 601, rounded as Pillow does. */
export function greys(seen) {
  const pixels = bytes(seen.pixels);
  if (seen.shape[2] === 1) return pixels;
  return Uint8Array.from({ length: pixels.length / 3 }, (_, at) =>
    (19595 * pixels[3 * at] + 38470 * pixels[3 * at + 1] + 7471 * pixels[3 * at + 2] + 0x8000) >> 16);
}

/** A number with at most two decimals, and no more digits than needed. */
export const text = value =>
  Math.abs(value) >= 10000 ? value.toPrecision(2) : String(Math.round(value * 100) / 100 + 0);

/** A share between 0 and 1 in percent. */
export const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
