// Elements of the page: found by their ids, and made.

export const find = id => document.getElementById(id);

export const element = (tag, textContent = "", className = "") =>
  Object.assign(document.createElement(tag), { textContent, className });

/** A button that calls `pressed()`; its `label` is for screen readers, where the text says too little. */
export function button(text, pressed, label = "") {
  const made = Object.assign(element("button", text), { type: "button" });
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", pressed);
  return made;
}

/** "1 image", "2,000 images". */
export const counted = (count, noun = "image", plural = `${noun}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
