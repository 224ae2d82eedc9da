// The redo dialog: a note, or another prompt with its word diff.

import { asked, diffNodes, find } from "./dom.js";
import { wordDiff } from "./format.js";

// Ask what to do otherwise. Resolves to {note, prompt}, or null where the person leaves; `present`
// is the present prompt or a promise of it, or null for several images, which get a note only.
export function askRedo(title, present) {
  const [dialog, note, text] = [find("redo-dialog"), find("redo-note"), find("redo-prompt")];
  find("redo-about").textContent = title;
  find("redo-prompt-label").hidden = present === null;
  let [prompt, isOpen] = [null, true];
  note.value = text.value = "";
  text.disabled = true;
  const diff = () => {
    const changed = prompt !== null && text.value.trim() !== prompt;
    find("redo-diff").replaceChildren(...(changed ? diffNodes(wordDiff(prompt, text.value.trim())) : []));
  };
  text.oninput = diff;
  dialog.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); find("redo-send").click(); }
  };
  Promise.resolve(present).then((loaded) => {
    if (!isOpen) return; // the dialog may be about another image by now
    prompt = text.value = loaded ?? "";
    text.disabled = false;
    diff();
  }, () => {});
  diff();
  const wish = asked(dialog, (value) => {
    isOpen = false;
    const own = text.value.trim();
    return value !== "send" ? null : { note: note.value.trim(), prompt: prompt === null || own === prompt || !own ? null : own };
  });
  note.focus();
  return wish;
}
