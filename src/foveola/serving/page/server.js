// The backend that asks the server; the server gives it to the page as backend.js.
// URLs are relative, so that a proxy may serve the page below a path of its own.

import { askForKey } from "./key.js";

const STORED = "foveola-api-key";
let key = stored();
let classes = 3;

export async function open() {
  const model = await ask("model");
  classes = model.class_names.length;
  return model;
}

export async function predict(blob, { fixes = [], signal } = {}) {
  const { predictions } = await post("predict", { top: classes, seen: true, fix: named(fixes) }, blob, signal);
  return predictions[0];
}

export async function look(blob, { fixes = [], class: name, signal } = {}) {
  return post("look", { fix: named(fixes), class: name }, blob, signal);
}

export async function keep(blob, label) {
  return post("keep", { class: label }, blob);
}

const named = fixes => fixes === "auto" ? "auto" : fixes.join(",");

function post(path, parameters, blob, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const headers = { "Content-Type": blob.type || "application/octet-stream" };
  return ask(`${path}?${new URLSearchParams(given)}`, { method: "POST", headers, body: blob, signal });
}

async function ask(path, options = {}) {
  for (;;) {
    const used = key;
    const response = await answered(path, options, used);
    if (response.status !== 401) return contents(response);
    // Another question may have brought a key meanwhile
    if (key === used) remember(await askForKey(used !== null));
  }
}

async function answered(path, options, used) {
  const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. See whether it still runs, then try again.");
  }
}

async function contents(response) {
  const document = await response.json().catch(() => ({}));
  if (response.ok) return document;
  const error = new Error(document.error ?? `The server answered ${response.status} ${response.statusText}.`);
  if (response.status === 503) error.retryAfter = Number(response.headers.get("Retry-After")) || 1;
  throw error;
}

function stored() {
  try {
    return sessionStorage.getItem(STORED);
  } catch { // storage may be forbidden; then the key lives as long as the page
    return null;
  }
}

function remember(given) {
  key = given;
  try {
    sessionStorage.setItem(STORED, given);
  } catch { /* as above */ }
}
