// Images that are chosen, photographed, dropped or pasted; their bytes are not changed.

/** Calls `accepted(blob)` with every image, and `refused(text)` with the reason if something is not an image file. */
export function onUpload(accepted, refused) {
  for (const id of ["file", "camera"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files[0]);
      input.value = ""; // allows the same file to be chosen again
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
    else refused("Only files can be dropped. Save or copy the image first, then drop or paste it.");
  });

  document.addEventListener("paste", event => {
    if (event.target.closest?.("input[type=number], dialog")) return;
    const [file] = event.clipboardData.files;
    if (file) take(file);
    else refused("There is no image on the clipboard. Copy one first, or choose a file.");
  });

  async function take(file) {
    try {
      // Copied, because the file may change or disappear later
      accepted(new Blob([await file.arrayBuffer()], { type: file.type }));
    } catch {
      refused(`${file.name} cannot be read. Choose an image file, not a folder.`);
    }
  }
}

/** Show an image in place of the drawing area; if the browser cannot show it, the upload field stays visible. */
export function showImage(blob) {
  const image = document.getElementById("given");
  if (image.src) URL.revokeObjectURL(image.src);
  image.onerror = () => {
    document.getElementById("empty").hidden = image.hidden;
    image.hidden = true;
  };
  image.src = URL.createObjectURL(blob);
}
