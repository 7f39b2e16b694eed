// The prediction: class, every class's probability, the network's input, findings and fixes.

import { element, find } from "./elements.js";
import { paintSeen, percent } from "./pixels.js";

// Up to MAX_UNSORTED classes keep their order; of more, the MAX_SHOWN most probable are shown, sorted
const MAX_UNSORTED = 12, MAX_SHOWN = 10;
// Milliseconds without change after which a prediction is announced to screen readers
const ANNOUNCED_AFTER = 700;
const UNFAMILIAR = "This image is unlike anything the model was trained on. ";
const WITHOUT_STATISTICS = ["grey", "invert"];

/** The parts of the page that show predictions; `choose(fixes)` is called with "auto" or names of selected fixes. */
export function predictionView(model, choose) {
  const bars = probabilityTable(model.class_names), findingsAndFixes = fixButtons(model, choose);
  let timer = null;

  function announce(text) {
    clearTimeout(timer);
    timer = setTimeout(() => { find("said").textContent = text; }, ANNOUNCED_AFTER);
  }

  return {
    /** `fixes` as requested; `shownFixes` are those applied, except for those that every image gets. */
    show(prediction, fixes, shownFixes) {
      const given = givenOf(prediction);
      const doubt = doubtOf(prediction), text = textOf(given);
      const parts = given.length ? given.flatMap(({ class: name, probability }) =>
        [element("b", name), element("span", percent(probability))]) : [element("span", text)];
      find("answer").replaceChildren(...(doubt ? [element("em", doubt)] : []), ...parts);
      find("answer").classList.toggle("uncertain", doubt !== "");
      find("remark").textContent = reasons(model, prediction);
      find("glance").textContent = prediction.labels ? text
        : `${prediction.class}${doubt ? "?" : ""} ${percent(prediction.probability)}`;
      announce(`${doubt && `${doubt} `}${text}`);
      bars.show(prediction.top, given);
      findingsAndFixes.show(prediction, fixes);
      showInput("after", prediction.seen, shownFixes.length ? `after ${shownFixes.join(", ")}` : "without fixes");
      if (!shownFixes.length) hideInput("before");
      find("before").classList.add("stale"); // until its prediction arrives
    },
    showBefore(prediction) {
      find("before").classList.remove("stale");
      showInput("before", prediction.seen, `without fixes: ${textOf(givenOf(prediction))}`);
    },
    clear({ hint, fixes }) {
      find("answer").replaceChildren(element("span", hint, "wait"));
      find("answer").classList.remove("uncertain");
      find("remark").textContent = find("glance").textContent = "";
      clearTimeout(timer);
      find("said").textContent = "";
      bars.show([]);
      findingsAndFixes.show(null, fixes);
      hideInput("before");
      hideInput("after");
    },
  };
}

/** What is predicted: the most probable class, or the labels that reach their thresholds. */
function givenOf({ labels, top }) {
  return labels ? top.filter(({ class: name }) => labels.includes(name)) : top.slice(0, 1);
}

function textOf(given) {
  return given.map(({ class: name, probability }) => `${name}, ${percent(probability)}`).join("; ") || "No label";
}

/** What precedes the class in the answer; "" if nothing speaks against it. */
function doubtOf({ uncertain, unfamiliar }) {
  if (unfamiliar) return uncertain ? "Unfamiliar and uncertain, most likely" : "Unfamiliar, most likely";
  return uncertain ? "Uncertain, most likely" : "";
}

function reasons(model, { uncertain, unfamiliar }) {
  const sentences = [unfamiliar ? `${UNFAMILIAR}Class and probability mean little.` : "", uncertain ? reason(model) : ""];
  return sentences.filter(Boolean).join(" ");
}

function reason(model) {
  const threshold = model.reject?.threshold;
  return typeof threshold === "number"
    ? `This model reports predictions below ${percent(threshold)} as uncertain.`
    : "This model reports every prediction as uncertain.";
}

function showInput(id, seen, caption) {
  paintSeen(find(id), seen);
  find(id).setAttribute("aria-label", `${seen.shape[0]} by ${seen.shape[1]} pixels, ${caption}`);
  find(id).parentElement.hidden = false;
  find(`${id}-caption`).textContent = caption;
}

function hideInput(id) {
  find(id).parentElement.hidden = true;
}

function probabilityTable(names) {
  const body = find("probabilities").tBodies[0], all = find("all-classes");
  const unsorted = names.length <= MAX_UNSORTED;
  let expanded = unsorted;
  const rows = new Map(names.map(name => [name, row(body, name)]));

  all.hidden = unsorted;
  all.addEventListener("click", () => {
    expanded = !expanded;
    update();
  });

  function update() {
    all.setAttribute("aria-expanded", String(expanded));
    [...body.rows].forEach((line, rank) => { line.hidden = !expanded && rank >= MAX_SHOWN; });
    all.textContent = expanded ? `Show the ${MAX_SHOWN} most probable` : `Show all ${names.length} classes`;
  }

  update();
  return {
    /** `top`: every class, most probable first, and those that are `given`; empty without a prediction. */
    show(top, given = []) {
      const first = given.map(({ class: name }) => name);
      const shown = top.length ? top : names.map(name => ({ class: name, probability: null }));
      shown.forEach(({ class: name, probability }) => {
        const { line, bar, number } = rows.get(name);
        line.classList.toggle("first", first.includes(name));
        bar.style.width = `${100 * (probability ?? 0)}%`;
        number.textContent = probability === null ? "–" : percent(probability);
        if (!unsorted) body.append(line);
      });
      update();
    },
  };
}

function row(body, name) {
  const line = body.insertRow(), head = line.appendChild(element("th", name));
  head.scope = "row";
  head.title = name; // long names are truncated
  const track = line.insertCell(), number = line.insertCell();
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  const bar = track.appendChild(document.createElement("span"));
  number.className = "number";
  return { line, bar, number };
}

function fixButtons(model, choose) {
  const applicable = Object.keys(model.fixes).filter(name => model.statistics || WITHOUT_STATISTICS.includes(name));
  // Grey models always get grey images
  const offered = applicable.filter(name => name !== "grey" || model.image_shape[2] === 3);
  const all = find("all-fixes");
  let chosen = "auto", applied = [];

  const buttons = offered.map(name => {
    const button = Object.assign(element("button", name), { type: "button", title: model.fixes[name] });
    button.dataset.fix = name;
    button.addEventListener("click", () => choose(toggled(applied, name)));
    return find("fixes").appendChild(button);
  });
  all.addEventListener("click", () => choose(chosen === "auto" ? [] : "auto"));

  return {
    show(prediction, fixes) {
      chosen = fixes;
      applied = prediction?.fixes ?? [];
      all.setAttribute("aria-pressed", String(fixes === "auto"));
      const proposed = (prediction?.findings ?? []).map(finding => finding.fix);
      for (const button of buttons) {
        button.disabled = prediction === null;
        button.setAttribute("aria-pressed", String(applied.includes(button.dataset.fix)));
        button.classList.toggle("proposed", proposed.includes(button.dataset.fix));
      }
      find("findings").replaceChildren(...findings(model, prediction, applied));
    },
  };
}

const toggled = (names, name) => names.includes(name) ? names.filter(other => other !== name) : [...names, name];

function findings(model, prediction, applied) {
  if (prediction === null) return [element("li", "There is no image yet.", "soft")];
  if (!prediction.findings.length && prediction.unfamiliar) {
    return [element("li", "None, but the image is unlike anything the model was trained on.", "open")];
  }
  if (!prediction.findings.length) {
    return [model.statistics ? element("li", "The image looks like the training images.", "good")
      : element("li", "None: this model has no statistics of its training images.", "soft")];
  }
  return prediction.findings.map(({ text, fix }) => {
    const fixed = applied.includes(fix);
    const line = element("li", `${text[0].toUpperCase()}${text.slice(1)}. `, fixed ? "fixed" : "open");
    if (fix) line.append(element("b", fixed ? `Fixed by ${fix}.` : `Proposed fix: ${fix}.`));
    return line;
  });
}
