// The filter lab: a convolution or a pooling of the network's input, position by position.

import { find } from "./elements.js";
import { greys, numberText } from "./pixels.js";
import { KERNELS, arithmetic, convolve, field, matrix, matrixColours, pool, product } from "./sliding.js";

const CUSTOM = "own weights", POOLINGS = { "max pooling": "max", "average pooling": "average" };
// Longer side of a canvas in pixels, values of the largest table, side of the largest window that shows its numbers
const CANVAS_SIDE = 640, MAX_TABLE_VALUES = 4096, MAX_READABLE_SIDE = 5;
const MARK = "#d94f00", PADDING = ["#eeeeee", "#c4c4c4"];

/** The part of the page with the filter lab, for the image shown last. */
export function lab() {
  const part = find("lab"), what = find("lab-what"), size = find("lab-size"), stride = find("lab-stride");
  const padding = find("lab-padding"), slider = find("lab-place"), sum = find("lab-sum");
  let image = null, kernel = null, sliding = null, backgrounds = null;

  what.append(...[...Object.keys(KERNELS), CUSTOM, ...Object.keys(POOLINGS)].map(name => new Option(name)));
  what.addEventListener("change", chosen);
  size.addEventListener("change", resized);
  stride.addEventListener("input", compute);
  padding.addEventListener("change", compute);
  part.addEventListener("toggle", compute);
  find("lab-numbers").addEventListener("toggle", () => showNumbers(sliding));
  slider.addEventListener("input", () => { announce(true); move(Number(slider.value)); });
  follow(find("lab-input"), true);
  follow(find("lab-output"), false);
  part.hidden = false;
  chosen();

  function chosen() {
    if (what.value in KERNELS) takeKernel(KERNELS[what.value]);
    size.disabled = what.value in KERNELS;
    if (size.disabled) size.value = kernel.rows;
    find("lab-weights").hidden = what.value in POOLINGS;
    if (what.value in POOLINGS) stride.value = size.value = 2;
    else if (sliding && !sliding.kernel) stride.value = 1;
    if (what.value === CUSTOM) return resized();
    compute();
  }

  /** Resize the user's own weights: the middle stays, and new weights are 0. */
  function resized() {
    const side = Math.min(Math.max(Math.round(Number(size.value)) || 1, 1), 7);
    size.value = side;
    if (what.value === CUSTOM && kernel.rows !== side) {
      const shift = Math.floor(kernel.rows / 2) - Math.floor(side / 2);
      const inside = index => index >= 0 && index < kernel.rows;
      const weight = (y, x) => inside(y) && inside(x) ? kernel.values[y * kernel.columns + x] : 0;
      const indices = [...Array(side).keys()];
      takeKernel(matrix(indices.map(row => indices.map(column => weight(row + shift, column + shift)))));
    }
    compute();
  }

  function takeKernel(chosenKernel) {
    kernel = { ...chosenKernel, values: [...chosenKernel.values] };
    find("lab-kernel").style.gridTemplateColumns = `repeat(${kernel.columns}, minmax(0, 4.5rem))`;
    find("lab-kernel").replaceChildren(...kernel.values.map((weight, at) => {
      const input = document.createElement("input");
      Object.assign(input, { type: "number", step: "any", value: numberText(weight) });
      const row = Math.floor(at / kernel.columns), column = at % kernel.columns;
      input.setAttribute("aria-label", `weight in row ${row}, column ${column}`);
      input.addEventListener("input", () => {
        kernel.values[at] = input.value === "" ? NaN : Number(input.value);
        what.value = CUSTOM;
        size.disabled = false;
        compute();
      });
      return input;
    }));
  }

  function compute() {
    if (!part.open || image === null) return;
    const before = sliding;
    try {
      sliding = what.value in POOLINGS
        ? pool(image, POOLINGS[what.value], Number(size.value), Number(stride.value), padding.value)
        : convolve(image, filled(kernel), Number(stride.value), padding.value);
    } catch (error) {
      find("lab-trouble").textContent = error.message;
      return;
    }
    find("lab-trouble").textContent = "";
    const { output, window: [high, wide], edges: [top, left, bottom, right] } = sliding;
    backgrounds = [
      [find("lab-input"), drawn(image, sliding.edges)],
      [find("lab-output"), drawn(output, [0, 0, 0, 0])],
    ];
    const added = top + left + bottom + right;
    find("lab-input-caption").textContent = `Input, ${image.rows}×${image.columns}${added ? "; hatched: padding" : ""}`;
    find("lab-window-caption").textContent = `Window, ${high}×${wide}${sliding.kernel ? ": pixel × weight" : ""}`;
    find("lab-output-caption").textContent = `Output, ${output.rows}×${output.columns}`;
    find("lab-input").setAttribute("aria-label", `Input of ${image.rows} by ${image.columns} pixels`);
    find("lab-output").setAttribute("aria-label", `Output of ${output.rows} by ${output.columns} values`);
    slider.max = output.values.length - 1;
    const moved = before?.output.rows !== output.rows || before.output.columns !== output.columns;
    move(moved ? Math.floor(output.rows / 2) * output.columns + Math.floor(output.columns / 2) : Number(slider.value));
    showNumbers(sliding);
  }

  function move(index) {
    const { output, stride, edges: [top, left], window: [high, wide] } = sliding;
    const row = Math.floor(index / output.columns), column = index % output.columns;
    slider.value = index;
    slider.setAttribute("aria-valuetext", `row ${row}, column ${column}`);
    const marks = [[row * stride, column * stride, high, wide], [row, column, 1, 1]];
    backgrounds.forEach(([canvas, background], which) => mark(canvas, background, marks[which]));
    const values = field(sliding, row, column);
    showWindow(sliding, values);
    sum.textContent =
      `Row ${row}, column ${column} (pixels from row ${row * stride - top}, column ${column * stride - left}): `
      + arithmetic(sliding, values, output.values[index]);
  }

  /** Move the middle of the window to the pointer, and the window by the arrow keys. */
  function follow(canvas, overInput) {
    const point = event => {
      if (!sliding) return;
      const box = canvas.getBoundingClientRect(), { output, stride, edges: [top, left, bottom, right] } = sliding;
      const [high, wide] = overInput ? sliding.window : [1, 1], step = overInput ? stride : 1;
      const rows = overInput ? top + image.rows + bottom : output.rows;
      const columns = overInput ? left + image.columns + right : output.columns;
      const y = (event.clientY - box.top) / box.height * rows, x = (event.clientX - box.left) / box.width * columns;
      announce(false);
      go(Math.round((y - high / 2) / step), Math.round((x - wide / 2) / step));
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("keydown", event => {
      const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!by || !sliding) return;
      event.preventDefault();
      announce(true);
      const { columns } = sliding.output, index = Number(slider.value);
      go(Math.floor(index / columns) + by[0], index % columns + by[1]);
    });
  }

  function go(row, column) {
    const { rows, columns } = sliding.output;
    move(Math.min(Math.max(row, 0), rows - 1) * columns + Math.min(Math.max(column, 0), columns - 1));
  }

  /** Screen readers announce every step from the keyboard, but not the many of a pointer. */
  const announce = aloud => sum.setAttribute("aria-live", aloud ? "polite" : "off");

  return {
    /** Show the network's input, { shape, pixels }. */
    show(seen) {
      image = { rows: seen.shape[0], columns: seen.shape[1], values: Array.from(greys(seen), level => level / 255) };
      find("lab-hint").hidden = true;
      find("lab-shown").hidden = false;
      compute();
    },
    clear() {
      image = sliding = null;
      find("lab-hint").hidden = false;
      find("lab-shown").hidden = true;
    },
  };
}

/** The kernel; throws an Error if the user has left a field empty. */
function filled(kernel) {
  if (kernel.values.some(Number.isNaN)) throw new Error("A weight is not a number. Enter a number in every field.");
  return kernel;
}

/** A matrix as a canvas, a square for each value, with hatched padding. */
function drawn({ rows, columns, values }, [top, left, bottom, right]) {
  const down = top + rows + bottom, across = left + columns + right;
  const side = Math.max(Math.floor(CANVAS_SIDE / Math.max(down, across)), 1), canvas = document.createElement("canvas");
  canvas.width = across * side;
  canvas.height = down * side;
  const context = canvas.getContext("2d");
  context.fillStyle = PADDING[0];
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = PADDING[1];
  context.lineWidth = 3;
  context.beginPath();
  for (let at = -canvas.height; at < canvas.width; at += 9) {
    context.moveTo(at, canvas.height);
    context.lineTo(at + canvas.height, 0);
  }
  context.stroke();
  const colour = matrixColours({ values });
  values.forEach((value, at) => {
    context.fillStyle = `rgb(${colour(value).map(Math.round)})`;
    context.fillRect((left + at % columns) * side, (top + Math.floor(at / columns)) * side, side, side);
  });
  return { canvas, side };
}

function mark(canvas, { canvas: background, side }, [row, column, high, wide]) {
  canvas.width = background.width;
  canvas.height = background.height;
  const context = canvas.getContext("2d");
  context.drawImage(background, 0, 0);
  for (const [width, colour] of [[7, "#ffffff"], [4, MARK]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(column * side, row * side, wide * side, high * side);
  }
}

/** The window's pixels, each with its weight and their product. */
function showWindow({ kernel, window: [high, wide] }, values) {
  const grid = find("lab-window"), readable = Math.max(high, wide) <= MAX_READABLE_SIDE;
  grid.style.gridTemplateColumns = `repeat(${wide}, 1fr)`;
  grid.style.setProperty("--columns", wide);
  grid.replaceChildren(...values.map((value, at) => {
    const cell = document.createElement("span"), level = Math.round(255 * (value ?? 0));
    if (value === undefined) cell.className = "padding";
    else {
      cell.style.backgroundColor = `rgb(${level}, ${level}, ${level})`;
      cell.style.color = level < 128 ? "#fff" : "#000";
    }
    if (readable && kernel) {
      cell.appendChild(document.createElement("b")).textContent = numberText((value ?? 0) * kernel.values[at]);
      cell.append(product(value ?? 0, kernel.values[at]));
    } else if (readable && value !== undefined) cell.textContent = numberText(value);
    return cell;
  }));
}

function showNumbers(sliding) {
  const part = find("lab-numbers");
  if (!part.open || !sliding) return;
  const { rows, columns, values } = sliding.output, table = part.querySelector("table");
  if (values.length > MAX_TABLE_VALUES) {
    table.tHead.replaceChildren();
    const words = `The output has too many values for a table, ${values.length}. Choose a larger stride.`;
    table.tBodies[0].replaceChildren(line([words]));
    return;
  }
  table.tHead.replaceChildren(line(["row", ...Array(columns).keys()], "col"));
  table.tBodies[0].replaceChildren(...Array.from({ length: rows }, (_, row) =>
    line([row, ...values.slice(row * columns, (row + 1) * columns).map(numberText)])));
}

function line(cells, scope = "row") {
  const row = document.createElement("tr");
  row.append(...cells.map((content, place) => {
    const cell = document.createElement(scope === "col" || place === 0 ? "th" : "td");
    if (cell.tagName === "TH") cell.scope = scope;
    if (place > 0) cell.className = "number";
    cell.textContent = content;
    return cell;
  }));
  return row;
}
