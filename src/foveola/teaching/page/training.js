// Training: started, waited for or replaced, stopped; its progress and curves.

import { drawCurves } from "./curves.js";
import { find } from "./elements.js";
import { attempt } from "./messages.js";
import { command, currentProject } from "./project.js";

const KINDS = { training: "A training", export: "An export", audit: "A check of the images", report: "A report" };

let started = null; // when the running job began, in milliseconds of this page
setInterval(showTime, 1000);

/** The part of the page with the training; gives the function that is told of the project's changes. */
export function trainingView() {
  let next = null; // the training that waits for the present job to end

  find("start-training").addEventListener("click",
    () => start({ seconds: Number(find("seconds").value) || null, recipe: "auto" }));
  find("resume").addEventListener("click", () => start({ resume: true }));
  find("stop").addEventListener("click", () => attempt(async () => {
    next = null;
    showNext();
    await command("stop");
  }));
  find("seconds").addEventListener("change", () => showCommands(currentProject()));

  /** Start a training; if a job is running, the user says when. */
  const start = wanted => attempt(async () => {
    const { job } = currentProject();
    const choice = job?.state === "running" ? await askWhen(job) : "now";
    // The job may have ended meanwhile
    if (choice === "wait" && currentProject().job?.state === "running") next = wanted;
    else if (choice !== "cancel") await command("train", { ...wanted, replace: choice === "replace" });
    showNext();
  });

  function showNext() {
    find("needed").textContent = next ? "Another training starts when this is done. Select Stop to cancel both." : "";
  }

  return project => {
    const { job, unfinished } = project;
    find("unfinished").hidden = !unfinished || job?.state === "running";
    find("unfinished-run").textContent = `The training ${unfinished}`;
    showCommands(project);
    showJob(job);
    if (next === null || job?.state === "running") return;
    const wanted = next;
    next = null;
    showNext();
    attempt(() => command("train", { ...wanted, replace: false }));
  };
}

/** What to do while a job is running: "wait", "replace" or "cancel". */
function askWhen(job) {
  const dialog = find("wait");
  find("wait-title").textContent = `${KINDS[job.kind]} is running`;
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

function showCommands({ commands }) {
  const seconds = find("seconds").value, { train = "", ...others } = commands;
  const budget = / --budget[ =]\S+/, chosen = seconds ? ` --budget ${seconds}s` : " --no-report";
  find("command-train").textContent = budget.test(train) ? train.replace(budget, chosen) : train + chosen;
  for (const [name, text] of Object.entries(others)) {
    const place = find(`command-${name}`);
    if (place) place.textContent = text ?? "";
  }
}

/** Show for how long the job has been running. */
function showTime() {
  find("job-time").textContent = started === null ? "" : `${Math.round((performance.now() - started) / 1000)} s`;
}

function showJob(job) {
  const running = job?.state === "running";
  find("job").hidden = !running && (!job?.message || job.state === "failed");
  find("job-error").textContent = job?.state === "failed" ? job.error ?? job.message : "";
  if (!job) return;
  find("job-message").textContent = job.message;
  find("stop").hidden = find("job-progress").hidden = !running;
  started = running ? performance.now() - 1000 * job.seconds : null;
  showTime();
  const progress = find("job-progress");
  if (job.total) Object.assign(progress, { max: job.total, value: job.done ?? 0 });
  else progress.removeAttribute("value");
  progress.setAttribute("aria-label", job.message);
  if (job.kind === "training") drawCurves(job.history);
}
