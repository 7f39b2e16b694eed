// The explanation of a prediction: an occlusion map, and the output of each layer.

import { find } from "./elements.js";
import { bytes, colours, greys, numberText, overlaid, paint } from "./pixels.js";

// Longer vectors are drawn as a strip, in rows of ROW values
const MAX_LABELLED_VALUES = 32, ROW = 64;

/** The part of the page with the explanation; `request()` is called when the user opens it or chooses another class. */
export function explanationView(model, request) {
  const part = find("inside"), choice = find("saliency-class"), hint = find("inside-hint").textContent;
  let explanation = null, layer = null;

  choice.append(new Option("the predicted class", ""), ...model.class_names.map(name => new Option(name)));
  choice.addEventListener("change", request);
  part.addEventListener("toggle", () => { if (part.open) request(); });
  part.hidden = false;

  function offerLayers() {
    const names = explanation.layers.map(each => each.name);
    if (!names.includes(layer)) layer = names[0];
    const boxes = [...find("layers").querySelectorAll("input")];
    if (boxes.map(box => box.value).join() === names.join()) return;
    find("layers").replaceChildren(find("layers").firstElementChild, ...explanation.layers.map(chip));
  }

  function chip({ name, type }) {
    const label = document.createElement("label"), words = document.createElement("span");
    const box = Object.assign(document.createElement("input"), { type: "radio", name: "layer", value: name });
    box.checked = name === layer;
    box.addEventListener("change", () => { layer = name; showLayer(model, explanation, layer); });
    words.append(name, ` ${shapeOf(model, name).join("×")}`);
    label.title = type;
    label.append(box, words);
    return label;
  }

  return {
    /** Whether this part of the page is open. */
    get open() { return part.open; },
    /** The class to explain; undefined for the predicted one. */
    get chosen() { return choice.value || undefined; },
    /** An explanation is being computed. */
    wait() { find("inside-hint").textContent = "Computing the explanation."; },
    show(document) {
      explanation = document;
      find("inside-hint").hidden = true;
      find("inside-shown").hidden = false;
      showSaliency(explanation);
      offerLayers();
      if (layer !== undefined) showLayer(model, explanation, layer);
    },
    clear() {
      find("inside-hint").textContent = hint;
      find("inside-hint").hidden = false;
      find("inside-shown").hidden = true;
    },
  };
}

function showSaliency({ seen, saliency, class: name }) {
  const [height, width] = saliency.shape, grey = greys(seen), drop = decoded(saliency);
  const highest = Math.max(Math.abs(saliency.low), Math.abs(saliency.high)) || 1;
  paint(find("saliency"), height, width, at => overlaid(grey[at], drop[at] / highest));
  const description = `Covering a pixel changes the probability of ${name} by ${points(-saliency.high, -saliency.low)}`;
  const { row, column } = maximum(drop, width);
  find("saliency-said").textContent = `${description}.`;
  find("saliency").setAttribute("aria-label",
    `${description}.${saliency.high > 0 ? ` The evidence for it is strongest at row ${row}, column ${column}.` : ""}`);
}

/** The range of changes, fractions from `lowest` to `highest`, in points. */
function points(lowest, highest) {
  if (Math.max(-lowest, highest) < 0.0001) return "less than 0.01 points";
  return [lowest, highest].map(change =>
    `${change > 0 ? "+" : change < 0 ? "−" : ""}${numberText(100 * Math.abs(change))}`).join(" to ") + " points";
}

function showLayer(model, { layers }, name) {
  const layer = layers.find(each => each.name === name);
  const [height, width] = layer.shape, all = decoded(layer), colour = colours(layer.low, layer.high);
  const range = `Values from ${numberText(layer.low)} to ${numberText(layer.high)}: `
    + (layer.low < 0 ? "0 is white, positive values are orange, negative blue." : "0 is black, the maximum white.");
  if (layer.shape.length === 1) {
    find("layer-said").textContent = range;
    find("maps").replaceChildren(...vector(model, layers, layer, all, colour));
    return;
  }
  const count = all.length / (height * width), [, , channels] = shapeOf(model, name);
  find("layer-said").textContent = `${range}${channels > count ? ` The first ${count} of ${channels} maps.` : ""}`;
  find("maps").replaceChildren(...Array.from({ length: count }, (_, channel) => {
    const map = all.filter((_, at) => at % count === channel), { row, column, value } = maximum(map, width);
    const canvas = document.createElement("canvas");
    paint(canvas, height, width, at => colour(map[at]));
    return tile(canvas, channel, `Map ${channel} of ${name}, ${height} by ${width}; `
      + `maximum ${numberText(value)}, at row ${row}, column ${column}`);
  }));
}

/** A short vector, or the network's output, as labelled values; a long one as a strip. */
function vector(model, layers, layer, all, colour) {
  const names = layer === layers.at(-1) && all.length === model.class_names.length ? model.class_names : null;
  if (all.length <= MAX_LABELLED_VALUES || names) {
    return Array.from(all, (value, unit) => {
      const canvas = document.createElement("canvas");
      paint(canvas, 1, 1, () => colour(value));
      const caption = `${names ? names[unit] : unit}: ${numberText(value)}`;
      return tile(canvas, caption, names ? caption : `Value ${caption}`);
    });
  }
  const canvas = document.createElement("canvas"), { row, value } = maximum(all, 1);
  paint(canvas, Math.ceil(all.length / ROW), ROW, at => at < all.length ? colour(all[at]) : [136, 136, 136]);
  const figure = tile(canvas, `${all.length} values, row by row`,
    `${all.length} values of ${layer.name}; maximum ${numberText(value)}, at ${row}`);
  figure.className = "strip";
  return [figure];
}

function tile(canvas, caption, description) {
  const figure = document.createElement("figure"), words = document.createElement("figcaption");
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", description);
  words.textContent = caption;
  words.setAttribute("aria-hidden", "true");
  figure.append(canvas, words);
  return figure;
}

/** The numbers of { low, high, values }, whose bytes are 0 for low and 255 for high. */
function decoded({ low, high, values: encoded }) {
  return Float64Array.from(bytes(encoded), level => low + (high - low) * level / 255);
}

/** Row, column and value of the maximum of values in rows of `width`. */
function maximum(all, width) {
  const at = all.reduce((best, value, index) => value > all[best] ? index : best, 0);
  return { row: Math.floor(at / width), column: at % width, value: all[at] };
}

const shapeOf = (model, name) => model.layers.find(each => each.name === name).shape;
