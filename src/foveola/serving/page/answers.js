// What the model says of the picture: the answer, every class's probability, what was seen, and the doctor's advice.

import { paintSeen, percent } from "./pixels.js";

// So many classes keep their places; of more, the most probable come first, and so many of them are shown
const STEADY = 12, SHOWN = 10;
// An answer that has stood so long, in milliseconds, is said to screen readers
const SAID_AFTER = 700;
const WITHOUT_STATISTICS = ["grey", "invert"];

const find = id => document.getElementById(id);
const element = (tag, textContent, className = "") =>
  Object.assign(document.createElement(tag), { textContent, className });

/** The parts of the page that show answers; `choose(fixes)` is called with "auto" or names when fixes are picked. */
export function answers(model, choose) {
  const bars = probabilities(model.class_names), doctor = advice(model, choose);
  let timer = null;

  function say(words) {
    clearTimeout(timer);
    timer = setTimeout(() => { find("said").textContent = words; }, SAID_AFTER);
  }

  return {
    /** `fixes` as asked for; `mended` those that were applied, but for what every picture gets. */
    show(answer, fixes, mended) {
      const chance = percent(answer.probability);
      const doubt = answer.uncertain ? [element("em", "Uncertain, most likely")] : [];
      find("answer").replaceChildren(...doubt, element("b", answer.class), element("span", chance));
      find("answer").classList.toggle("uncertain", answer.uncertain);
      find("remark").textContent = answer.uncertain ? reason(model) : "";
      find("glance").textContent = `${answer.class}${answer.uncertain ? "?" : ""} ${chance}`;
      say(`${answer.uncertain ? "Uncertain, most likely " : ""}${answer.class}, ${chance}`);
      bars.show(answer.top);
      doctor.show(answer, fixes);
      showSeen("after", answer.seen, mended.length ? `seen after ${mended.join(", ")}` : "seen");
      if (!mended.length) forget("before");
      find("before").classList.add("stale"); // until it is asked for, when nothing newer waits
    },
    showBefore(answer) {
      find("before").classList.remove("stale");
      showSeen("before", answer.seen, `without fixes: ${answer.class}, ${percent(answer.probability)}`);
    },
    clear({ hint, fixes }) {
      find("answer").replaceChildren(element("span", hint, "wait"));
      find("answer").classList.remove("uncertain");
      find("remark").textContent = find("glance").textContent = "";
      clearTimeout(timer);
      find("said").textContent = "";
      bars.show([]);
      doctor.show(null, fixes);
      forget("before");
      forget("after");
    },
  };
}

function reason(model) {
  const threshold = model.reject?.threshold;
  return typeof threshold === "number"
    ? `Below ${percent(threshold)} this model says that it is uncertain.`
    : "This model says of every answer that it is uncertain.";
}

function showSeen(id, seen, caption) {
  paintSeen(find(id), seen);
  find(id).setAttribute("aria-label", `${seen.shape[0]} by ${seen.shape[1]} pixels, ${caption}`);
  find(id).parentElement.hidden = false;
  find(`${id}-caption`).textContent = caption;
}

function forget(id) {
  find(id).parentElement.hidden = true;
}

function probabilities(names) {
  const body = find("probabilities").tBodies[0], all = find("all-classes");
  const steady = names.length <= STEADY;
  let everything = steady;
  const rows = new Map(names.map(name => [name, row(body, name)]));

  all.hidden = steady;
  all.addEventListener("click", () => {
    everything = !everything;
    hide();
  });

  function hide() {
    all.setAttribute("aria-expanded", String(everything));
    [...body.rows].forEach((line, place) => { line.hidden = !everything && place >= SHOWN; });
    all.textContent = everything ? `Show the ${SHOWN} most probable` : `Show all ${names.length} classes`;
  }

  hide();
  return {
    /** `top`: every class, most probable first; none while there is no answer. */
    show(top) {
      const found = top.length ? top : names.map(name => ({ class: name, probability: null }));
      found.forEach(({ class: name, probability }, place) => {
        const { line, bar, number } = rows.get(name);
        line.classList.toggle("first", probability !== null && place === 0);
        bar.style.width = `${100 * (probability ?? 0)}%`;
        number.textContent = probability === null ? "–" : percent(probability);
        if (!steady) body.append(line);
      });
      hide();
    },
  };
}

function row(body, name) {
  const line = body.insertRow(), head = line.appendChild(element("th", name));
  head.scope = "row";
  head.title = name; // long ones are cut short
  const track = line.insertCell(), number = line.insertCell();
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  const bar = track.appendChild(document.createElement("span"));
  number.className = "number";
  return { line, bar, number };
}

function advice(model, choose) {
  const possible = Object.keys(model.fixes).filter(name => model.statistics || WITHOUT_STATISTICS.includes(name));
  // A grey model is always given grey pictures
  const offered = possible.filter(name => name !== "grey" || model.image_shape[2] === 3);
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
    show(answer, fixes) {
      chosen = fixes;
      applied = answer?.fixes ?? [];
      all.setAttribute("aria-pressed", String(fixes === "auto"));
      const advised = (answer?.findings ?? []).map(finding => finding.fix);
      for (const button of buttons) {
        button.disabled = answer === null;
        button.setAttribute("aria-pressed", String(applied.includes(button.dataset.fix)));
        button.classList.toggle("advised", advised.includes(button.dataset.fix));
      }
      find("findings").replaceChildren(...findings(model, answer, applied));
    },
  };
}

const toggled = (names, name) => names.includes(name) ? names.filter(other => other !== name) : [...names, name];

function findings(model, answer, applied) {
  if (answer === null) return [element("li", "There is no picture yet.", "soft")];
  if (!answer.findings.length) {
    return [model.statistics ? element("li", "The picture is like the training images.", "good")
      : element("li", "None: this model does not say what its training images look like.", "soft")];
  }
  return answer.findings.map(({ text, fix }) => {
    const fixed = applied.includes(fix);
    const line = element("li", `${text[0].toUpperCase()}${text.slice(1)}. `, fixed ? "fixed" : "open");
    if (fix) line.append(element("b", fixed ? `Fixed by ${fix}.` : `Helps: ${fix}.`));
    return line;
  });
}
