// The page of `foveola teach`: collect images, train a classifier of them, try and correct it.

import { auditView } from "./audit.js";
import { binView } from "./bin.js";
import { classList } from "./classes.js";
import { collecting } from "./collect.js";
import { counted, find } from "./elements.js";
import { pictureList } from "./pictures.js";
import { currentProject, follow, onProject } from "./project.js";
import { summaryView } from "./summary.js";
import { takeawayView } from "./takeaway.js";
import { trainingView } from "./training.js";
import { trialView } from "./trial.js";

const pictures = pictureList();
const audit = auditView(pictures.invalidate);
const classes = classList({
  renamed(from, to) { collect.renamed(from, to); },
  undone() {
    pictures.invalidate();
    audit.undone(currentProject().undo);
  },
});
classes.onUpdate((chosen, all) => { if (chosen) pictures.update(all, chosen); });
const collect = collecting(classes, () => currentProject().classes.map(({ name }) => name), pictures.follow);
const views = [describe, classes.update, binView(), trainingView(), summaryView(), audit.update, takeawayView(), trialView()];

onProject(project => {
  for (const view of views) view(project);
});
follow();

function describe({ name, folder, classes, pictures, notes = [] }) {
  document.title = `${name} · Foveola`;
  find("folder").textContent = `${folder}: ${counted(classes.length, "class", "classes")}, ${counted(pictures)}.`;
  find("notes").textContent = notes.join(" ");
  find("studio").hidden = false;
}
