// The backend that uses the server's REST API; the server names it backend.js.
// URLs are relative, so a proxy can serve the page below a path of its own.

import { askForKey } from "./key.js";

const STORAGE_KEY = "foveola-api-key";
let key = storedKey();
let classes = 3;

/** Whether the server requires a key, so that links cannot be followed as they are. */
export const hasKey = () => key !== null;

export async function open() {
  const model = await request("model");
  classes = model.class_names.length;
  return model;
}

export async function predict(blob, { fixes = [], signal } = {}) {
  const { predictions } = await post("predict", { top: classes, seen: true, fix: fixParameter(fixes) }, blob, signal);
  return predictions[0];
}

export async function look(blob, { fixes = [], class: name, signal } = {}) {
  return post("look", { fix: fixParameter(fixes), class: name }, blob, signal);
}

export async function keep(blob, label) {
  return post("keep", { class: label }, blob);
}

const fixParameter = fixes => fixes === "auto" ? "auto" : fixes.join(",");

function post(path, parameters, blob, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  return request(`${path}?${new URLSearchParams(given)}`, { method: "POST", headers, body: blob, signal });
}

/** The JSON document of a response; throws an Error with the server's message, and `status` (0: no response). */
export async function request(path, options = {}) {
  return read(await respond(path, options));
}

/** The response to a request, sent with the key; if the server requires one, the user is asked for it. */
export async function respond(path, options = {}) {
  for (;;) {
    const used = key;
    const response = await send(path, options, used);
    if (response.status !== 401) return response;
    // Another request may have set a key meanwhile
    if (key === used) remember(await askForKey(used !== null));
  }
}

async function send(path, options, used) {
  const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const message = "The server does not respond. Check that it is running, then try again.";
    throw Object.assign(new Error(message), { status: 0 });
  }
}

async function read(response) {
  const document = await response.json().catch(() => ({}));
  if (response.ok) return document;
  const { status, statusText } = response;
  const error = Object.assign(new Error(document.error ?? `The server responded with ${status} ${statusText}.`), { status });
  if (status === 503) error.retryAfter = Number(response.headers.get("Retry-After")) || 1;
  throw error;
}

function storedKey() {
  try {
    return sessionStorage.getItem(STORAGE_KEY);
  } catch { // without storage, the key is kept until the page is closed
    return null;
  }
}

function remember(given) {
  key = given;
  try {
    sessionStorage.setItem(STORAGE_KEY, given);
  } catch { /* as above */ }
}
