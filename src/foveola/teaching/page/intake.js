// Image files that come in: chosen, dropped, pasted; whole folders, whose names become classes after asking.

import { counted, element, find } from "./elements.js";
import { trouble } from "./messages.js";

const NOT_CHOSEN = "";
const IMAGES = /\.(png|jpe?g|webp|gif|bmp)$/i;

/** Take files from everywhere on the page.
 *
 * `classes()` are the names of the classes; `taken(files)` is called with files that belong to the chosen class,
 * `imported(groups)` with those of folders, each { label, isNew, files }.
 */
export function intake({ classes, taken, imported }) {
  for (const id of ["files", "folders"]) {
    find(id).addEventListener("change", ({ target }) => {
      give([...target.files].map(file => ({ file, folder: folderOf(file) })));
      target.value = ""; // allows the same files to be chosen again
    });
  }

  document.addEventListener("dragover", event => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
  document.addEventListener("dragleave", event => {
    if (event.relatedTarget === null) find("drop").classList.remove("over");
  });
  document.addEventListener("drop", event => {
    event.preventDefault();
    find("drop").classList.remove("over");
    if (event.target.closest?.("#try")) return; // there, an image is tried
    const items = [...event.dataTransfer.items].filter(item => item.kind === "file");
    // All of them at once: they are gone after the first wait
    const entries = items.map(item => item.webkitGetAsEntry?.() ?? item.getAsFile());
    if (!entries.length) return trouble("Only files can be dropped. Save the image first, then drop the file.");
    Promise.all(entries.map(entry => filesOf(entry))).then(found => give(found.flat()),
      () => trouble("What was dropped cannot be read. Drop files or folders of this machine."));
  });

  document.addEventListener("paste", event => {
    if (event.target.closest?.("input[type=text], dialog, #try")) return;
    const files = [...event.clipboardData.files];
    if (files.length) give(files.map(file => ({ file, folder: "" })));
    else trouble("There is no image on the clipboard. Copy one first, or choose files.");
  });

  async function give(found) {
    const images = found.filter(({ file }) => file.type.startsWith("image/") || IMAGES.test(file.name));
    if (!images.length) {
      if (found.length) trouble("None of these files is an image. Choose PNG, JPEG, WebP, GIF or BMP files.");
      return;
    }
    const single = images.filter(({ folder }) => !folder).map(({ file }) => file);
    const folders = Map.groupBy(images.filter(({ folder }) => folder), ({ folder }) => folder);
    if (single.length) taken(single);
    if (folders.size) imported(await askForClasses(folders, classes()));
  }
}

const folderOf = file => file.webkitRelativePath?.split("/").at(-2) ?? "";

/** The files of a dropped file or folder, each with the name of the folder that it lies in. */
async function filesOf(entry, folder = "") {
  if (entry instanceof File) return [{ file: entry, folder }];
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), folder }];
  const reader = entry.createReader(), found = [];
  for (;;) { // a reader gives some entries at a time, and none at the end
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found.flat();
    found.push(...await Promise.all(some.map(each => filesOf(each, entry.name))));
  }
}

/** The groups of files with the classes that the user chooses for them; none after Cancel. */
function askForClasses(folders, names) {
  const lines = [...folders].map(([folder, images]) =>
    ({ files: images.map(({ file }) => file), ...choice(folder, images.length, names) }));
  find("import-folders").replaceChildren(...lines.map(({ line }) => line));
  const dialog = find("import");
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "add") return resolve([]);
    resolve(lines.filter(({ select }) => select.value !== NOT_CHOSEN)
      .map(({ select, files }) => ({ label: select.value, isNew: !names.includes(select.value), files })));
  }, { once: true }));
}

function choice(folder, count, names) {
  const line = element("li"), label = element("label", `${folder}, ${counted(count)}: `), select = element("select");
  if (!names.includes(folder)) select.append(new Option(`new class ${folder}`, folder));
  select.append(...names.map(name => new Option(name)), new Option("leave out", NOT_CHOSEN));
  if (names.includes(folder)) select.value = folder;
  label.append(select);
  line.append(label);
  return { line, select };
}
