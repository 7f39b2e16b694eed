// What a training means: how good it is, which classes are confused, what would help.

import { hasKey } from "./backend.js";
import { download, made } from "./download.js";
import { button, counted, element, find } from "./elements.js";
import { enlarge } from "./enlarged.js";
import { attempt } from "./messages.js";
import { thumbnail } from "./thumbnails.js";

const MAX_THUMBNAILS = 4;

/** The part of the page with the summary; gives the function that is told of the project's changes. */
export function summaryView() {
  let shown = "", readyFor = "";
  find("report").addEventListener("click", event => {
    if (!hasKey() && readyFor === shown) return; // the link works as it is
    event.preventDefault();
    find("report-said").textContent = "Writing the report.";
    attempt(() => openReport(shown)).finally(() => { find("report-said").textContent = ""; });
  });

  /** Have the report written, and show it; with a key, which a link could not send, it is saved instead. */
  async function openReport(run) {
    if (hasKey()) return download("project/report", "report.html");
    await (await made("project/report")).body.cancel();
    readyFor = run;
    find("report").click(); // a browser that does not allow it this late leaves the link
  }

  return ({ summary }) => {
    const latest = JSON.stringify(summary ?? null);
    if (latest === shown) return;
    shown = latest;
    find("summary").hidden = !summary;
    if (summary) show(summary);
  };
}

function show({ sentences, accuracy, confusions, suggestions }) {
  showAccuracy(accuracy);
  find("sentences").replaceChildren(...sentences.map(text => element("p", text)));
  find("confused").hidden = confusions.length === 0;
  find("confusions").replaceChildren(...confusions.map(confusion));
  const further = suggestions.filter(text => !sentences.includes(text));
  find("suggested").hidden = further.length === 0;
  find("suggestions").replaceChildren(...further.map(text => element("li", text)));
}

function showAccuracy(accuracy) {
  find("accuracy").hidden = !accuracy;
  if (!accuracy) return;
  const { value, low, high, n } = accuracy, whole = fraction => `${Math.round(100 * fraction)} %`;
  const [bar, interval] = find("accuracy").querySelectorAll(".scale span");
  bar.style.width = `${100 * value}%`;
  interval.style.left = `${100 * low}%`;
  interval.style.width = `${100 * (high - low)}%`;
  const text = `Accuracy ${whole(value)} on ${counted(n)} (95 % interval: ${whole(low)} to ${whole(high)})`;
  find("accuracy").querySelector(".scale").setAttribute("aria-label", text);
  find("accuracy-said").textContent = `${text}.`;
}

function confusion({ true: right, predicted, count, pictures }) {
  const line = element("li"), text = `${right} taken for ${predicted}: ${counted(count)}`;
  if (!pictures.length) return Object.assign(line, { textContent: text });
  const thumbnails = pictures.slice(0, MAX_THUMBNAILS).map(id => thumbnail(id, ""));
  const open = button(text, () => enlarge(text, pictures));
  open.append(...thumbnails);
  line.append(open);
  return line;
}
