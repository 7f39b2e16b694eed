// Images of the project, enlarged in a dialogue.

import { element, find } from "./elements.js";
import { thumbnail } from "./thumbnails.js";

const MAX_SHOWN = 60;

/** Show images, one large, several beside each other. */
export function enlarge(title, ids) {
  find("enlarged-title").textContent = title;
  const size = ids.length === 1 ? "large" : "small";
  const shown = ids.slice(0, MAX_SHOWN).map((id, at) => thumbnail(id, `Image ${at + 1} of ${ids.length}`, size));
  const rest = ids.length > MAX_SHOWN ? [element("p", `The first ${MAX_SHOWN} of ${ids.length}.`, "soft")] : [];
  find("enlarged-images").replaceChildren(...shown, ...rest);
  find("enlarged-images").classList.toggle("one", ids.length === 1);
  find("enlarged").showModal();
}
