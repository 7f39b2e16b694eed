// The model, taken away: an ONNX file, a web page, the folder of the training.

import { download } from "./download.js";
import { element, find } from "./elements.js";
import { attempt } from "./messages.js";
import { command } from "./project.js";

/** The part of the page with the exports; gives the function that is told of the project's changes. */
export function takeawayView() {
  let wanted = null; // the format that was asked for here

  for (const format of ["onnx", "web"]) {
    find(`export-${format}`).addEventListener("click", () => attempt(async () => {
      find("export-said").textContent = "";
      await command("export", { format });
      wanted = format;
    }));
  }

  return ({ folder, model, job }) => {
    const running = job?.state === "running";
    find("takeaway-hint").hidden = model !== null;
    find("takeaway-shown").hidden = model === null;
    find("run").textContent = model ? folder.replace(/[^/\\]+$/, `runs/${model.run}`) : ""; // beside the project's folder
    find("export-onnx").disabled = find("export-web").disabled = running;
    if (wanted === null || running || job?.kind !== "export") return;
    const format = wanted;
    wanted = null;
    if (job.state === "done") attempt(() => finish(format, job.result.path, model));
  };
}

async function finish(format, path, model) {
  if (format === "onnx") {
    const name = `${model.run}.onnx`;
    await download("project/download", name);
    find("export-said").textContent = `Downloaded as ${name}. It is also in ${path}.`;
  } else {
    const port = (Number(location.port) || 8000) + 1; // not that of this server
    find("export-said").replaceChildren("The page is in ", element("code", path), ". To look at it, run ",
      element("code", `python -m http.server ${port} --directory ${quoted(path)}`), ` and open http://localhost:${port}.`);
  }
}

const quoted = path => /[^\w./-]/.test(path) ? `'${path.replaceAll("'", "'\\''")}'` : path;
