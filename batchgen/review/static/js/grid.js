// The grid: only the tiles that can be seen exist, for any number of images.

import { find, icon, make } from "./dom.js";
import { LETTERS, WORDS, capital } from "./format.js";

const OVERSCAN = 2;
const MOST_TILES = 360;
const LABEL = 34;
const PAD = 10;
const SIZE = "batchgen-tile";

export class Grid {
  constructor(store, { open }) {
    this.store = store;
    this.open = open;
    this.box = find("grid");
    this.sizer = find("sizer");
    this.tiles = new Map();
    this.size = Number(localStorage.getItem(SIZE)) || 200;
    this.columns = 1;
    this.box.addEventListener("scroll", () => this.#soon());
    new ResizeObserver(() => this.layout()).observe(this.box);
    store.addEventListener("index", () => { this.layout(); this.refresh(this.tiles.keys()); });
    store.addEventListener("rows", (event) => this.refresh(event.detail.ids));
    store.addEventListener("cursor", () => { this.reveal(); this.mark(); });
    store.addEventListener("selection", () => this.mark());
    this.box.addEventListener("click", (event) => this.#click(event));
    this.box.addEventListener("dblclick", () => this.open());
  }

  setSize(size) {
    this.size = size;
    localStorage.setItem(SIZE, String(size));
    this.layout();
    this.reveal();
  }

  layout() {
    const width = this.box.clientWidth - 2 * PAD;
    if (width <= 0) return;
    let size = Math.min(this.size, width / 2);
    do {
      this.columns = Math.max(1, Math.floor(width / size));
      this.width = width / this.columns;
      this.height = this.width + LABEL - 12;
      size *= 1.1;
    } while ((Math.ceil(this.box.clientHeight / this.height) + 2 * OVERSCAN + 1) * this.columns > MOST_TILES);
    this.box.classList.toggle("small", this.width < 200);
    this.sizer.style.height = `${Math.ceil(this.store.ids.length / this.columns) * this.height + 2 * PAD}px`;
    find("empty").hidden = this.store.ids.length > 0 || !this.store.batch;
    this.render();
  }

  get page() { return Math.max(1, Math.floor(this.box.clientHeight / this.height)) * this.columns; }

  #soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); });
  }

  render() {
    const { ids } = this.store;
    const first = Math.max(0, Math.floor((this.box.scrollTop - PAD) / this.height) - OVERSCAN) * this.columns;
    const rows = Math.ceil(this.box.clientHeight / this.height) + 2 * OVERSCAN + 1;
    const last = Math.min(ids.length, first + rows * this.columns);
    const shown = new Set(ids.slice(first, last));
    for (const [id, tile] of this.tiles) {
      if (!shown.has(id)) {
        tile.querySelector("img")?.removeAttribute("src");
        tile.remove();
        this.tiles.delete(id);
      }
    }
    for (let place = first; place < last; place++) {
      const id = ids[place];
      if (!this.tiles.has(id)) {
        const tile = this.#tile(id);
        this.tiles.set(id, tile);
        this.sizer.append(tile);
      }
      this.#move(this.tiles.get(id), place);
    }
    this.store.want(shown);
    this.mark();
  }

  // Tiles stay in the document while they can be seen: a click or a reader's place survives a new index.
  #move(tile, place) {
    const [row, column] = [Math.floor(place / this.columns), place % this.columns];
    const where = [
      `translate(${PAD + column * this.width}px, ${PAD + row * this.height}px)`,
      `${this.width}px`, `${this.height}px`, String(this.store.ids.length), String(place + 1),
    ];
    const key = where.join(" ");
    if (tile.where === key) return;
    tile.where = key;
    [tile.style.transform, tile.style.width, tile.style.height] = where;
    tile.setAttribute("aria-setsize", where[3]);
    tile.setAttribute("aria-posinset", where[4]);
  }

  #tile(id) {
    const tile = make("div", { class: "tile", id: `tile-${id}`, role: "option" });
    tile.append(
      make("div", { class: "mat" }),
      make("div", { class: "badges" }),
      make("div", { class: "label" }, make("span", { class: "key" }), make("span", { class: "by" })),
    );
    this.#fill(tile, id);
    return tile;
  }

  refresh(ids) {
    for (const id of ids) {
      const tile = this.tiles.get(id);
      if (tile) this.#fill(tile, id);
    }
    this.mark();
  }

  #fill(tile, id) {
    const row = this.store.rows.get(id);
    const decision = LETTERS[this.store.letters.get(id) ?? "-"];
    tile.dataset.decision = this.store.letters.get(id) ?? "-";
    tile.dataset.pending = this.store.pending.has(id) ? "yes" : "";
    const badges = tile.querySelector(".badges");
    badges.replaceChildren();
    if (!row) {
      tile.setAttribute("aria-label", "loading");
      return;
    }
    const gone = row.state !== "saved";
    tile.classList.toggle("gone", gone);
    tile.setAttribute("aria-label", `${row.key}, ${gone ? "replaced" : WORDS[decision]}`);
    tile.querySelector(".key").textContent = row.key;
    tile.title = row.key;
    tile.querySelector(".by").textContent = row.decided_by && decision !== "clear" ? row.decided_by : "";
    this.#show(tile.querySelector(".mat"), row, gone);
    if (row.warnings) badges.append(badge("warning", "warning", "Warning"));
    if (row.unpublished) badges.append(badge("before", "waiting", "Not published"));
    else if (row.replaces) badges.append(badge("before", "", "Replaced"));
    if (this.store.pending.has(id)) badges.append(make("span", { class: "badge decision pending" }, "saving…"));
    else if (decision !== "clear") badges.append(badge(decision, `decision ${decision}`, capital(WORDS[decision])));
  }

  #show(mat, row, gone) {
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

  mark() {
    const current = this.store.current;
    for (const [id, tile] of this.tiles) {
      tile.classList.toggle("current", id === current);
      tile.setAttribute("aria-selected", String(this.store.selected.has(id)));
    }
    if (this.tiles.has(current)) this.box.setAttribute("aria-activedescendant", `tile-${current}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  reveal() {
    if (!this.height) return;
    const top = PAD + Math.floor(this.store.cursor / this.columns) * this.height;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top - PAD;
    else if (top + this.height > scrollTop + clientHeight) this.box.scrollTop = top + this.height - clientHeight + PAD;
  }

  #click(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const id = Number(tile.id.slice(5));
    const place = this.store.at.get(id);
    if (event.ctrlKey || event.metaKey) {
      if (!this.store.selected.delete(id)) this.store.selected.add(id);
      this.store.moveTo(place);
      this.store.changed("selection");
    } else if (event.shiftKey) {
      this.store.moveTo(place, { extend: true });
    } else {
      const again = place === this.store.cursor && event.detail === 1 && matchMedia("(pointer: coarse)").matches;
      this.store.moveTo(place);
      if (again) this.open();
    }
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
