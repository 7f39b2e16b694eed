// Images that may be in the wrong class, and copies: kept, moved or deleted.

import { button, counted, element, find } from "./elements.js";
import { enlarge } from "./enlarged.js";
import { attempt, say } from "./messages.js";
import { change, command } from "./project.js";
import { percent } from "./pixels.js";
import { thumbnail } from "./thumbnails.js";

const SHOWN_AT_ONCE = 30;

/** The part of the page that checks labels; `changed()` is called after images were moved or deleted. */
export function auditView(changed) {
  let result = null, limit = SHOWN_AT_ONCE;
  const handled = []; // what was decided, with how it is shown again; latest last

  find("start-audit").addEventListener("click", () => attempt(async () => {
    find("audit-said").textContent = "Checking.";
    await command("audit");
  }));
  find("more-suspects").addEventListener("click", () => {
    limit += SHOWN_AT_ONCE;
    show();
  });

  function show() {
    const { sentence, suspects, copies } = result;
    const twice = copies.length ? `${counted(copies.length)} ${copies.length === 1 ? "is" : "are"}` : "No image is";
    find("audit-said").textContent = `${sentence} ${twice} there more than once.`;
    find("suspects").replaceChildren(...suspects.slice(0, limit).map(suspect));
    find("copies").replaceChildren(...copies.slice(0, limit).map(copy));
    find("more-suspects").hidden = Math.max(suspects.length, copies.length) <= limit;
  }

  function suspect({ id, class: name, suggested, probability }) {
    return card([id], `In ${name}, but looks like ${suggested} (${percent(probability)}).`, [
      [`Keep in ${name}`, "keep", { ids: [id] }, `Kept in ${name}.`],
      [`Move to ${suggested}`, "pictures/move", { ids: [id], to: suggested }, `Moved to ${suggested}.`],
      ["Delete", "pictures/delete", { ids: [id] }, "Deleted."],
    ]);
  }

  function copy({ ids }) {
    return card(ids, `${ids.length} copies of one image.`, [
      ["Keep all", "keep", { ids }, "All kept."],
      ["Delete all but the first", "pictures/delete", { ids: ids.slice(1) }, "The first is left."],
    ]);
  }

  function card(ids, text, choices) {
    const line = element("li"), images = button("", () => enlarge(text, ids), "Enlarge");
    images.append(...ids.slice(0, 4).map(id => thumbnail(id, "")));
    const tools = element("div", "", "tools"), done = element("p", "", "soft");
    tools.append(...choices.map(([name, path, fields, decided]) => button(name, () => attempt(async () => {
      const { undo } = await change(path, fields);
      handled.push({ tools, done, undo });
      tools.hidden = true;
      done.textContent = decided;
      say(decided);
      if (path !== "keep") changed();
    }), `${name}: ${text}`)));
    const words = element("div");
    words.append(element("p", text), tools, done);
    line.append(images, words);
    return line;
  }

  return {
    update({ job, pictures }) {
      const running = job?.state === "running";
      find("start-audit").disabled = running || pictures === 0;
      if (running || job?.kind !== "audit") return;
      if (job.state === "done" && JSON.stringify(job.result) !== JSON.stringify(result)) {
        [result, limit] = [job.result, SHOWN_AT_ONCE];
        show();
      }
      if (job.state !== "done" && result === null) find("audit-said").textContent = job.error ?? "Stopped.";
    },
    /** The change that this text names is undone: if it was decided here, it can be decided again. */
    undone(text) {
      if (handled.at(-1)?.undo !== text) return;
      const last = handled.pop();
      last.tools.hidden = false;
      last.done.textContent = "";
    },
  };
}
