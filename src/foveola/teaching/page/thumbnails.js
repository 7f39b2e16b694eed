// Thumbnails of the project's images, a few at a time. An <img> asks for its own, unless a key must be sent.

import { hasKey, respond } from "./backend.js";
import { element } from "./elements.js";

const MAX_KEPT = 2000; // images of the grid
const MAX_ASKED = 6; // at a time, as many as browsers open connections to a server
const kept = new Map(); // <img> by id, the one that was shown longest ago first
const loading = new Set(); // images
let waiting = []; // each { image, id, size, signal }, the newest last

/** A new <img> with a thumbnail; `size` is "small" or "large". */
export function thumbnail(id, description, size = "small") {
  const image = Object.assign(element("img"), { alt: description });
  load({ image, id, size });
  return image;
}

/** The <img> with a thumbnail for the grid, the same at each call, so that it is there at once if it was shown before.
 *
 * If `signal` is aborted before it is asked for, it is not.
 */
export function keptThumbnail(id, signal) {
  const image = kept.get(id) ?? Object.assign(element("img"), { alt: "", draggable: false });
  kept.delete(id);
  kept.set(id, image);
  if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
  if (!image.src) load({ image, id, size: "small", signal });
  return image;
}

function load(wanted) {
  waiting.push(wanted);
  if (loading.size < MAX_ASKED) next();
}

/** Ask for the newest of the images that wait: older ones may be out of sight soon. */
async function next() {
  waiting = waiting.filter(({ image, signal }) => !signal?.aborted && !loading.has(image));
  if (!waiting.length) return;
  const { image, id, size } = waiting.pop();
  loading.add(image);
  try {
    await show(image, `project/thumbnail?id=${id}&size=${size}`);
  } catch { // removed meanwhile, or the server is away, which is told elsewhere
    image.removeAttribute("src");
  }
  loading.delete(image);
  next();
}

async function show(image, path) {
  const ended = new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
  if (!hasKey()) {
    image.src = path;
    return ended;
  }
  const url = URL.createObjectURL(await (await respond(path)).blob());
  image.src = url;
  return ended.finally(() => URL.revokeObjectURL(url));
}
