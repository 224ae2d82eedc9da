// Compare two to six images under one zoom: a number accepts one, the reject key rejects the others.

import { find, icon, make } from "./dom.js";
import { LETTERS, LETTER_OF, WORDS, dollars, duration } from "./format.js";
import { Stage } from "./stage.js";

export const MOST = 6;

function facts(row) {
  return [row.model, dollars(row.cost), duration(row.seconds)].filter(Boolean).join(", ");
}

export class Compare {
  constructor(store, { decide }) {
    this.store = store;
    this.decide = decide;
    this.box = find("compare");
    this.stages = [];
    store.addEventListener("rows", () => this.isOpen && this.#mark());
  }

  get isOpen() { return !this.box.hidden; }

  open(rows) {
    this.rows = rows.slice(0, MOST);
    this.stages = [];
    const columns = this.rows.length === 4 ? 2 : Math.min(3, this.rows.length);
    const cells = this.rows.map((row, place) => this.#cell(row, place));
    const grid = make("div", { class: "compare-grid" }, ...cells);
    grid.style.gridTemplateColumns = `repeat(${innerWidth < 700 ? Math.min(2, columns) : columns}, minmax(0, 1fr))`;
    this.box.replaceChildren(
      make("header", { class: "single-top" }, make("div", { class: "single-title" }, make("h2", {}, "Compare"), make("p", { class: "muted" }, `1 to ${this.rows.length} accepts one; X rejects the others; Esc leaves`)),
        make("button", { type: "button", onclick: () => this.close() }, icon("close"), "Close")),
      grid,
      make("footer", { class: "single-bar" }, make("button", { type: "button", class: "reject", onclick: () => this.rejectOthers() }, icon("reject"), "Reject the others")),
    );
    this.box.hidden = false;
    this.#mark();
  }

  close() {
    this.box.hidden = true;
    this.box.replaceChildren();
  }

  #cell(row, place) {
    const box = make("div", { class: "stage" });
    const stage = new Stage(box);
    this.stages.push(stage);
    stage.place = ((own) => () => {
      own.call(stage);
      for (const other of this.stages) if (other.zoom !== stage.zoom) { other.zoom = stage.zoom; Stage.prototype.place.call(other); }
    })(stage.place);
    stage.show(row, null);
    return make("div", { class: "compare-cell", "data-image": String(row.id) }, box,
      make("button", { type: "button", class: "quiet label", onclick: () => this.pick(place) }, make("kbd", {}, String(place + 1)), make("span", { class: "key" }, row.key), make("span", { class: "muted" }, facts(row)), make("span", { class: "by" })));
  }

  #mark() {
    for (const cell of this.box.querySelectorAll(".compare-cell")) {
      const decision = this.#decision(Number(cell.dataset.image));
      cell.dataset.decision = LETTER_OF[decision];
      cell.querySelector(".by").textContent = decision === "clear" ? "" : WORDS[decision];
    }
  }

  // Images of the same line may be outside of the view, whose letters alone the store keeps.
  #decision(id) { return LETTERS[this.store.letters.get(id)] ?? this.store.rows.get(id)?.decision ?? "clear"; }

  pick(place) {
    if (this.rows[place]) this.decide("accept", [this.rows[place].id]);
  }

  rejectOthers() {
    const rest = this.rows.filter((row) => this.#decision(row.id) !== "accept");
    if (rest.length && rest.length < this.rows.length) this.decide("reject", rest.map((row) => row.id));
  }
}
