// The page of a model: a picture goes in, what the model says of it comes out, and is shown part by part.

import * as backend from "./backend.js";
import { answers } from "./answers.js";
import { drawing } from "./drawing.js";
import { keeping } from "./keeping.js";
import { lab } from "./lab.js";
import { looking } from "./looking.js";
import { newestWins } from "./newest.js";
import { pictures, showPicture } from "./picture.js";

// The network is looked into when a picture has been left alone for so long, in milliseconds
const SETTLED = 250;

const find = id => document.getElementById(id);
const trouble = text => { find("trouble").textContent = text; };

backend.open().then(start, error => {
  find("model").textContent = "";
  trouble(error.message);
});

function start(model) {
  describe(model);
  // Drawings are mended at once, pictures only where the user says so; a grey model gets grey ones either way
  const always = model.image_shape[2] === 1 ? ["grey"] : [];
  const sources = {
    drawing: { fixes: "auto", hint: "Draw something: the answer changes with every stroke." },
    picture: { fixes: always, file: null, hint: "Drop, paste or choose a picture." },
  };
  let source = sources.drawing, answered = null, settled = null;

  const area = drawing(model, () => refresh());
  sources.drawing.blob = area.blob;
  sources.picture.blob = async () => sources.picture.file;

  const shown = answers(model, fixes => {
    source.fixes = fixes === "auto" ? fixes : [...new Set([...always, ...fixes])];
    refresh();
  });
  const inside = looking(model, () => look({ abandon: true }));
  const filters = lab();
  const keeper = keeping(model, () => source.blob(), backend.keep);

  const refresh = newestWins(async (signal, superseded) => {
    const blob = await source.blob(), { fixes } = source;
    if (blob === null) return clear();
    const answer = await backend.predict(blob, { fixes, signal });
    signal.throwIfAborted();
    answered = answer;
    trouble("");
    const mended = answer.fixes.filter(name => !always.includes(name));
    shown.show(answer, fixes, mended);
    filters.show(answer.seen);
    keeper.show(answer.class);
    clearTimeout(settled);
    settled = setTimeout(() => look({ abandon: true }), SETTLED);
    if (!mended.length || superseded()) return;
    const before = await backend.predict(blob, { fixes: always, signal });
    signal.throwIfAborted();
    shown.showBefore(before);
  }, error => {
    clear();
    trouble(error.message);
  });

  const look = newestWins(async signal => {
    const blob = await source.blob();
    if (!inside.open || answered === null || blob === null) return;
    const found = await backend.look(blob, { fixes: answered.fixes, class: inside.chosen, signal });
    signal.throwIfAborted();
    if (answered !== null) inside.show(found);
  }, error => trouble(error.message));

  function clear() {
    answered = null;
    shown.clear(source);
    inside.clear();
    filters.clear();
    keeper.clear();
  }

  /** Show another source, or another picture of it: what is known of the one before is forgotten. */
  function turnTo(name) {
    source = sources[name];
    document.querySelector(`input[name=source][value=${name}]`).checked = true;
    const drawn = name === "drawing", given = sources.picture.file !== null;
    find("surface").hidden = find("drawing-tools").hidden = !drawn;
    find("given").hidden = drawn || !given;
    find("empty").hidden = drawn || given;
    restart();
  }

  function restart() {
    trouble("");
    clear();
    look({ abandon: true });
    refresh({ abandon: true });
  }

  for (const input of document.querySelectorAll("input[name=source]")) {
    input.addEventListener("change", () => turnTo(input.value));
  }
  pictures(file => {
    Object.assign(sources.picture, { file, fixes: always });
    showPicture(file);
    turnTo("picture");
  }, trouble);

  find("undo").addEventListener("click", area.undo);
  find("clear").addEventListener("click", () => {
    area.clear();
    restart();
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    if (source !== sources.drawing || event.target.matches("input[type=number], input[type=password]")) return;
    event.preventDefault();
    area.undo();
  });

  // Photographs are hard to draw
  turnTo(model.statistics ? "drawing" : "picture");
  find("bench").hidden = false;
}

function describe(model) {
  const [height, width, channels] = model.image_shape, count = model.class_names.length;
  const learnt = model.data ? `A model of ${model.data.name}` : "A model";
  const polarity = model.polarity === "mixed" ? "" : `, ${model.polarity}`;
  const colour = channels === 1 ? "grey" : "in colour";
  find("model").textContent = `${learnt}: ${count} classes, images of ${height}×${width} pixels, ${colour}${polarity}.`;
}
