// Images on their way to the server: a few at a time, and sent again after the server was away.

import { request } from "./backend.js";

const MAX_SENT = 3, MILLISECONDS_BETWEEN_TRIES = 2000;
const FULL = 507, LATER = [0, 408, 429];

/** A queue of images; `changed(state)` is called whenever something happens.
 *
 * The state counts the images of the present batch: `added`, `near` (added, but much like another one), `copies` (not
 * added), `waiting`; `findings` counts what the server found, `refused` names what it cannot use, `halted` says why
 * nothing is sent. A batch begins with the first image after everything was sent, unless it is of the same recording.
 */
export function uploads(changed) {
  let queue = [], sent = 0, timer = null, state = empty();

  function add(images) {
    const { recording } = images[0];
    if (queue.length + sent === 0 && (!recording || recording !== state.recording)) state = { ...empty(), recording };
    queue.push(...images);
    proceed();
  }

  function proceed() {
    while (sent < MAX_SENT && queue.length && !state.halted) transfer(queue.shift());
    state.waiting = queue.length + sent;
    changed(state);
  }

  async function transfer(image) {
    sent += 1;
    try {
      record(image, await send(image));
    } catch (error) {
      if (LATER.includes(error.status) || error.status >= 500) halt(image, error);
      else state.refused.push({ name: image.name, text: error.message });
    }
    sent -= 1;
    proceed();
  }

  function record(image, { copy, near, findings = [] }) {
    if (copy) state.copies += 1;
    else state.added += 1;
    if (near) state.near += 1;
    for (const text of findings) state.findings.set(text, (state.findings.get(text) ?? 0) + 1);
    image.done?.(copy);
  }

  /** Keep the image; send it again after a pause, or if the disk is full, when the user says so. */
  function halt(image, error) {
    queue.unshift(image);
    state.halted = error.message;
    state.full = error.status === FULL;
    clearTimeout(timer);
    if (!state.full) timer = setTimeout(again, 1000 * error.retryAfter || MILLISECONDS_BETWEEN_TRIES);
  }

  function again() {
    state.halted = "";
    state.full = false;
    proceed();
  }

  return {
    /** Send images, each { blob, name, class, recording }. */
    add,
    again,
    discard() {
      queue = [];
      again();
    },
    get waiting() { return queue.length + sent; },
    /** Images that wait for a class get its new name. */
    rename(from, to) {
      for (const image of queue) if (image.class === from) image.class = to;
    },
  };
}

const empty = () =>
  ({ added: 0, near: 0, copies: 0, waiting: 0, findings: new Map(), refused: [], halted: "", full: false });

async function send({ blob, name, class: label, recording }) {
  // Copied, because the file may change or disappear later
  const body = await blob.arrayBuffer().catch(() => {
    throw new Error(`${name} cannot be read. Choose it again.`);
  });
  const parameters = new URLSearchParams({ class: label, ...(recording && { recording }) });
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  return request(`project/pictures?${parameters}`, { method: "POST", headers, body });
}
