// The drawing area and its tools: pointer events in, PNG out.

import { button, element } from "./elements.js";

// The longer side of the drawing in pixels; a model's images are much smaller
const SIDE = 420;
const LABEL = "Drawing area, for mouse, finger or pen. With the keyboard, choose or paste an image instead.";
const COLOURS = {
  black: "#000000", white: "#ffffff", grey: "#808080", brown: "#7a4a21", red: "#d62728", orange: "#ff8c1a",
  yellow: "#f7d71e", green: "#2a9d3a", blue: "#1f5fd0", violet: "#8a3fc0",
};

/** The drawing area of a model's page; `changed()` is called after every change.
 *
 * Strokes are light on dark if the training images are, otherwise dark on light, and as wide as in the training images.
 * Points and width of a stroke are fractions of the drawing's width, independent of the screen. `blob()` is a PNG, or
 * null while nothing is drawn. The canvas is made in the element with the id `surface`, the tools in `drawing-tools`.
 * All ids begin with `prefix`, so that a page can have several drawing areas.
 */
export function drawing(model, changed, prefix = "") {
  const canvas = element("canvas"), hint = Object.assign(element("p", "Draw here", "hint"), { ariaHidden: "true" });
  Object.assign(canvas, { id: `${prefix}drawing`, role: "img", ariaLabel: LABEL });
  document.getElementById(`${prefix}surface`).replaceChildren(canvas, hint);
  const stroke = Object.assign(element("input"), { id: `${prefix}stroke`, type: "range", min: 1, max: 20, step: 0.5 });
  const [height, width, channels] = model.image_shape;
  canvas.width = Math.round(SIDE * Math.min(width / height, 1));
  canvas.height = Math.round(SIDE * Math.min(height / width, 1));
  const context = canvas.getContext("2d");
  context.lineCap = context.lineJoin = "round";
  const light = model.polarity === "light on dark";
  const paper = light ? "#000000" : "#ffffff";
  let colour = light ? "#ffffff" : "#000000";
  // All states of the drawing; the last one is shown. Clearing adds an empty state, so it can be undone
  let states = [[]];
  let current = null, pointer = null;

  stroke.value = 100 * usualWidth(model.statistics);
  const slider = element("label", "Stroke ", "slider");
  slider.append(stroke);
  document.getElementById(`${prefix}drawing-tools`).append(
    Object.assign(button("Undo stroke", undo), { id: `${prefix}undo` }),
    Object.assign(button("Clear", clear), { id: `${prefix}clear` }), slider,
    ...(channels === 3 ? [colourChoice(`${prefix}colours`, colour, chosen => { colour = chosen; })] : []));

  const drawn = () => current ? [...states.at(-1), current] : states.at(-1);

  function render() {
    context.fillStyle = paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
    drawn().forEach(renderStroke);
    hint.hidden = drawn().length > 0;
  }

  function renderStroke({ colour, width, points }) {
    context.strokeStyle = colour;
    points.forEach(({ x, y, pressure }, index) => {
      const before = points[Math.max(index - 1, 0)];
      context.lineWidth = canvas.width * width * pressure;
      context.beginPath();
      context.moveTo(canvas.width * before.x, canvas.width * before.y);
      context.lineTo(canvas.width * x + 0.01, canvas.width * y); // a line of length 0 is not drawn
      context.stroke();
    });
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    // Mice report 0.5; the pressure of fingers differs between phones
    const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.4 + 1.2 * event.pressure : 1;
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.width, pressure };
  }

  canvas.addEventListener("pointerdown", event => {
    if (pointer !== null || event.button !== 0) return;
    event.preventDefault();
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    current = { colour, width: stroke.value / 100, points: [point(event)] };
    update();
  });
  canvas.addEventListener("pointermove", event => {
    if (event.pointerId !== pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    current.points.push(...(passed.length ? passed : [event]).map(point));
    update();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, event => {
      if (event.pointerId !== pointer) return;
      states.push(drawn());
      current = pointer = null;
    });
  }

  function update() {
    render();
    changed();
  }

  function undo() {
    if (states.length > 1) states.pop();
    update();
  }

  function clear() {
    if (states.at(-1).length) states.push([]);
    update();
  }

  render();
  return {
    blob: () => drawn().length ? new Promise(resolve => canvas.toBlob(resolve, "image/png")) : Promise.resolve(null),
    undo,
    clear,
  };
}

/** The stroke width as a fraction of the drawing, for a foreground as large as in the training images. */
function usualWidth(statistics) {
  if (!statistics) return 0.04;
  return Math.min(Math.max(statistics.stroke.middle * statistics.size.middle, 0.02), 0.2);
}

function colourChoice(id, first, choose) {
  const group = Object.assign(element("fieldset", "", "colours"), { id });
  group.append(element("legend", "Colour of the stroke", "unseen"));
  for (const [name, colour] of Object.entries(COLOURS)) {
    const label = group.appendChild(document.createElement("label"));
    const button = Object.assign(document.createElement("input"), { type: "radio", name: id, value: colour });
    button.checked = colour === first;
    button.setAttribute("aria-label", name);
    button.style.backgroundColor = colour;
    button.addEventListener("change", () => choose(colour));
    label.append(button);
    label.title = name;
  }
  return group;
}
