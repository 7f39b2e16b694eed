// Thumbnails of the project's images; asked for with the server's key, which an <img> could not send.

import { respond } from "./backend.js";

const MAX_CACHED = 1000;
const cached = new Map(); // oldest first

/** Show a thumbnail in an <img>; `size` is "small" or "large". */
export async function showThumbnail(image, id, { size = "small", signal } = {}) {
  const name = `${id} ${size}`;
  try {
    if (!cached.has(name)) keep(name, await load(id, size, signal));
    if (!signal?.aborted) image.src = cached.get(name);
  } catch { // removed meanwhile, or the server is away, which is told elsewhere
    if (!signal?.aborted) image.classList.add("missing");
  }
}

async function load(id, size, signal) {
  const parameters = new URLSearchParams({ id, ...(size === "large" && { size }) });
  const response = await respond(`project/thumbnail?${parameters}`, { signal });
  if (!response.ok) throw new Error(response.statusText);
  return URL.createObjectURL(await response.blob());
}

function keep(name, url) {
  if (cached.has(name)) URL.revokeObjectURL(cached.get(name));
  cached.set(name, url);
  if (cached.size <= MAX_CACHED) return;
  const [oldest, old] = cached.entries().next().value;
  URL.revokeObjectURL(old);
  cached.delete(oldest);
}

/** An <img> with a thumbnail. */
export function thumbnail(id, description, size) {
  const image = Object.assign(document.createElement("img"), { alt: description });
  showThumbnail(image, id, { size });
  return image;
}
