// The classes of the project: chosen, added, renamed, deleted; and the last change undone.

import { counted, element, find } from "./elements.js";
import { attempt, say, trouble } from "./messages.js";
import { change, currentProject } from "./project.js";

/** The part of the page with the classes; `choose(class)` is called when another is chosen, { name, count } or null. */
export function classList({ renamed, undone }) {
  let name = null;
  const listeners = [];

  find("add-class").addEventListener("submit", event => {
    event.preventDefault();
    const field = find("add-class-name"), wanted = field.value.trim();
    attempt(async () => {
      await create(wanted);
      field.value = "";
    });
  });

  async function create(wanted) {
    await change("classes", { name: wanted });
    choose(wanted);
    say(`Class ${wanted} added.`);
  }

  function choose(wanted) {
    name = wanted;
    find("rename-form").hidden = true;
    update(currentProject());
  }

  const openRename = open => {
    find("rename-form").hidden = !open;
    find("rename-name").value = name;
    if (open) find("rename-name").select();
    else find("rename").focus();
  };
  find("rename").addEventListener("click", () => openRename(find("rename-form").hidden));
  find("rename-cancel").addEventListener("click", () => openRename(false));
  find("rename-form").addEventListener("keydown", event => { if (event.key === "Escape") openRename(false); });
  find("rename-form").addEventListener("submit", event => {
    event.preventDefault();
    const from = name, to = find("rename-name").value.trim();
    if (from === to) return openRename(false);
    attempt(async () => {
      await change("classes/rename", { name: from, to });
      renamed(from, to);
      choose(to);
      openRename(false);
      say(`Class ${from} is now ${to}.`);
    });
  });

  find("delete-class").addEventListener("click", () => attempt(async () => {
    const deleted = name;
    await change("classes/delete", { name: deleted });
    say(`Class ${deleted} deleted. It can be undone.`);
    find("undo-change").focus();
  }));

  find("undo-change").addEventListener("click", () => attempt(async () => {
    undone();
    await change("undo");
    say("Undone.");
  }));

  function update(project) {
    const { classes, undo } = project;
    if (!classes.some(each => each.name === name)) name = classes[0]?.name ?? null;
    const chosen = classes.find(each => each.name === name) ?? null;
    show(classes, chosen);
    find("undo-bar").hidden = !undo;
    find("undo-what").textContent = undo ? `Last change: ${undo}.` : "";
    find("collect-hint").textContent = hint(classes);
    for (const listener of listeners) listener(chosen, classes);
  }

  function show(classes, chosen) {
    const buttons = new Map([...find("classes").children].map(line => [line.dataset.name, line]));
    const lines = classes.map(({ name: each, count }) => card(buttons.get(each), each, count, () => choose(each)));
    if (lines.some((line, at) => line !== find("classes").children[at]) || lines.length < buttons.size) {
      find("classes").replaceChildren(...lines);
    }
    for (const line of lines) line.firstChild.setAttribute("aria-pressed", String(line.dataset.name === chosen?.name));
    find("chosen").hidden = chosen === null;
    find("chosen-name").textContent = chosen?.name ?? "";
  }

  return {
    update,
    create,
    /** Call `listener(class, classes)` after every change; `class` is the chosen one, { name, count }, or null. */
    onUpdate(listener) { listeners.push(listener); },
    /** The name of the chosen class; null, with a message, if there is none. */
    required() {
      if (name === null) trouble("Add a class first, then add images to it.");
      return name;
    },
  };
}

function card(line, name, count, choose) {
  const made = line ?? newCard(name, choose);
  made.querySelector("span").textContent = counted(count);
  return made;
}

function newCard(name, choose) {
  const line = element("li"), chosen = Object.assign(element("button", "", "card"), { type: "button" });
  line.dataset.name = name;
  chosen.append(element("b", name), " ", element("span"));
  chosen.addEventListener("click", choose);
  line.append(chosen);
  return line;
}

function hint(classes) {
  if (!classes.length) return "A class is one kind of image that the model shall recognise, such as cup. Add two or more.";
  if (classes.length === 1) return "Add a second class, so that there is something to tell apart.";
  return "";
}
