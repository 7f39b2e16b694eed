// The dialogue for the server's API key.

const dialog = document.getElementById("key");
const field = document.getElementById("key-text");
let pending = null;

/** The key that the user enters; requests made while the dialogue is open share it.
 *
 * `refused` is true if the server refused a key before. Throws an Error, with `keyless`, if the user enters none.
 */
export function askForKey(refused) {
  pending ??= new Promise((resolve, reject) => {
    document.getElementById("key-refused").hidden = !refused;
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
