// Pictures that are chosen, photographed, dropped or pasted; their bytes stay as they are.

/** Calls `taken(blob)` with every picture that comes, and `refused(text)` with why something is none. */
export function pictures(taken, refused) {
  for (const id of ["file", "camera"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    });
  }

  const stage = document.getElementById("stage");
  document.addEventListener("dragover", event => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", event => {
    if (event.relatedTarget === null) stage.classList.remove("over");
  });
  document.addEventListener("drop", event => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) take(file);
    else refused("Only files can be dropped. Save or copy the picture first, then drop or paste it.");
  });

  document.addEventListener("paste", event => {
    if (event.target.closest?.("input[type=number], dialog")) return;
    const [file] = event.clipboardData.files;
    if (file) take(file);
    else refused("There is no picture on the clipboard. Copy one first, or choose a file.");
  });

  async function take(file) {
    try {
      // Copied, because the file may change or vanish while it is looked at
      taken(new Blob([await file.arrayBuffer()], { type: file.type }));
    } catch {
      refused(`${file.name} cannot be read. Give a file with a picture, no folder.`);
    }
  }
}

/** Show a picture where drawings are made; where the browser can show none, the place stays open for another. */
export function showPicture(blob) {
  const image = document.getElementById("given");
  if (image.src) URL.revokeObjectURL(image.src);
  image.onerror = () => {
    document.getElementById("empty").hidden = image.hidden;
    image.hidden = true;
  };
  image.src = URL.createObjectURL(blob);
}
