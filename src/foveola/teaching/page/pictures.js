// The images of the chosen class: thumbnails that can be selected, enlarged, moved and deleted.

import { counted, element, find } from "./elements.js";
import { enlarge } from "./enlarged.js";
import { virtualGrid } from "./grid.js";
import { attempt, say } from "./messages.js";
import { pictureSource } from "./pages.js";
import { change } from "./project.js";
import { keptThumbnail } from "./thumbnails.js";

/** The list of images of the chosen class. */
export function pictureList() {
  const box = find("pictures"), chosen = new Set(); // of ids
  const pictures = pictureSource(() => show());
  const grid = virtualGrid(box, find("pictures-all"), {
    key: at => pictures.at(at)?.id,
    make: (at, signal) => mark(cell(at, total, pictures.at(at), signal), at),
    needed: pictures.need,
  });
  // `active` is the position that the keyboard is at; `outdated`: other images may be in the class; `following`: the end
  // of the list is shown when images are added
  let name = null, total = 0, active = 0, outdated = false, following = false;
  for (const kind of ["wheel", "pointerdown", "keydown"]) {
    box.addEventListener(kind, () => { following = false; }, { passive: true });
  }

  /** Show images, which of them are selected, and what can be done with those. */
  function show() {
    grid.resize(total);
    for (const [at, option] of grid.elements()) mark(option, at);
    box.setAttribute("aria-activedescendant", `picture-${active}`);
    box.setAttribute("aria-label", `Images of ${name}`);
    box.hidden = find("select-all").hidden = find("pictures-help").hidden = total === 0;
    find("selected").textContent = chosen.size ? `${chosen.size.toLocaleString("en")} selected` : "";
    find("move-label").hidden = chosen.size === 0 || find("move-to").length < 2;
    find("delete-pictures").hidden = find("select-none").hidden = chosen.size === 0;
  }

  function mark(option, at) {
    option.setAttribute("aria-selected", String(chosen.has(pictures.at(at)?.id)));
    option.classList.toggle("active", at === active);
    return option;
  }

  function select(at, range) {
    const [first, last] = range ? [Math.min(active, at), Math.max(active, at)] : [at, at];
    const ids = Array.from({ length: last - first + 1 }, (_, step) => pictures.at(first + step)?.id).filter(Boolean);
    for (const id of ids) if (range || !chosen.delete(id)) chosen.add(id);
    active = at;
    show();
  }

  function move(at, range) {
    const target = Math.min(Math.max(at, 0), total - 1);
    if (range) select(target, true);
    active = target;
    grid.reveal(active);
    show();
  }

  function open(at) {
    const found = pictures.at(at);
    if (found) enlarge(`${name}, image ${at + 1}${found.near ? ", much like another image" : ""}`, [found.id]);
  }

  function selectNone() {
    chosen.clear();
    show();
  }

  const selectAll = () => attempt(async () => {
    for (const id of await pictures.ids(total)) chosen.add(id);
    show();
  });

  /** Send a change of the selected images, and say what was done. */
  const act = (path, fields, done) => attempt(async () => {
    const ids = [...chosen];
    if (!ids.length) return;
    outdated = true;
    await change(path, { ids, ...fields });
    say(`${counted(ids.length)} ${done}.`);
    box.focus();
  });
  const removeSelected = () => act("pictures/delete", {}, "deleted");

  find("select-all").addEventListener("click", selectAll);
  find("select-none").addEventListener("click", selectNone);
  find("delete-pictures").addEventListener("click", removeSelected);
  find("move-to").addEventListener("change", ({ target }) => {
    if (target.value) act("pictures/move", { to: target.value }, `moved to ${target.value}`);
    target.value = "";
  });
  onCell("click", (at, event) => select(at, event.shiftKey));
  onCell("dblclick", open);

  function onCell(kind, act) {
    box.addEventListener(kind, event => {
      const option = event.target.closest(".cell");
      if (option) act(Number(option.dataset.at), event);
    });
  }

  box.addEventListener("keydown", event => {
    const across = grid.columns(), screen = grid.screen();
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, PageUp: -screen, PageDown: screen,
      Home: -total, End: total,
    };
    if (event.key in steps) move(active + steps[event.key], event.shiftKey);
    else if (event.key === " ") select(active, event.shiftKey);
    else if (event.key === "Enter") open(active);
    else if (event.key === "Delete" || event.key === "Backspace") removeSelected();
    else if (event.key === "Escape") selectNone();
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) selectAll();
    else return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere on the page, the space bar records
  });

  return {
    /** Other images may be in the class, even if their number is the same. */
    invalidate() { outdated = true; },
    /** Images are being added: show them when they are there, until the user does something else with the list. */
    follow() { following = true; },
    /** Show a class, { name, count }, of those of the project. */
    update(classes, label) {
      offerMoves(classes.filter(each => each.name !== label.name).map(each => each.name));
      const other = label.name !== name;
      if (other || outdated || label.count < total) {
        chosen.clear();
        pictures.restart(label.name);
      } else if (label.count > total) {
        pictures.grown(total);
      } else return;
      if (other) {
        active = 0;
        grid.toTop();
      }
      [name, total, outdated] = [label.name, label.count, false];
      active = Math.max(Math.min(active, total - 1), 0);
      box.hidden = false; // to be measured
      show();
      if (following && !other) grid.toEnd();
    },
  };
}

function offerMoves(names) {
  const offered = [...find("move-to").options].slice(1).map(option => option.value);
  if (names.join("\n") !== offered.join("\n")) {
    find("move-to").replaceChildren(new Option("class …", ""), ...names.map(name => new Option(name)));
  }
}

function cell(at, total, found, signal) {
  const option = Object.assign(element("div", "", "cell"), { id: `picture-${at}` });
  option.setAttribute("role", "option");
  option.setAttribute("aria-posinset", at + 1);
  option.setAttribute("aria-setsize", total);
  option.dataset.at = at;
  if (!found) return option;
  option.append(keptThumbnail(found.id, signal));
  const near = found.near ? ", much like another image" : "";
  option.setAttribute("aria-label", `Image ${at + 1}${near}${found.recording ? ", recorded" : ""}`);
  if (found.near) option.append(Object.assign(element("span", "≈", "near"), { title: "Much like another image" }));
  return option;
}
