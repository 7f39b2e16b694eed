// The latest model, tried: by camera, file or drawing; after a wrong answer, the image is added to its right class.

import * as backend from "./backend.js";
import { cameraView, meter } from "./camera.js";
import { drawing } from "./drawing.js";
import { button, element, find } from "./elements.js";
import { explanationView } from "./explanation.js";
import { latestOnly } from "./latest.js";
import { attempt, trouble } from "./messages.js";
import { predictionView } from "./prediction.js";
import { change } from "./project.js";
import { showImage } from "./upload.js";

// Milliseconds between two answers to the camera, without change until an image is explained, and after a failure
const BETWEEN_ANSWERS = 70, EXPLAINED_AFTER = 250, AFTER_FAILURE = 1500;

/** The part of the page that tries the model; gives the function that is told of the project's changes. */
export function trialView() {
  let shown = null, bench = null, source = "picture";
  const pick = event => {
    const [file] = event.dataTransfer?.files ?? event.clipboardData.files;
    if (!bench || !event.target.closest?.("#try") || !file) return;
    event.preventDefault();
    bench.give(file);
  };
  document.addEventListener("drop", pick);
  document.addEventListener("paste", pick);

  async function renew() {
    const model = await backend.open();
    source = bench?.source ?? source;
    bench?.end();
    find("trial").replaceChildren(find("trial-template").content.cloneNode(true));
    bench = makeBench(model);
    bench.switchTo(source);
  }

  return async ({ model, classes }) => {
    const identity = model && `${model.run} ${model.trained}`;
    find("model").textContent = model ? describe(model) : "Train a model first, then try it here.";
    if (identity !== shown) {
      shown = identity;
      if (model) await attempt(renew);
      else find("trial").replaceChildren();
    }
    if (model) bench?.offer(classes.map(({ name }) => name));
  };
}

function describe({ run, classes, trained }) {
  const when = new Date(trained).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  return `${run}, trained ${when}: ${classes.length} classes.`;
}

/** The elements of the template, with a model. */
function makeBench(model) {
  // Drawings get all proposed fixes; grey models always get grey images
  const always = model.image_shape[2] === 1 ? ["grey"] : [];
  const hints = {
    camera: "Show something to the camera.", picture: "Drop or choose an image.", drawing: "Draw something.",
  };
  let source = "picture", fixes = always, file = null, prediction = null, predicted = null, timer = null;
  let round = 0, failed = false;

  const area = drawing(model, () => refresh());
  const camera = cameraView(find("try-video"), trouble);
  const blobs = { camera: async () => camera.ready ? camera.frame() : null, picture: async () => file, drawing: area.blob };
  const view = predictionView(model, chosen => {
    fixes = chosen === "auto" ? chosen : [...new Set([...always, ...chosen])];
    refresh();
  });
  const explained = explanationView(model, () => explain({ abandon: true }));
  const correct = corrections(() => predicted);

  const refresh = latestOnly(async (signal, superseded) => {
    const blob = await blobs[source]();
    if (blob === null) return clear();
    const latest = await backend.predict(blob, { fixes, signal });
    signal.throwIfAborted();
    if (failed) trouble("");
    [prediction, predicted, failed] = [latest, blob, false];
    const applied = latest.fixes.filter(name => !always.includes(name));
    view.show(latest, fixes, applied);
    correct.show();
    clearTimeout(timer);
    if (source === "camera") explain();
    else timer = setTimeout(() => explain({ abandon: true }), EXPLAINED_AFTER);
    if (!applied.length || superseded() || !find("sight").open) return;
    const before = await backend.predict(blob, { fixes: always, signal });
    signal.throwIfAborted();
    view.showBefore(before);
  }, error => {
    failed = true;
    clear();
    trouble(error.message);
  });

  const explain = latestOnly(async signal => {
    if (!explained.open || prediction === null) return;
    explained.wait();
    const explanation = await backend.look(predicted, { fixes: prediction.fixes, class: explained.chosen, signal });
    signal.throwIfAborted();
    if (prediction !== null) explained.show(explanation);
  }, error => trouble(error.message));

  function clear() {
    prediction = predicted = null;
    view.clear({ hint: hints[source], fixes });
    explained.clear();
    correct.clear();
  }

  /** Predict what the camera sees, again and again, until this is called once more or the source is another. */
  async function live() {
    const present = round += 1, rate = meter();
    while (present === round) {
      const next = performance.now() + BETWEEN_ANSWERS;
      if (camera.ready && !document.hidden) {
        await refresh();
        if (present === round) find("answers").textContent = `${rate().toFixed(1)} answers a second`;
      }
      const wait = failed ? AFTER_FAILURE : Math.max(next - performance.now(), 0);
      await new Promise(resolve => setTimeout(resolve, wait));
    }
  }

  function pause(paused) {
    find("pause").setAttribute("aria-pressed", String(paused));
    round += 1;
    if (paused) find("try-video").pause();
    else {
      find("try-video").play().catch(() => {});
      live();
    }
  }

  /** Show another source, or another image of it, without the results of the one before. */
  function switchTo(name) {
    source = name;
    round += 1;
    fixes = name === "drawing" ? "auto" : always;
    document.querySelector(`input[name=source][value=${name}]`).checked = true;
    find("live").hidden = find("live-tools").hidden = name !== "camera";
    find("surface").hidden = find("drawing-tools").hidden = name !== "drawing";
    find("picture-tools").hidden = name !== "picture";
    find("given").hidden = name !== "picture" || file === null;
    find("empty").hidden = name !== "picture" || file !== null;
    clear();
    if (name === "camera") camera.start().then(() => { if (source === "camera") pause(false); });
    else camera.stop();
    refresh({ abandon: true });
  }

  function give(chosen) {
    file = chosen;
    showImage(file);
    switchTo("picture");
  }

  for (const input of document.querySelectorAll("input[name=source]")) {
    input.addEventListener("change", () => switchTo(input.value));
  }
  find("file").addEventListener("change", ({ target }) => {
    if (target.files.length) give(target.files[0]);
    target.value = ""; // allows the same file to be chosen again
  });
  find("pause").addEventListener("click", () => pause(find("pause").getAttribute("aria-pressed") === "false"));
  return {
    get source() { return source; },
    switchTo,
    give,
    offer: correct.offer,
    end() {
      round += 1;
      clearTimeout(timer);
      camera.stop();
    },
  };
}

/** The buttons that add an image to its right class; `image()` is the one that was predicted last. */
function corrections(image) {
  let kept = null, offered = "";

  const keep = label => attempt(async () => {
    const blob = image();
    const headers = { "Content-Type": blob.type || "application/octet-stream" };
    const parameters = new URLSearchParams({ class: label });
    const { id, copy } = await backend.request(`project/pictures?${parameters}`, { method: "POST", headers, body: blob });
    kept = copy ? null : id;
    find("corrected").textContent = copy ? `This image is in ${copy.class} already.`
      : `Added to ${label}. The next training uses it.`;
    find("take-back").hidden = kept === null;
  });

  find("take-back").addEventListener("click", () => attempt(async () => {
    await change("pictures/delete", { ids: [kept] });
    kept = null;
    find("take-back").hidden = true;
    find("corrected").textContent = "Taken back.";
  }));

  return {
    offer(names) {
      if (names.join("\n") === offered) return;
      offered = names.join("\n");
      const buttons = names.map(name => button(name, () => keep(name), `Add the image to ${name}`));
      find("correct-classes").replaceChildren(...buttons);
    },
    show() { find("correct").hidden = false; },
    clear() {
      find("correct").hidden = true;
      find("corrected").replaceChildren(element("span"));
      find("take-back").hidden = true;
    },
  };
}
