// Images of the chosen class from files, camera or drawing; what became of them is counted.

import { open } from "./backend.js";
import { cameras, cameraView, meter, useCamera } from "./camera.js";
import { drawing } from "./drawing.js";
import { counted, element, find } from "./elements.js";
import { intake } from "./intake.js";
import { attempt, say, trouble } from "./messages.js";
import { currentProject } from "./project.js";
import { uploads } from "./uploads.js";

const FRAME_MILLISECONDS = 100; // between two frames of a recording
const MAX_WAITING = 12; // frames that may wait for the server while more are recorded
const MAX_NOTES = 50;
// The drawing area of a project without a model
const ANY_MODEL = { image_shape: [1, 1, 3], polarity: "dark on light", statistics: null };

/** The sources of images; `classes` is the part of the page with the classes, `names()` are theirs.
 *
 * `sending()` is called when images are added to the chosen class.
 */
export function collecting(classes, names, sending) {
  const queue = uploads(showBatch);
  const send = (blobs, more) => {
    const label = classes.required();
    if (label === null) return false;
    sending();
    queue.add(blobs.map((blob, at) => ({ blob, name: blob.name ?? `Image ${at + 1}`, class: label, ...more })));
    return true;
  };

  intake({
    classes: names,
    taken: send,
    imported: groups => attempt(async () => {
      for (const { label, isNew, files } of groups) {
        if (isNew) await classes.create(label);
        queue.add(files.map(blob => ({ blob, name: blob.name, class: label })));
      }
    }),
  });
  const camera = recorder(send, queue);
  const draw = drawingTools(send);
  for (const input of document.querySelectorAll("input[name=collect-source]")) {
    input.addEventListener("change", () => {
      for (const source of ["files", "camera", "drawing"]) find(`from-${source}`).hidden = source !== input.value;
      trouble("");
      if (input.value === "camera") camera.start();
      else camera.stop();
      if (input.value === "drawing") draw();
    });
  }
  find("queue-again").addEventListener("click", queue.again);
  find("queue-discard").addEventListener("click", queue.discard);
  window.addEventListener("beforeunload", event => { if (queue.waiting) event.preventDefault(); });
  return { renamed: queue.rename };
}

/** The camera, and the button that records while it is held. */
function recorder(send, queue) {
  const hold = find("record"), rate = meter();
  const view = cameraView(find("collect-video"), text => {
    stop();
    trouble(text);
  });
  let recording = null;

  function start() {
    if (recording !== null || !view.ready) return;
    recording = newRecording();
    find("recording-badge").hidden = false;
    hold.classList.add("recording");
    record(recording);
  }

  async function record(present) {
    while (recording === present) {
      const next = performance.now() + FRAME_MILLISECONDS;
      if (queue.waiting < MAX_WAITING) {
        const blob = await view.frame();
        if (!blob || !send([blob], { name: "An image of the recording", recording: present, done: count })) return stop();
      }
      await new Promise(resolve => setTimeout(resolve, Math.max(next - performance.now(), 0)));
    }
  }

  function count() {
    find("rate").textContent = `${rate().toFixed(1)} images a second.`;
  }

  function stop() {
    recording = null;
    find("recording-badge").hidden = true;
    hold.classList.remove("recording");
  }

  hold.addEventListener("pointerdown", event => {
    hold.setPointerCapture(event.pointerId);
    start();
  });
  hold.addEventListener("contextmenu", event => event.preventDefault()); // of a long touch
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) hold.addEventListener(end, stop);
  const records = event => event.key === " " && !find("from-camera").hidden &&
    (event.target === hold || !event.target.closest?.("button, input, select, textarea, summary, a, dialog"));
  document.addEventListener("keydown", event => {
    if (!records(event)) return;
    event.preventDefault();
    if (!event.repeat) start();
  });
  document.addEventListener("keyup", event => { if (event.key === " ") stop(); });
  window.addEventListener("blur", stop);

  find("device").addEventListener("change", event => useCamera(event.target.value));
  return {
    async start() {
      await view.start();
      const found = await (navigator.mediaDevices ? cameras() : []);
      find("collect-device").hidden = found.length < 2;
      const options = found.map(({ label, deviceId }, at) => new Option(label || `Camera ${at + 1}`, deviceId));
      find("device").replaceChildren(...options);
    },
    stop() {
      stop();
      view.stop();
    },
  };
}

/** An id for the images of one recording: eight random hexadecimal digits. */
const newRecording = () => crypto.getRandomValues(new Uint32Array(1))[0].toString(16).padStart(8, "0");

/** The drawing area, made when it is first needed. */
function drawingTools(send) {
  let area = null;
  find("add-drawing").addEventListener("click", async () => {
    const blob = await area?.blob() ?? null;
    if (blob === null) trouble("Draw something first.");
    else if (send([blob], { name: "The drawing" })) area.clear();
  });
  return () => attempt(async () => {
    // Strokes like those of the images that the model was trained on
    const model = area === null && currentProject().model ? await open() : ANY_MODEL;
    area ??= drawing(model, () => {}, "collect-");
  });
}

// What became of the images

function showBatch(state) {
  const { added, near, copies, waiting, refused, halted, full, findings } = state;
  const parts = [
    `${counted(added)} added`,
    near && `${near.toLocaleString("en")} of them much like another image`,
    copies && `${counted(copies, "exact copy", "exact copies")} not added`,
    refused.length && `${counted(refused.length)} refused`,
    waiting && `${counted(waiting)} waiting`,
  ].filter(Boolean);
  const text = `${halted ? `${halted} ` : ""}${parts.join(", ")}.`;
  find("taken").textContent = text;
  say(text);
  find("taken").classList.toggle("bad", halted !== "");
  find("queue-tools").hidden = !full;
  const notes = [
    ...refused.map(({ name, text }) => element("li", `${name}: ${text}`, "open")),
    ...[...findings].map(([text, count]) => element("li", `${counted(count)}: ${text}`)),
  ];
  find("batch").hidden = notes.length === 0;
  find("batch-title").textContent = counted(notes.length, "remark on these images", "remarks on these images");
  find("batch-notes").replaceChildren(...notes.slice(0, MAX_NOTES));
}
