// One image as a tile: its thumbnail, its badges and a label.

import { icon, make } from "./dom.js";
import { LETTERS, WORDS, capital } from "./format.js";

export function makeTile(id, role) {
  return make("div", { class: "tile", id: `tile-${id}`, role },
    make("div", { class: "mat" }),
    make("div", { class: "badges" }),
    make("div", { class: "label" }, make("span", { class: "key" }), make("span", { class: "by" })),
  );
}

// Show what the store knows of an image; `label` makes the text below it.
export function fillTile(tile, store, id, label) {
  const row = store.rows.get(id);
  tile.dataset.decision = store.letters.get(id) ?? "-";
  tile.dataset.pending = store.pending.has(id) ? "yes" : "";
  const badges = tile.querySelector(".badges");
  badges.replaceChildren();
  if (tile.role) tile.setAttribute("aria-label", described(store, id));
  if (!row) return;
  const decision = LETTERS[tile.dataset.decision];
  const gone = row.state !== "saved";
  tile.classList.toggle("gone", gone);
  tile.querySelector(".key").textContent = label(row);
  tile.title = row.key;
  tile.querySelector(".by").textContent = row.decided_by && decision !== "clear" ? row.decided_by : "";
  show(tile.querySelector(".mat"), row, gone);
  if (row.warnings) badges.append(badge("warning", "warning", "Warning"));
  if (row.unpublished) badges.append(badge("before", "waiting", "Not published"));
  else if (row.replaces) badges.append(badge("before", "", "Replaced"));
  if (store.pending.has(id)) badges.append(make("span", { class: "badge decision pending" }, "saving…"));
  else if (decision !== "clear") badges.append(badge(decision, `decision ${decision}`, capital(WORDS[decision])));
}

// An image in words, for a reader of the screen.
export function described(store, id) {
  const row = store.rows.get(id);
  if (!row) return "loading";
  return `${row.key}, ${row.state === "saved" ? WORDS[LETTERS[store.letters.get(id) ?? "-"]] : "replaced"}`;
}

export function dropTile(tile) {
  tile.querySelector("img")?.removeAttribute("src");
  tile.remove();
}

function show(mat, row, gone) {
  const wanted = row.sha256 ?? "";
  if (mat.dataset.sha256 === wanted && !gone) return;
  mat.dataset.sha256 = wanted;
  if (gone) {
    mat.replaceChildren(make("p", { class: "note" }, row.state === "published" ? "published; a new image waits for your decision" : "replaced by a newer image"));
  } else if (row.format === "mp4") {
    mat.replaceChildren(make("p", { class: "note" }, "video; open it to play"));
  } else {
    const image = make("img", { alt: "", decoding: "async", draggable: false });
    image.addEventListener("error", () => explain(mat, image.src));
    image.src = `/thumb/${row.id}/320?v=${wanted.slice(0, 12)}`;
    mat.replaceChildren(image);
  }
}

// A click moves to an image; with a key it selects; on a touch screen a second tap opens.
export function clickTile(event, store, open) {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const id = Number(tile.id.slice(5));
  const place = store.at.get(id);
  if (event.ctrlKey || event.metaKey) {
    if (!store.selected.delete(id)) store.selected.add(id);
    store.moveTo(place);
    store.changed("selection");
  } else if (event.shiftKey) {
    store.moveTo(place, { extend: true });
  } else {
    const again = id === store.current && event.detail === 1 && matchMedia("(pointer: coarse)").matches;
    store.moveTo(place);
    if (again) open();
  }
}

function badge(name, kind, text) {
  return make("span", { class: `badge ${kind}` }, icon(name), text);
}

// Say in place of an image why it cannot be shown.
export async function explain(mat, source) {
  let text = "the image cannot be shown";
  try {
    const response = await fetch(source);
    if (response.status === 404) text = (await response.json()).error;
  } catch { text = "the server cannot be reached"; }
  mat.replaceChildren(make("p", { class: "note" }, text));
}
