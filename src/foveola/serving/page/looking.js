// Inside the network, for this very picture: which pixels decide, and what each layer makes of it.

import { bytes, colours, greys, overlaid, paint, text } from "./pixels.js";

// Vectors of more values than this are drawn in rows of so many
const NAMED_VALUES = 32, ROW = 64;

const find = id => document.getElementById(id);

/** The part of the page that looks inside; `ask()` is called when the user opens it or chooses another class. */
export function looking(model, ask) {
  const part = find("inside"), choice = find("saliency-class");
  let found = null, layer = null;

  choice.append(new Option("the answer", ""), ...model.class_names.map(name => new Option(name)));
  choice.addEventListener("change", ask);
  part.addEventListener("toggle", () => { if (part.open) ask(); });
  part.hidden = false;

  function offerLayers() {
    const names = found.layers.map(each => each.name);
    if (!names.includes(layer)) layer = names[0];
    const boxes = [...find("layers").querySelectorAll("input")];
    if (boxes.map(box => box.value).join() === names.join()) return;
    find("layers").replaceChildren(find("layers").firstElementChild, ...found.layers.map(chip));
  }

  function chip({ name, type }) {
    const label = document.createElement("label"), words = document.createElement("span");
    const box = Object.assign(document.createElement("input"), { type: "radio", name: "layer", value: name });
    box.checked = name === layer;
    box.addEventListener("change", () => { layer = name; showLayer(model, found, layer); });
    words.append(name, ` ${shapeOf(model, name).join("×")}`);
    label.title = type;
    label.append(box, words);
    return label;
  }

  return {
    /** Whether anybody looks. */
    get open() { return part.open; },
    /** The class that is asked about; undefined for the predicted one. */
    get chosen() { return choice.value || undefined; },
    show(document) {
      found = document;
      find("inside-hint").hidden = true;
      find("inside-shown").hidden = false;
      showSaliency(found);
      offerLayers();
      if (layer !== undefined) showLayer(model, found, layer);
    },
    clear() {
      find("inside-hint").hidden = false;
      find("inside-shown").hidden = true;
    },
  };
}

function showSaliency({ seen, saliency, class: name }) {
  const [height, width] = saliency.shape, grey = greys(seen), drop = values(saliency);
  const highest = Math.max(Math.abs(saliency.low), Math.abs(saliency.high)) || 1;
  paint(find("saliency"), height, width, at => overlaid(grey[at], drop[at] / highest));
  const said = `Covering a square lowers the probability of ${name} by at most ${points(saliency.high)}`
    + (saliency.low < 0 ? `, and raises it by at most ${points(-saliency.low)}` : "");
  const { row, column } = place(drop, width);
  find("saliency-said").textContent = `${said}.`;
  find("saliency").setAttribute("aria-label", `${said}; it matters most at row ${row}, column ${column}.`);
}

const points = share => `${text(100 * Math.max(share, 0))} points`;

function showLayer(model, { layers }, name) {
  const layer = layers.find(each => each.name === name);
  const [height, width] = layer.shape, all = values(layer), colour = colours(layer.low, layer.high);
  const range = `Values from ${text(layer.low)} to ${text(layer.high)}: `
    + (layer.low < 0 ? "0 is white, more is orange, less is blue." : "0 is black, the highest is white.");
  if (layer.shape.length === 1) {
    find("layer-said").textContent = range;
    find("maps").replaceChildren(...vector(model, layers, layer, all, colour));
    return;
  }
  const count = all.length / (height * width), [, , channels] = shapeOf(model, name);
  find("layer-said").textContent = `${range}${channels > count ? ` The first ${count} of ${channels} maps.` : ""}`;
  find("maps").replaceChildren(...Array.from({ length: count }, (_, channel) => {
    const map = all.filter((_, at) => at % count === channel), { row, column, value } = place(map, width);
    const canvas = document.createElement("canvas");
    paint(canvas, height, width, at => colour(map[at]));
    return tile(canvas, channel, `Map ${channel} of ${name}, ${height} by ${width}; `
      + `highest, ${text(value)}, at row ${row}, column ${column}`);
  }));
}

/** Few values each with its name, the network's last ones by class; many as a strip. */
function vector(model, layers, layer, all, colour) {
  const names = layer === layers.at(-1) && all.length === model.class_names.length ? model.class_names : null;
  if (all.length <= NAMED_VALUES || names) {
    return Array.from(all, (value, unit) => {
      const canvas = document.createElement("canvas");
      paint(canvas, 1, 1, () => colour(value));
      const caption = `${names ? names[unit] : unit}: ${text(value)}`;
      return tile(canvas, caption, names ? caption : `Value ${caption}`);
    });
  }
  const canvas = document.createElement("canvas"), { row, value } = place(all, 1);
  paint(canvas, Math.ceil(all.length / ROW), ROW, at => at < all.length ? colour(all[at]) : [136, 136, 136]);
  const figure = tile(canvas, `${all.length} values, row by row`,
    `${all.length} values of ${layer.name}; highest, ${text(value)}, at ${row}`);
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

/** What stands for the bytes of { low, high, values }: 0 is low, 255 is high. */
function values({ low, high, values: encoded }) {
  return Float64Array.from(bytes(encoded), level => low + (high - low) * level / 255);
}

/** Where the highest of some values in rows of `width` stands, and what it is. */
function place(all, width) {
  const at = all.reduce((best, value, index) => value > all[best] ? index : best, 0);
  return { row: Math.floor(at / width), column: at % width, value: all[at] };
}

const shapeOf = (model, name) => model.layers.find(each => each.name === name).shape;
