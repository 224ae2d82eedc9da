// The redo dialog: a note, or another prompt with its word diff.

import { diffNodes, find } from "./dom.js";
import { wordDiff } from "./format.js";

// Settles the promise of the dialog that is open, or was closed without its close event so far.
let settle = null;

// Ask what to do otherwise. Resolves to {note, prompt}, or null where the person leaves; `present`
// is the present prompt or a promise of it, or null for several images, which get a note only.
export function askRedo(title, present) {
  settle?.();
  const [dialog, note, text] = [find("redo-dialog"), find("redo-note"), find("redo-prompt")];
  find("redo-about").textContent = title;
  find("redo-prompt-label").hidden = present === null;
  let prompt = null;
  note.value = text.value = "";
  text.disabled = true;
  const diff = () => {
    const changed = prompt !== null && text.value.trim() !== prompt;
    find("redo-diff").replaceChildren(...(changed ? diffNodes(wordDiff(prompt, text.value.trim())) : []));
  };
  const enter = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); leave("send"); }
  };
  // Not at the close event: a browser may handle the next key before it.
  const leave = (value) => { dialog.close(value); settle?.(); };
  const submitted = (event) => { event.preventDefault(); leave("send"); };
  text.addEventListener("input", diff);
  dialog.addEventListener("keydown", enter);
  dialog.addEventListener("submit", submitted);
  find("redo-cancel").onclick = () => leave("cancel");
  find("redo-send").value = "send";
  dialog.returnValue = "cancel";
  Promise.resolve(present).then((loaded) => {
    prompt = text.value = loaded ?? "";
    text.disabled = false;
    diff();
  }, () => {});
  diff();
  dialog.showModal();
  note.focus();
  return new Promise((resolve) => {
    const closed = () => { if (!dialog.open) settle?.(); };
    settle = () => {
      settle = null;
      dialog.removeEventListener("close", closed);
      text.removeEventListener("input", diff);
      dialog.removeEventListener("keydown", enter);
      dialog.removeEventListener("submit", submitted);
      if (dialog.returnValue !== "send") { resolve(null); return; }
      const own = text.value.trim();
      resolve({ note: note.value.trim(), prompt: prompt === null || own === prompt || !own ? null : own });
    };
    dialog.addEventListener("close", closed);
  });
}
