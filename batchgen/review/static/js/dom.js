// Elements without HTML strings: texts of tables and providers are only ever text nodes.

export const find = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (key in element && key !== "list") element[key] = value;
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

export function diffNodes(parts) {
  return parts.map(([kind, text]) => (kind === "same" ? document.createTextNode(text) : make(kind, {}, text)));
}

export function toast(text, milliseconds = 4000) {
  const element = make("p", { class: "toast" }, text);
  find("toasts").append(element);
  setTimeout(() => element.remove(), milliseconds);
}

// Show a dialog; resolves to what `read` makes of the value of the button that the person chose, or
// of "" after Escape. It reads when the dialog is left: at the close event it would be too late, as
// a busy browser handles the next key before that.
export function asked(dialog, read) {
  dialog.showModal();
  const left = new AbortController();
  const on = (type, handler) => dialog.addEventListener(type, handler, { signal: left.signal });
  return new Promise((resolve) => {
    const leave = (value) => {
      left.abort();
      if (dialog.open) dialog.close();
      resolve(read(value));
    };
    on("submit", (event) => { event.preventDefault(); leave(event.submitter.value); });
    on("cancel", (event) => { event.preventDefault(); leave(""); });
    on("close", () => { if (!dialog.open) leave(""); });
  });
}

// Ask in a dialog; resolves to whether the person agreed.
export function confirmed(title, text, yes) {
  find("confirm-title").textContent = title;
  find("confirm-text").textContent = text;
  find("confirm-yes").textContent = yes;
  return asked(find("confirm-dialog"), (value) => value === "yes");
}
