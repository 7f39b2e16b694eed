// What went wrong and what was done, in sentences on the page.

import { find } from "./elements.js";

// Milliseconds without a further sentence after which one is read out
const SAID_AFTER = 500;
let timer = null;

find("trouble-close").addEventListener("click", () => trouble(""));

/** Show what went wrong, until the next action; "" hides it. */
export function trouble(text) {
  find("trouble").textContent = text;
  find("trouble-close").hidden = text === "";
}

/** Tell screen readers what was done, where the page shows it anyway. */
export function say(text) {
  clearTimeout(timer);
  timer = setTimeout(() => { find("said").textContent = text; }, SAID_AFTER);
}

/** The result of `task()`; if it throws, its message is shown, and the result is undefined. */
export async function attempt(task) {
  trouble("");
  try {
    return await task();
  } catch (error) {
    if (error.name !== "AbortError") trouble(error.message);
    return undefined;
  }
}
