// Files of the server, saved by the browser.

import { respond } from "./backend.js";

/** What a path of the server gives, once it is made. */
export async function made(path) {
  for (;;) {
    const response = await respond(path);
    if (response.ok) return response;
    if (response.status !== 503) {
      const { error } = await response.json().catch(() => ({}));
      throw new Error(error ?? `The server responded with ${response.status} ${response.statusText}.`);
    }
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise(resolve => setTimeout(resolve, 1000 * seconds));
  }
}

/** Save what a path of the server gives; by `fetch`, since a link could not send the server's key. */
export async function download(path, name) {
  const href = URL.createObjectURL(await (await made(path)).blob());
  Object.assign(document.createElement("a"), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000); // browsers read it after the click
}
