// The project document and its job: asked for, changed, and followed by server-sent events.

import { request, respond } from "./backend.js";
import { find } from "./elements.js";
import { latestOnly } from "./latest.js";
import { trouble } from "./messages.js";

const MILLISECONDS_BETWEEN_TRIES = 1500;
const UNREACHABLE = "The server does not respond. Check that `foveola teach` is running; this page goes on when it is back.";
const listeners = [];
let project = null;

/** Call `listener(project)` now and after every change of the project document. */
export function onProject(listener) {
  listeners.push(listener);
  if (project !== null) listener(project);
}

export const currentProject = () => project;

/** Ask for the project document again. */
export const refresh = latestOnly(async () => publish(await request("project")), error => {
  find("connection").textContent = error.status === 0 ? UNREACHABLE : error.message;
});

/** Send a change; the routes of classes and pictures respond with the project document. */
export async function change(path, fields = {}) {
  const document = await post(path, fields);
  publish(document);
  return document;
}

/** Start or stop a job; the response is the job. */
export async function command(path, fields = {}) {
  const job = await post(path, fields);
  publish({ ...project, job });
  return job;
}

function post(path, fields) {
  const headers = { "Content-Type": "application/json" };
  return request(`project/${path}`, { method: "POST", headers, body: JSON.stringify(fields) });
}

function publish(document) {
  project = document;
  for (const listener of listeners) listener(project);
}

/** Follow changes, for as long as the page is open; a lost connection is opened again. */
export async function follow() {
  for (;;) {
    try {
      const response = await respond("project/events", { headers: { Accept: "text/event-stream" } });
      refresh();
      if (response.ok) {
        find("connection").textContent = "";
        await readEvents(response.body, received);
      }
      const { status, statusText } = response;
      find("connection").textContent = response.ok ? UNREACHABLE
        : `Changes cannot be followed: the server responded with ${status} ${statusText}. Reload the page.`;
    } catch (error) {
      if (error.keyless) return trouble(error.message);
      find("connection").textContent = UNREACHABLE;
    }
    await new Promise(resolve => setTimeout(resolve, MILLISECONDS_BETWEEN_TRIES));
  }
}

function received({ event, data }) {
  if (event === "project") refresh();
  if (event !== "job" || project === null) return;
  const job = JSON.parse(data);
  publish({ ...project, job });
  if (job?.state !== "running") refresh(); // the model and the summary may be new
}

/** Call `received({ event, data })` with every event of a stream.
 *
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */
async function readEvents(body, received) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value.replaceAll("\r\n", "\n")).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = part.split("\n").filter(line => !line.startsWith(":"));
      const of = name => fields.filter(line => line.startsWith(`${name}:`))
        .map(line => line.slice(name.length + 1).replace(/^ /, "")).join("\n");
      if (of("event")) received({ event: of("event"), data: of("data") });
    }
  }
}
