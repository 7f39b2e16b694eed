// The dialogue that asks for the server's API key.

const dialog = document.getElementById("key");
const field = document.getElementById("key-text");
let pending = null;

/** A key from the user; questions that come while the dialogue is open share it.
 *
 * `refused` says that a key was given before. Throws an Error if the user gives none.
 */
export function askForKey(refused) {
  pending ??= new Promise((resolve, reject) => {
    document.getElementById("key-refused").hidden = !refused;
    field.value = "";
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => {
      pending = null;
      if (dialog.returnValue === "use") resolve(field.value);
      else reject(new Error("The server answers only to those who give its API key. Reload the page to enter it."));
    }, { once: true });
    dialog.showModal();
  });
  return pending;
}
