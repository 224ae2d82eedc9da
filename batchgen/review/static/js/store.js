// What the page knows: the images of the view in order, their decisions, and where the person is.

import { LETTER_OF } from "./format.js";
import { get } from "./api.js";

const CHUNK = 120;
const PLACE = "batchgen-place";

export class Store extends EventTarget {
  batch = null;
  ids = [];
  at = new Map();
  letters = new Map();
  rows = new Map();
  pending = new Map();
  selected = new Set();
  cursor = 0;
  // Whether the person is at a place without an image.
  off = false;
  counts = { accepted: 0, rejected: 0, undecided: 0 };
  #wanted = new Set();
  #changes = 0;
  #changedAt = new Map();
  #loading = false;

  changed(what, detail = {}) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }

  get current() { return this.off ? undefined : this.ids[this.cursor]; }

  // How often rows were set; an index that is requested now was read after all of these.
  get changes() { return this.#changes; }

  // Replace the view. With `merge`, known images keep their places and new ones come last; with
  // `keep`, what is selected stays so.
  // An index may have been read before decisions that the page learned of since it was `asked` for.
  setIndex({ ids, decisions }, { merge = false, keep = false, asked = this.#changes } = {}) {
    const before = this.current;
    const isNewerHere = (id) => this.letters.has(id) && (this.#changedAt.get(id) ?? 0) > asked;
    const letters = new Map(ids.map((id, place) => [id, isNewerHere(id) ? this.letters.get(id) : decisions[place]]));
    if (merge) {
      const gone = this.ids.filter((id) => !letters.has(id));
      for (const id of gone) this.rows.delete(id);
      const known = new Set(this.ids);
      this.ids = [...this.ids, ...ids.filter((id) => !known.has(id))];
      for (const [id, letter] of letters) this.letters.set(id, letter);
    } else {
      this.ids = ids;
      this.letters = letters;
      for (const id of [...this.selected]) if (!keep || !letters.has(id)) this.selected.delete(id);
    }
    this.at = new Map(this.ids.map((id, place) => [id, place]));
    this.cursor = this.at.get(before) ?? Math.min(this.cursor, Math.max(0, this.ids.length - 1));
    this.changed("index");
    this.changed("selection");
  }

  // An event may have been read before a decision that the page knows of already. Decisions are
  // only ever added, so the higher id is the newer state.
  setRows(given) {
    const rows = given.filter((row) => (row.decision_id ?? 0) >= (this.rows.get(row.id)?.decision_id ?? 0) || row.state !== "saved");
    this.#changes += 1;
    for (const row of rows) {
      this.rows.set(row.id, row);
      this.#changedAt.set(row.id, this.#changes);
      if (this.at.has(row.id)) this.letters.set(row.id, LETTER_OF[row.decision ?? "clear"]);
    }
    this.changed("rows", { ids: rows.map((row) => row.id) });
  }

  // Ask for rows that are about to be shown; many calls make few requests.
  want(ids) {
    for (const id of ids) if (!this.rows.has(id)) this.#wanted.add(id);
    if (this.#wanted.size && !this.#loading) this.#load();
  }

  async #load() {
    this.#loading = true;
    await Promise.resolve();
    while (this.#wanted.size) {
      const ids = [...this.#wanted].slice(-CHUNK);
      for (const id of ids) this.#wanted.delete(id);
      try {
        const rows = await get(`/api/images?ids=${ids.join(",")}`);
        const found = new Set(rows.map((row) => row.id));
        this.setRows([...rows, ...ids.filter((id) => !found.has(id)).map((id) => ({ id, state: "gone", key: "" }))]);
      } catch {
        this.#loading = false;
        setTimeout(() => this.want(ids), 1000);
        return;
      }
    }
    this.#loading = false;
  }

  // Drop rows that may have changed without a decision; returns their ids.
  forget(isStale) {
    const ids = [...this.rows.values()].filter(isStale).map((row) => row.id);
    for (const id of ids) this.rows.delete(id);
    return ids;
  }

  async row(id) {
    if (!this.rows.has(id)) this.setRows(await get(`/api/images?ids=${id}`));
    return this.rows.get(id);
  }

  async allRows(ids) {
    const missing = ids.filter((id) => !this.rows.has(id));
    for (let start = 0; start < missing.length; start += 500) {
      this.setRows(await get(`/api/images?ids=${missing.slice(start, start + 500).join(",")}`));
    }
    return ids.map((id) => this.rows.get(id)).filter(Boolean);
  }

  moveTo(place, { extend = false } = {}) {
    if (!this.ids.length) return;
    const next = Math.max(0, Math.min(this.ids.length - 1, place));
    if (extend) {
      const [from, to] = [Math.min(this.cursor, next), Math.max(this.cursor, next)];
      for (let at = from; at <= to; at++) this.selected.add(this.ids[at]);
      this.changed("selection");
    }
    this.cursor = next;
    this.off = false;
    sessionStorage.setItem(PLACE, String(this.current));
    this.changed("cursor");
  }

  // Go to a place without an image, after the image at `place`.
  leave(place) {
    this.cursor = Math.max(0, place);
    this.off = true;
    this.changed("cursor");
  }

  restorePlace() {
    const place = this.at.get(Number(sessionStorage.getItem(PLACE)));
    if (place !== undefined) this.moveTo(place);
  }

  nextUndecided() {
    const open = (id) => this.letters.get(id) === "-" && !this.pending.has(id) && this.rows.get(id)?.state !== "gone";
    for (let step = 1; step <= this.ids.length; step++) {
      const place = (this.cursor + step) % this.ids.length;
      if (open(this.ids[place])) return place;
    }
    return -1;
  }
}
