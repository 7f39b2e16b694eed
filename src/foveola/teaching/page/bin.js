// The bin: what was deleted, until it is emptied.

import { counted, find } from "./elements.js";
import { attempt, say } from "./messages.js";
import { change } from "./project.js";

/** The part of the page with the bin; gives the function that is told of the project's changes. */
export function binView() {
  const question = find("bin-question");
  find("empty-bin").addEventListener("click", () => {
    question.returnValue = "cancel";
    question.showModal();
  });
  question.addEventListener("close", () => {
    if (question.returnValue === "empty") attempt(empty);
  });

  async function empty() {
    await change("bin/empty");
    say("The bin is empty.");
    find("add-class-name").focus(); // the button is not there any more
  }

  return ({ bin }) => {
    const { images, bytes } = bin;
    find("bin").hidden = images === 0 && bytes === 0;
    find("bin-said").textContent = `In the bin: ${counted(images)}, ${size(bytes)}.`;
    find("bin-title").textContent = `Delete ${counted(images)} (${size(bytes)}) for good?`;
  };
}

/** "820 kB", "12 MB", "1.5 GB". */
function size(bytes) {
  const units = ["kB", "MB", "GB"], power = Math.min(Math.max(Math.floor(Math.log10(bytes) / 3), 1), units.length);
  const value = bytes / 1000 ** power;
  return `${value.toLocaleString("en", { maximumSignificantDigits: value < 10 ? 2 : 3 })} ${units[power - 1]}`;
}
