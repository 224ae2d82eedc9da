// Keys: one bare key for one command, changed by the person, silent while one types.

import { find, make } from "./dom.js";

const STORED = "batchgen-keys";

export const COMMANDS = {
  left: ["Move left", "ArrowLeft"], right: ["Move right", "ArrowRight"], up: ["Move up", "ArrowUp"], down: ["Move down", "ArrowDown"],
  "left-2": ["Move left (other key)", "h"], "right-2": ["Move right (other key)", "l"], "up-2": ["Move up (other key)", "k"], "down-2": ["Move down (other key)", "j"],
  home: ["First image", "Home"], end: ["Last image", "End"], "page-up": ["A page up", "PageUp"], "page-down": ["A page down", "PageDown"],
  open: ["Open the image", "Enter"], grid: ["Grid", "g"], leave: ["Back", "Escape"],
  accept: ["Accept", "a"], reject: ["Reject", "x"], redo: ["Redo with a note or prompt", "r"], undo: ["Undo", "u"],
  flip: ["Before and after; hold to flip", " "], compare: ["Compare selected or related images", "c"],
  zoom: ["Actual size", "z"], full: ["Full screen", "f"], next: ["Next undecided image", "n"], filter: ["Search and filter", "/"],
  select: ["Select or unselect", "s"], swap: ["Exchange the axes of a comparison", "t"], line: ["Copy the source line", "e"], help: ["Keys", "?"],
};

export class Keys {
  // `hidden` are commands that the page does not have.
  constructor(run, { hidden }) {
    Object.assign(this, { run, hidden });
    this.changes = JSON.parse(localStorage.getItem(STORED) ?? "{}");
    this.waiting = null;
    addEventListener("keydown", (event) => this.#down(event));
    addEventListener("keyup", (event) => this.#up(event));
    find("keys-reset").addEventListener("click", () => { this.changes = {}; this.#save(); });
    find("keys-dialog").addEventListener("close", () => { this.waiting = null; });
  }

  keyOf(command) { return this.changes[command] ?? COMMANDS[command][1]; }

  commandOf(key) {
    const wanted = key.length === 1 ? key.toLowerCase() : key;
    return Object.keys(COMMANDS).find((command) => this.keyOf(command) === wanted);
  }

  #down(event) {
    if (this.waiting) { this.#learn(event); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const command = this.commandOf(event.key);
    if (command && this.run(command, { shift: event.shiftKey, repeat: event.repeat })) event.preventDefault();
  }

  #up(event) {
    if (!isTyping(event.target) && this.commandOf(event.key) === "flip") this.run("unflip", {});
  }

  #learn(event) {
    event.preventDefault();
    event.stopPropagation();
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const [command, other] = [this.waiting, this.commandOf(event.key)];
    if (other && other !== command) this.changes[other] = this.keyOf(command);
    this.changes[command] = key;
    this.waiting = null;
    this.#save();
  }

  #save() {
    localStorage.setItem(STORED, JSON.stringify(this.changes));
    this.#list();
  }

  show() {
    this.#list();
    find("keys-dialog").showModal();
  }

  #list() {
    const box = find("keys-body");
    box.className = "keys";
    box.replaceChildren(...Object.entries(COMMANDS).filter(([command]) => !this.hidden.includes(command)).flatMap(([command, [text]]) => [
      make("span", {}, text),
      make("button", { type: "button", "data-command": command, onclick: () => { this.waiting = command; this.#list(); } },
        make("kbd", {}, this.waiting === command ? "press a key" : shown(this.keyOf(command)))),
    ]));
  }
}

function shown(key) {
  return { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" }[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

// Whether a key belongs to a text field, a menu or an open dialog.
function isTyping(target) {
  if (document.querySelector("dialog[open]")) return true;
  if (!(target instanceof Element)) return false;
  const field = target.closest("input, textarea, select, [contenteditable]");
  return field !== null && !(field instanceof HTMLInputElement && field.type === "checkbox");
}
