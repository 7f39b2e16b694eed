// Images saved with their true class: as a download, or on the server.

import { find } from "./elements.js";

/** The part of the page that saves images; `image()` promises the file, `keep(blob, name)` sends it to the server. */
export function collection(model, image, keep) {
  const form = find("keep"), choice = find("keep-name"), kept = find("kept");
  let corrected = false;

  choice.append(...model.class_names.map(name => new Option(name)));
  choice.addEventListener("change", () => { corrected = true; });
  find("keep-here").hidden = !model.collect;
  form.addEventListener("submit", event => {
    event.preventDefault();
    if (model.collect) attempt(async blob => {
      const { kept: count } = await keep(blob, choice.value);
      return `Kept as ${choice.value}; this class has ${count} ${count === 1 ? "image" : "images"}.`;
    });
  });
  find("download").addEventListener("click", () => attempt(async blob => {
    const name = `${fileName(choice.value)}.png`;
    save(await asPNG(blob), name);
    return `Downloaded as ${name}.`;
  }));

  async function attempt(task) {
    kept.textContent = "";
    try {
      kept.textContent = await task(await image());
    } catch (error) {
      kept.textContent = error.message;
    }
  }

  return {
    /** Propose the predicted class, unless the user has chosen one for this image. */
    show(name) {
      form.hidden = model.task === "multilabel"; // an image of several labels belongs into no folder of a class
      if (!corrected) choice.value = name;
    },
    clear() {
      form.hidden = true;
      corrected = false;
      kept.textContent = "";
    },
  };
}

/** A class name without the characters that a file system may forbid. */
const fileName = name => name.replace(/[\\/:*?"<>|\u0000-\u001f]/g, "_");

async function asPNG(blob) {
  if (blob.type === "image/png") return blob;
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw new Error(
      "This browser cannot read the image, so it cannot save it as PNG. Choose a PNG, JPEG, WebP or GIF file.");
  });
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // browsers read it after the click
}
