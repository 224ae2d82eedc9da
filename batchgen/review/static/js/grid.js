// The grid: only the tiles that can be seen exist, for any number of images.

import { get } from "./api.js";
import { find } from "./dom.js";
import { clickTile, dropTile, fillTile, makeTile } from "./tile.js";

const OVERSCAN = 2;
const MOST_TILES = 360;
const LABEL = 34;
const PAD = 10;
const SIZE = "batchgen-tile";

export const storedSize = () => Number(localStorage.getItem(SIZE)) || 200;
export const storeSize = (size) => localStorage.setItem(SIZE, String(size));

export class Grid {
  constructor(store, { open }) {
    this.store = store;
    this.box = find("grid");
    this.sizer = find("sizer");
    this.tiles = new Map();
    this.size = storedSize();
    this.columns = 1;
    this.box.addEventListener("scroll", () => this.#soon());
    new ResizeObserver(() => this.layout()).observe(this.box);
    store.addEventListener("index", () => { this.layout(); this.refresh(this.tiles.keys()); });
    store.addEventListener("rows", (event) => this.refresh(event.detail.ids));
    store.addEventListener("cursor", () => { this.reveal(); this.mark(); });
    store.addEventListener("selection", () => this.mark());
    this.box.addEventListener("click", (event) => clickTile(event, store, open));
    this.box.addEventListener("dblclick", () => open());
  }

  // The images of a view in order.
  load(query) { return get(`/api/index?${query}`); }

  setSize(size) {
    this.size = size;
    storeSize(size);
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

  move(command, { extend }) {
    const steps = { left: -1, right: 1, up: -this.columns, down: this.columns, home: -Infinity, end: Infinity, "page-up": -this.page, "page-down": this.page };
    this.store.moveTo(this.store.cursor + steps[command], { extend });
  }

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
        dropTile(tile);
        this.tiles.delete(id);
      }
    }
    for (let place = first; place < last; place++) {
      const id = ids[place];
      if (!this.tiles.has(id)) {
        const tile = makeTile(id, "option");
        this.#fill(tile, id);
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

  #fill(tile, id) { fillTile(tile, this.store, id, (row) => row.key); }

  refresh(ids) {
    for (const id of ids) {
      const tile = this.tiles.get(id);
      if (tile) this.#fill(tile, id);
    }
    this.mark();
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
}
