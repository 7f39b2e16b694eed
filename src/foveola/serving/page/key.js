// The dialogue for the server's API key.

import { find } from "./elements.js";

document.body.insertAdjacentHTML("beforeend", `
<dialog id="key" aria-labelledby="key-title">
<form method="dialog">
<h2 id="key-title">This server requires a key</h2>
<p>Whoever started the server has it. This page remembers it until this tab is closed.</p>
<p id="key-refused" class="bad" role="alert" hidden>The server refused this key.</p>
<label>API key <input type="password" id="key-text" autocomplete="off" required pattern="[!-~]+" title="letters, digits and punctuation, without spaces"></label>
<div class="tools">
<button type="submit" value="use">Use this key</button>
<button type="submit" value="cancel" formnovalidate>Cancel</button>
</div>
</form>
</dialog>`);

const dialog = find("key"), field = find("key-text");
let pending = null;

/** The key that the user enters; requests made while the dialogue is open share it.
 *
 * `refused` is true if the server refused a key before. Throws an Error, with `keyless`, if the user enters none.
 */
export function askForKey(refused) {
  pending ??= new Promise((resolve, reject) => {
    find("key-refused").hidden = !refused;
    field.value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => {
      pending = null;
      if (dialog.returnValue === "use") resolve(field.value);
      else reject(Object.assign(new Error("The server requires an API key. Reload the page to enter it."), { keyless: true }));
    }, { once: true });
    dialog.showModal();
  });
  return pending;
}
