// The learning curves of a training: accuracy after each epoch.

import { counted, find } from "./elements.js";
import { percent } from "./pixels.js";

const WIDTH = 320, HEIGHT = 150, LEFT = 42, RIGHT = 6, TOP = 8, BOTTOM = 22;

/** Draw accuracies of epochs, each { epoch, accuracy, val_accuracy }; what is null is left out. */
export function drawCurves(all) {
  const history = all.filter(({ epoch }) => epoch > 0); // 0 is before the first step
  find("curves").hidden = history.length === 0;
  if (!history.length) return;
  const last = history.at(-1), end = Math.max(last.epoch, 2);
  const x = epoch => LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / (end - 1);
  const y = fraction => TOP + (HEIGHT - TOP - BOTTOM) * (1 - fraction);
  const lines = [0, 0.5, 1].flatMap(fraction => [
    part("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(fraction), y2: y(fraction), class: "line" }),
    part("text", { x: LEFT - 5, y: y(fraction) + 4, class: "label end" }, `${100 * fraction} %`),
  ]);
  const labels = [
    part("text", { x: LEFT, y: HEIGHT - 6, class: "label" }, "pass 1"),
    part("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, class: "label end" }, String(end)),
  ];
  const curves = [["accuracy", "learnt"], ["val_accuracy", "held"]].flatMap(([name, kind]) => {
    const known = history.filter(row => row[name] !== null && row[name] !== undefined);
    const points = known.map(row => `${x(row.epoch).toFixed(1)},${y(row[name]).toFixed(1)}`);
    if (!points.length) return [];
    const [cx, cy] = points.at(-1).split(",");
    return [part("polyline", { points: points.join(" "), class: kind }), part("circle", { cx, cy, r: 3, class: kind })];
  });
  find("curve").replaceChildren(...lines, ...labels, ...curves);
  const text = said(last), passes = counted(last.epoch, "pass over the images", "passes over the images");
  find("curve").setAttribute("aria-label", `Right answers after ${passes}: ${text}`);
  find("curves-said").textContent = `After ${passes}: ${text}.`;
}

function said({ accuracy, val_accuracy: held }) {
  return [held !== null && held !== undefined && `${percent(held)} of the images set aside`,
    accuracy !== null && accuracy !== undefined && `${percent(accuracy)} of the training images`].filter(Boolean).join(", ");
}

function part(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}
