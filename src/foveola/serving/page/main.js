// The page of a model: an image in; prediction, explanation and filter lab out.

import * as backend from "./backend.js";
import { collection } from "./collection.js";
import { drawing } from "./drawing.js";
import { find } from "./elements.js";
import { explanationView } from "./explanation.js";
import { lab } from "./lab.js";
import { latestOnly } from "./latest.js";
import { predictionView } from "./prediction.js";
import { onUpload, showImage } from "./upload.js";

// Milliseconds without change after which an image is explained
const EXPLAINED_AFTER = 250;

const trouble = text => { find("trouble").textContent = text; };

backend.open().then(start, error => {
  find("model").textContent = "";
  trouble(error.message);
});

function start(model) {
  describe(model);
  // Drawings get all proposed fixes, uploaded images only those selected; grey models always get grey images
  const always = model.image_shape[2] === 1 ? ["grey"] : [];
  const sources = {
    drawing: { fixes: "auto", hint: "Draw something: the prediction changes with every stroke." },
    picture: { fixes: always, file: null, hint: "Drop, paste or choose an image." },
  };
  let source = sources.drawing, prediction = null, timer = null;

  const area = drawing(model, () => refresh());
  sources.drawing.blob = area.blob;
  sources.picture.blob = async () => sources.picture.file;

  const shown = predictionView(model, fixes => {
    source.fixes = fixes === "auto" ? fixes : [...new Set([...always, ...fixes])];
    refresh();
  });
  const explained = explanationView(model, () => explain({ abandon: true }));
  const filters = lab();
  const collected = collection(model, () => source.blob(), backend.keep);

  const refresh = latestOnly(async (signal, superseded) => {
    const blob = await source.blob(), { fixes } = source;
    if (blob === null) return clear();
    const latest = await backend.predict(blob, { fixes, signal });
    signal.throwIfAborted();
    prediction = latest;
    trouble("");
    const shownFixes = latest.fixes.filter(name => !always.includes(name));
    shown.show(latest, fixes, shownFixes);
    filters.show(latest.seen);
    collected.show(latest.class);
    clearTimeout(timer);
    timer = setTimeout(() => explain({ abandon: true }), EXPLAINED_AFTER);
    if (!shownFixes.length || superseded()) return;
    const before = await backend.predict(blob, { fixes: always, signal });
    signal.throwIfAborted();
    shown.showBefore(before);
  }, error => {
    clear();
    trouble(error.message);
  });

  const explain = latestOnly(async signal => {
    const blob = await source.blob();
    if (!explained.open || prediction === null || blob === null) return;
    explained.wait();
    const explanation = await backend.look(blob, { fixes: prediction.fixes, class: explained.chosen, signal });
    signal.throwIfAborted();
    if (prediction !== null) explained.show(explanation);
  }, error => trouble(error.message));

  function clear() {
    prediction = null;
    shown.clear(source);
    explained.clear();
    filters.clear();
    collected.clear();
  }

  /** Show another source, or another image of it, without the results of the one before. */
  function switchTo(name) {
    source = sources[name];
    document.querySelector(`input[name=source][value=${name}]`).checked = true;
    const draws = name === "drawing", given = sources.picture.file !== null;
    find("surface").hidden = find("drawing-tools").hidden = !draws;
    find("given").hidden = draws || !given;
    find("empty").hidden = draws || given;
    restart();
  }

  function restart() {
    trouble("");
    clear();
    explain({ abandon: true });
    refresh({ abandon: true });
  }

  for (const input of document.querySelectorAll("input[name=source]")) {
    input.addEventListener("change", () => switchTo(input.value));
  }
  onUpload(file => {
    Object.assign(sources.picture, { file, fixes: always });
    showImage(file);
    switchTo("picture");
  }, trouble);

  find("clear").addEventListener("click", restart);
  document.addEventListener("keydown", event => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    if (source !== sources.drawing || event.target.matches("input[type=number], input[type=password]")) return;
    event.preventDefault();
    area.undo();
  });

  // Without statistics, the training images are like photographs, which are hard to draw
  switchTo(model.statistics ? "drawing" : "picture");
  find("bench").hidden = false;
}

function describe(model) {
  const [height, width, channels] = model.image_shape, count = model.class_names.length;
  const origin = model.data ? `A model of ${model.data.name}` : "A model";
  const polarity = model.polarity === "mixed" ? "" : `, ${model.polarity}`;
  const colour = channels === 1 ? "grey" : "in colour";
  const kind = model.task === "multilabel" ? "labels, any number an image" : "classes";
  find("model").textContent = `${origin}: ${count} ${kind}, images of ${height}×${width} pixels, ${colour}${polarity}.`;
}
