// Files of the server, saved by the browser.

import { respond } from "./backend.js";

/** Save what a path of the server gives; by `fetch`, since a link could not send the server's key. */
export async function download(path, name) {
  const response = await respond(path);
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({}));
    throw new Error(error ?? `The server responded with ${response.status} ${response.statusText}.`);
  }
  const href = URL.createObjectURL(await response.blob());
  const link = Object.assign(document.createElement("a"), { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // browsers read it after the click
}
