// The comparison grid: a row for each line of the table, a column for each combination of axes.
// Only the cells that can be seen exist.

import { get } from "./api.js";
import { find, make } from "./dom.js";
import { dollars, duration } from "./format.js";
import { storedSize, storeSize } from "./grid.js";
import { MatrixHeads, placed } from "./matrix_heads.js";
import { clickTile, described, dropTile, fillTile, makeTile } from "./tile.js";

const OVERSCAN = 1;
const MOST_TILES = 360;
const MOST_IN_A_CELL = 9;
const SLIM = 280;
const SIDE = 250;
const STACKED_SIDE = 44;
const NARROW = 760;
const LABEL = 22;
const NOTE = 20;
const GAP = 8;
const STRETCH = 1.7;
const LEAST_OF_SEVERAL = 130;
const STATES = {
  p: "not made yet", s: "request in flight", $: "paid, image not fetched yet", f: "failed", b: "blocked",
  u: "uncertain", d: "image not in this view",
};

export class Matrix {
  constructor(store, { open, reload, hides }) {
    Object.assign(this, { store, reload, hides });
    this.box = find("grid");
    this.sizer = find("sizer");
    this.header = new MatrixHeads(find("heads"), this, { select: (column) => this.#select(column) });
    this.tiles = new Map();
    this.lines = new Map();
    this.size = storedSize();
    this.axes = JSON.parse(new URLSearchParams(location.search).get("axes") ?? "[]");
    this.at = { row: 0, column: 0, image: 0 };
    this.#forget();
    this.box.addEventListener("scroll", () => this.#soon());
    new ResizeObserver(() => this.layout()).observe(this.box);
    store.addEventListener("index", () => { this.#follow(); this.layout(); this.refresh(this.tiles.keys()); this.#arrive(); });
    store.addEventListener("rows", (event) => { this.refresh(event.detail.ids); this.header.sum(); });
    store.addEventListener("cursor", () => { this.#follow(); this.reveal(); this.mark(); });
    store.addEventListener("selection", () => this.mark());
    this.box.addEventListener("click", (event) => this.#click(event, open));
    this.box.addEventListener("dblclick", (event) => event.target.closest(".tile") && open());
    find("swap").addEventListener("click", () => this.swap());
  }

  #forget() {
    Object.assign(this, { version: null, rows: [], columns: [], heads: [], images: [], states: [], reasons: {}, possible: {}, totals: [], shown: [], places: new Map() });
  }

  // The images of a view in the order of the cells. While a person looks, images stay in their cells.
  async load(query, { live = false } = {}) {
    const asked = new URLSearchParams(query);
    asked.delete("sort");
    asked.set("axes", JSON.stringify(this.axes));
    try {
      let cells = await get(`/api/comparison/cells?${asked}`);
      while (cells.version !== this.version) {
        Object.assign(this, await get(`/api/comparison/rows?axes=${encodeURIComponent(JSON.stringify(this.axes))}`));
        live = false;
        if (cells.version !== this.version) cells = await get(`/api/comparison/cells?${asked}`);
      }
      return this.#take(cells, live && asked.has("decisions"));
    } catch (error) {
      if (error.status !== 409) throw error;
      this.#forget();
      this.trouble = error.message;
      return { ids: [], decisions: "" };
    } finally { this.#choices(); }
  }

  #take(cells, keeps) {
    this.trouble = "";
    const letters = new Map(cells.images.flat().map((id, place) => [id, cells.decisions[place]]));
    if (keeps) this.#keep(cells.images, letters);
    Object.assign(this, cells);
    const held = (row) => this.columns.some((_, column) => this.cell(row, column).length);
    const all = this.rows.map((_, row) => row);
    this.shown = this.hides() ? all.filter(held) : all;
    this.most = Math.max(1, ...this.images.map((ids) => ids.length));
    this.hasNotes = this.images.some((ids, place) => ids.length && this.#note(place));
    const ids = [];
    this.places = new Map();
    this.shown.forEach((own, row) => this.columns.forEach((_, column) => this.cell(own, column).forEach((id, image) => {
      this.places.set(id, { row, column, image });
      ids.push(id);
    })));
    return { ids, decisions: ids.map((id) => letters.get(id)).join("") };
  }

  // Under a filter for decisions an image stays until the person chooses another view.
  #keep(images, letters) {
    this.images.forEach((before, place) => {
      const gone = before.filter((id) => !letters.has(id));
      for (const id of gone) { letters.set(id, this.store.letters.get(id)); this.store.rows.delete(id); }
      images[place] = [...gone, ...images[place]];
    });
  }

  cell(row, column) { return this.images[row * this.columns.length + column] ?? []; }

  // What the jobs of a cell are at, other than done; empty if there is nothing to say.
  #note(place) {
    const states = [...new Set(this.states[place] ?? "")].filter((letter) => letter !== "d" || !this.images[place].length);
    return states.map((letter) => STATES[letter]).join(", ") || (this.images[place].length ? "" : "no job");
  }

  choose(axes) {
    const query = new URLSearchParams(location.search);
    this.axes = axes;
    query.set("axes", JSON.stringify(axes));
    history.replaceState(null, "", `${location.pathname}?${query}`);
    this.reload();
  }

  // Exchange the axes of columns and rows; if all are columns, change their order.
  swap() {
    const rest = this.store.batch.axes.filter((name) => !this.axes.includes(name));
    this.choose(rest.length ? rest : [...this.axes.slice(1), this.axes[0]]);
  }

  #choices() {
    const all = this.store.batch.axes;
    const names = [...this.axes, ...all.filter((name) => !this.axes.includes(name))];
    const drawn = JSON.stringify([this.axes, all]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    find("axes").hidden = all.length < 2;
    find("axis-chips").replaceChildren(...(all.length < 2 ? [] : names).map((name) => {
      const on = this.axes.includes(name);
      return make("button", {
        type: "button", class: "chip", "aria-pressed": String(on), "data-axis": name, disabled: on && this.axes.length === 1,
        onclick: () => this.choose(on ? this.axes.filter((one) => one !== name) : [...this.axes, name]),
      }, name);
    }));
  }

  setSize(size) {
    this.size = size;
    storeSize(size);
    this.layout();
    this.reveal();
  }

  layout() {
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    const { columns } = this;
    if (width <= 0) return;
    find("empty").hidden = this.shown.length > 0 || !this.store.batch;
    if (this.trouble) find("empty").textContent = `${this.trouble}`;
    this.header.box.hidden = !columns.length;
    this.stacked = width < NARROW;
    this.side = this.stacked ? 0 : SIDE;
    this.perCell = Math.min(MOST_IN_A_CELL, this.most ?? 1);
    this.across = Math.ceil(Math.sqrt(this.perCell));
    const space = (width - this.side) / Math.max(1, columns.length);
    let size = Math.max(this.size, this.across > 1 ? this.across * LEAST_OF_SEVERAL : 0);
    if (this.stacked) size = Math.min(size, this.across > 1 ? width : width / 2);
    do {
      this.width = Math.min(Math.max(size, Math.min(space, size * STRETCH)), Math.max(size, width - this.side));
      this.top = this.header.height(this.width < SLIM);
      this.tile = { width: (this.width - GAP) / this.across, height: (this.width - GAP) / this.across + LABEL - 12 };
      this.height = Math.ceil(this.perCell / this.across) * this.tile.height + GAP + (this.hasNotes ? NOTE : 0) + (this.stacked ? STACKED_SIDE : 0);
      size *= 1.1;
    } while (this.#rowsSeen(height) * this.#columnsSeen(width) * this.perCell > MOST_TILES);
    this.box.classList.toggle("small", this.tile.width < 200);
    this.box.classList.toggle("tiny", this.tile.width < 120);
    this.box.classList.toggle("slim", this.width < SLIM);
    this.box.classList.toggle("stacked", this.stacked);
    this.sizer.style.height = `${this.top + this.shown.length * this.height + GAP}px`;
    this.sizer.style.width = `${this.side + columns.length * this.width}px`;
    this.sizer.style.setProperty("--side", `${this.side}px`);
    this.sizer.style.setProperty("--seen", `${width}px`);
    this.box.setAttribute("aria-rowcount", String(this.shown.length + this.axes.length + 1));
    this.box.setAttribute("aria-colcount", String(columns.length + 1));
    this.#rebuild();
    this.render();
  }

  // Cells and heads stay in the document while they keep their places: a click or a reader's place
  // survives a new index.
  #rebuild() {
    const built = JSON.stringify([this.version, this.width, this.height, this.side, this.top, this.perCell, this.stacked]);
    if (built !== this.built) {
      this.built = built;
      this.header.draw();
      for (const [row, line] of this.lines) this.#drop(row, line);
    }
    this.header.sum();
  }

  #rowsSeen(height) { return Math.min(this.shown.length, Math.ceil((height - this.top) / this.height) + 2 * OVERSCAN + 1); }

  #columnsSeen(width) { return Math.min(this.columns.length, Math.ceil((width - this.side) / this.width) + 2 * OVERSCAN); }

  #select(column) {
    this.store.selected.clear();
    for (const row of this.shown) for (const id of this.cell(row, column)) this.store.selected.add(id);
    this.store.changed("selection");
    this.box.focus({ preventScroll: true });
  }

  get page() { return Math.max(1, Math.floor((this.box.clientHeight - this.top) / this.height)); }

  #soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); });
  }

  render() {
    if (!this.height) return;
    const [rows, columns] = [this.#rowsSeen(this.box.clientHeight), this.#columnsSeen(this.box.clientWidth)];
    const first = Math.max(0, Math.min(this.shown.length - rows, Math.floor(this.box.scrollTop / this.height) - OVERSCAN));
    const left = Math.max(0, Math.min(this.columns.length - columns, Math.floor(this.box.scrollLeft / this.width) - OVERSCAN));
    for (const [row, line] of this.lines) if (row < first || row >= first + rows || line.own !== this.shown[row]) this.#drop(row, line);
    const wanted = [];
    for (let row = first; row < first + rows; row++) {
      if (!this.lines.has(row)) this.#line(row);
      const line = this.lines.get(row);
      for (const [column, cell] of line.cells) if (column < left || column >= left + columns) this.#dropCell(line, column, cell);
      for (let column = left; column < left + columns; column++) this.#fillCell(line, row, column, wanted);
    }
    this.store.want(wanted);
    this.mark();
  }

  #drop(row, line) {
    for (const [column, cell] of line.cells) this.#dropCell(line, column, cell);
    line.remove();
    this.lines.delete(row);
  }

  #dropCell(line, column, cell) {
    this.#empty(cell);
    cell.remove();
    line.cells.delete(column);
  }

  #empty(cell) {
    for (const tile of cell.querySelectorAll(".tile")) {
      const id = Number(tile.id.slice(5));
      dropTile(tile);
      if (this.tiles.get(id) === tile) this.tiles.delete(id);
    }
    cell.replaceChildren();
  }

  #line(row) {
    const { source, others, prompt } = this.rows[this.shown[row]];
    const text = [others, prompt].filter(Boolean).join("\n");
    const side = make("div", { class: "side", role: "rowheader", "aria-colindex": "1", title: `${text}\n${source}` },
      others ? make("p", { class: "others" }, others) : null, make("p", { class: "text" }, prompt || (others ? "" : source)), make("p", { class: "muted source" }, source));
    const line = make("div", { class: "line", role: "row", "aria-rowindex": String(row + this.axes.length + 2) }, side);
    line.style.height = `${this.height}px`;
    line.style.transform = `translateY(${this.top + row * this.height}px)`;
    line.own = this.shown[row];
    line.cells = new Map();
    this.lines.set(row, line);
    const after = [...this.lines].filter(([other]) => other > row).sort(([one], [other]) => one - other)[0];
    this.sizer.insertBefore(line, after ? after[1] : null);
  }

  #fillCell(line, row, column, wanted) {
    let cell = line.cells.get(column);
    if (!cell) {
      cell = placed(make("div", { class: "cell", id: `cell-${row}-${column}`, role: "gridcell", "aria-colindex": String(column + 2) }), this.side + column * this.width, this.width);
      line.cells.set(column, cell);
      const after = [...line.cells].filter(([other]) => other > column).sort(([one], [other]) => one - other)[0];
      line.insertBefore(cell, after ? after[1] : null);
    }
    const place = line.own * this.columns.length + column;
    const all = this.images[place] ?? [];
    const start = this.#start(row, column);
    const ids = all.slice(start, start + MOST_IN_A_CELL);
    wanted.push(...ids);
    const note = this.#note(place);
    const key = JSON.stringify([ids, all.length, note, this.reasons[place], this.possible[place]]);
    if (cell.key === key && ids.every((id) => this.tiles.get(id)?.parentElement === cell)) return;
    cell.key = key;
    this.#empty(cell);
    ids.forEach((id, image) => {
      const tile = makeTile(id, null);
      [tile.style.width, tile.style.height] = [`${this.tile.width}px`, `${this.tile.height}px`];
      tile.style.transform = `translate(${GAP / 2 + (image % this.across) * this.tile.width}px, ${GAP / 2 + Math.floor(image / this.across) * this.tile.height}px)`;
      this.tiles.set(id, tile);
      this.#fill(tile, id);
      cell.append(tile);
    });
    if (all.length > MOST_IN_A_CELL) cell.append(make("p", { class: "more-images badge" }, `${start + 1} to ${start + ids.length} of ${all.length}`));
    if (!all.length) cell.append(this.#hole(place, note));
    else if (note) cell.append(make("p", { class: `cell-note ${kindOf(this.states[place])}`, title: this.#words(place, note) }, this.#words(place, note)));
  }

  // Of a cell with very many images, those around the place of the person are shown.
  #start(row, column) {
    const { at } = this;
    return at.row === row && at.column === column ? Math.floor(at.image / MOST_IN_A_CELL) * MOST_IN_A_CELL : 0;
  }

  #words(place, note) {
    const possible = this.possible[place] ? `possibly charged ${dollars(this.possible[place])}` : "";
    return [note, possible, this.reasons[place]].filter(Boolean).join(": ");
  }

  #hole(place, note) {
    const rest = this.#words(place, "");
    return make("div", { class: `hole ${kindOf(this.states[place])}`, title: this.#words(place, note) }, make("p", {}, note), rest ? make("p", { class: "muted" }, rest) : null);
  }

  #fill(tile, id) {
    fillTile(tile, this.store, id, (row) => [dollars(row.cost), duration(row.seconds)].filter(Boolean).join(" · "));
  }

  refresh(ids) {
    for (const id of ids) {
      const tile = this.tiles.get(id);
      if (tile) this.#fill(tile, id);
    }
    this.mark();
  }

  mark() {
    const { current, selected } = this.store;
    for (const [id, tile] of this.tiles) {
      tile.classList.toggle("current", id === current);
      tile.classList.toggle("selected", selected.has(id));
    }
    for (const [row, line] of this.lines) for (const [column, cell] of line.cells) this.#markCell(row, column, cell);
    const { row, column } = this.at;
    if (this.lines.get(row)?.cells.has(column)) this.box.setAttribute("aria-activedescendant", `cell-${row}-${column}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  #markCell(row, column, cell) {
    const isHere = this.at.row === row && this.at.column === column;
    cell.classList.toggle("current", isHere);
    const place = this.shown[row] * this.columns.length + column;
    const ids = this.images[place] ?? [];
    const note = this.#words(place, this.#note(place));
    const image = isHere ? this.at.image : 0;
    const words = ids.length ? `${this.#said(ids[image])}${ids.length > 1 ? `, image ${image + 1} of ${ids.length}` : ""}` : "";
    cell.setAttribute("aria-label", `${this.columns[column].join(", ")}: ${[words, note].filter(Boolean).join("; ")}`);
    cell.setAttribute("aria-selected", String(ids.length > 0 && ids.every((id) => this.store.selected.has(id))));
  }

  #said(id) {
    const row = this.store.rows.get(id);
    return [described(this.store, id), row && dollars(row.cost), row && duration(row.seconds)].filter(Boolean).join(", ");
  }

  // Where the person is: the cell of the current image, or one without an image.
  #follow() {
    const found = this.places.get(this.store.current);
    if (found) this.at = found;
    else this.at = { row: bounded(this.at.row, this.shown.length), column: bounded(this.at.column, this.columns.length), image: 0 };
  }

  // The image for which a person waited in an empty cell.
  #arrive() {
    const id = this.store.off ? this.cell(this.shown[this.at.row], this.at.column)[0] : undefined;
    if (id !== undefined) this.store.moveTo(this.store.at.get(id));
  }

  move(command, { extend }) {
    const { row, column, image } = this.at;
    const last = (cell) => Math.max(0, this.cell(this.shown[cell.row], cell.column).length - 1);
    if (command === "left" && image > 0) return this.#go({ row, column, image: image - 1 }, extend);
    if (command === "right" && image < last(this.at)) return this.#go({ row, column, image: image + 1 }, extend);
    const to = {
      left: [row, column - 1], right: [row, column + 1], up: [row - 1, column], down: [row + 1, column], "page-up": [row - this.page, column],
      "page-down": [row + this.page, column], home: [0, 0], end: [this.shown.length - 1, this.columns.length - 1],
    }[command];
    const next = { row: bounded(to[0], this.shown.length), column: bounded(to[1], this.columns.length), image: 0 };
    if (next.row === row && next.column === column) return undefined;
    if (command === "left") next.image = last(next);
    else if (command !== "right") next.image = Math.min(image, last(next));
    return this.#go(next, extend);
  }

  #go(at, extend) {
    if (!this.shown.length) return;
    this.at = at;
    const id = this.cell(this.shown[at.row], at.column)[at.image];
    if (extend) {
      for (const one of [this.store.current, id]) if (one !== undefined) this.store.selected.add(one);
      this.store.changed("selection");
    }
    if (id !== undefined) this.store.moveTo(this.store.at.get(id));
    else this.store.leave(this.#before(at));
    this.render();
  }

  // The place of the last image before a cell, from which the next undecided one is looked for.
  #before({ row, column }) {
    for (let place = row * this.columns.length + column - 1; place >= 0; place--) {
      const id = this.cell(this.shown[Math.floor(place / this.columns.length)], place % this.columns.length).at(-1);
      if (id !== undefined) return this.store.at.get(id);
    }
    return this.store.ids.length - 1;
  }

  reveal() {
    if (!this.height || !this.shown.length) return;
    const { row, column } = this.at;
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.box;
    const [top, left] = [row * this.height, column * this.width];
    const [high, wide] = [clientHeight - this.top, clientWidth - this.side];
    if (top < scrollTop) this.box.scrollTop = top;
    else if (top + this.height > scrollTop + high) this.box.scrollTop = Math.min(top, top + this.height - high + GAP);
    if (left < scrollLeft) this.box.scrollLeft = left;
    else if (left + this.width > scrollLeft + wide) this.box.scrollLeft = Math.min(left, left + this.width - wide);
  }

  #click(event, open) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    if (event.target.closest(".tile")) clickTile(event, this.store, open);
    else this.#go({ row: Number(cell.id.split("-")[1]), column: Number(cell.id.split("-")[2]), image: 0 }, false);
  }
}

function bounded(value, length) { return Math.max(0, Math.min(length - 1, value)); }

function kindOf(states) {
  if (/[fb]/.test(states)) return "bad";
  return /[u$]/.test(states) ? "open" : "";
}
