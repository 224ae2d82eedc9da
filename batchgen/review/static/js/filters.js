// Filters: OR within a kind, AND between kinds, kept in the URL, shown by a banner.

import { find, make } from "./dom.js";

const DECISIONS = { undecided: "Undecided", accept: "Accepted", reject: "Rejected", redo: "Redo" };
const KINDS = ["decisions", "runs", "tags", "models", "sizes", "warnings"];
const WARNINGS = { warning: "With a warning", replaced: "Replaced an image", unpublished: "Not published" };
const SORTS = { key: "Manifest order", newest: "Newest first", slowest: "Slowest first", cost: "Highest cost first", undecided: "Undecided first" };
const TITLES = { runs: "Run", tags: "Tag", models: "Model", sizes: "Size", warnings: "Notes" };
const TYPING_MS = 250;

export class Filters {
  constructor(onChange, { sorts }) {
    Object.assign(this, { onChange, sorts });
    const query = new URLSearchParams(location.search);
    this.chosen = Object.fromEntries(KINDS.map((kind) => [kind, new Set(JSON.parse(query.get(kind) ?? "[]"))]));
    this.text = query.get("text") ?? "";
    this.sort = query.get("sort") ?? "key";
    this.hasRuns = query.has("runs");
    find("text").value = this.text;
    find("text").addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { this.text = find("text").value; this.#changed(); }, TYPING_MS);
    });
    find("clear-filter").addEventListener("click", () => this.clear());
    addEventListener("click", (event) => { if (!event.target.closest("#more")) find("more").open = false; });
  }

  setup(batch, runs) {
    this.batch = batch;
    if (!this.hasRuns) this.chosen.runs = new Set(runs.map(String));
    this.draw(batch.counts);
    const groups = Object.entries(TITLES).map(([kind, title]) => {
      const values = kind === "warnings" ? Object.entries(WARNINGS) : (batch.facets[kind] ?? []).map((one) => [String(one.value), kind === "runs" ? `run ${one.value}, ${one.detail.slice(0, 16).replace("T", " ")}` : String(one.value)]);
      return values.length < (kind === "warnings" ? 1 : 2) && kind !== "runs" ? null : make("fieldset", {}, make("legend", {}, title), ...values.map(([value, text]) => make("label", {}, make("input", {
        type: "checkbox", checked: this.chosen[kind].has(value), "data-kind": kind, "data-value": value, onchange: (event) => this.#toggle(kind, value, event.target.checked),
      }), text)));
    });
    const sort = make("select", { "aria-label": "Sort", onchange: () => { this.sort = sort.value; this.#changed(); } }, ...Object.entries(SORTS).map(([value, text]) => make("option", { value, selected: value === this.sort }, text)));
    const sorts = this.sorts ? [make("fieldset", {}, make("legend", {}, "Sort"), sort)] : [];
    find("menus").replaceChildren(...sorts, ...groups.filter(Boolean));
  }

  draw(counts) {
    const number = { undecided: counts.undecided, accept: counts.accepted, reject: counts.rejected, redo: null };
    find("decision-chips").replaceChildren(...Object.entries(DECISIONS).map(([value, text]) => make("button", {
      type: "button", class: "chip", "aria-pressed": String(this.chosen.decisions.has(value)), "data-value": value,
      onclick: () => this.#toggle("decisions", value, !this.chosen.decisions.has(value)),
    }, text, ...(number[value] === null ? [] : [" ", make("b", {}, number[value].toLocaleString("en-US"))]))));
  }

  get isNarrow() {
    return Boolean(this.text) || KINDS.some((kind) => kind !== "runs" && this.chosen[kind].size > 0) || Boolean(this.batch?.is_narrow);
  }

  // Whether the person narrowed the view on this page.
  get hasAny() { return Boolean(this.text) || KINDS.some((kind) => this.chosen[kind].size > 0); }

  get query() {
    const query = new URLSearchParams();
    for (const kind of KINDS) if (this.chosen[kind].size || kind === "runs") query.set(kind, JSON.stringify([...this.chosen[kind]]));
    if (this.text) query.set("text", this.text);
    if (this.sort !== "key") query.set("sort", this.sort);
    return query.toString();
  }

  clear() {
    for (const kind of KINDS) if (kind !== "runs") this.chosen[kind].clear();
    this.text = find("text").value = "";
    for (const box of find("menus").querySelectorAll("input")) box.checked = this.chosen[box.dataset.kind].has(box.dataset.value);
    this.#changed();
  }

  #toggle(kind, value, on) {
    if (on) this.chosen[kind].add(value);
    else this.chosen[kind].delete(value);
    this.#changed();
  }

  #changed() {
    const query = new URLSearchParams(this.query);
    const axes = new URLSearchParams(location.search).get("axes");
    if (axes) query.set("axes", axes);
    history.replaceState(null, "", `${location.pathname}?${query}`);
    this.draw(this.batch.counts);
    this.onChange();
  }
}
