// The heads of the comparison grid: the names of the columns and what is to be said of each.

import { icon, make } from "./dom.js";
import { counted, dollars, duration } from "./format.js";

const NAME_HEIGHT = 30;
const TOTALS_HEIGHT = 62;
const SLIM_TOTALS_HEIGHT = 82;

export class MatrixHeads {
  constructor(box, matrix, { select }) {
    Object.assign(this, { box, matrix, select });
  }

  // The height of all heads, for columns that may be slim.
  height(isSlim) {
    this.totalsHeight = isSlim ? SLIM_TOTALS_HEIGHT : TOTALS_HEIGHT;
    return NAME_HEIGHT * this.matrix.axes.length + this.totalsHeight;
  }

  draw() {
    const { heads, columns, axes, side, width, stacked } = this.matrix;
    const named = heads.map((texts, depth) => {
      let column = 0;
      const cells = texts.map(([text, span]) => {
        const first = column;
        column += span;
        const isLast = depth === axes.length - 1;
        const inner = isLast ? make("button", { type: "button", class: "quiet name", title: `${text}: select the images of this column`, onclick: () => this.select(first) }, text) : make("span", { class: "name", title: text }, text);
        return placed(make("div", { class: "head", role: "columnheader", "aria-colindex": String(first + 2), ...(span > 1 ? { "aria-colspan": String(span) } : {}) }, inner), side + first * width, span * width);
      });
      return headLine(NAME_HEIGHT, depth + 1, make("div", { class: "corner", role: "columnheader", "aria-colindex": "1" }, axes[depth]), cells);
    });
    const sums = columns.map((_, column) => placed(make("div", { class: "total", role: "gridcell", "aria-colindex": String(column + 2) }), side + column * width, width));
    const about = make("div", { class: "corner muted", role: "rowheader", "aria-colindex": "1" }, stacked ? "" : "Decisions; mean cost, median time");
    this.box.replaceChildren(...named, headLine(this.totalsHeight, named.length + 1, about, sums));
    this.box.style.height = `${this.matrix.top}px`;
  }

  // Decisions change on this page at once; costs and times come with the cells.
  sum() {
    const { columns, shown, store, totals } = this.matrix;
    const boxes = this.box.querySelectorAll(".total");
    columns.forEach((_, column) => {
      const counts = { a: 0, r: 0, o: 0, "-": 0 };
      for (const row of shown) for (const id of this.matrix.cell(row, column)) counts[store.letters.get(id) ?? "-"] += 1;
      const [accepted, rejected, open] = [counts.a, counts.r + counts.o, counts["-"]];
      const key = JSON.stringify([counts, totals[column]]);
      const box = boxes[column];
      if (!box || box.dataset.key === key) return;
      box.dataset.key = key;
      const all = Math.max(1, accepted + rejected + open);
      const bar = make("span", { class: "progress", "aria-hidden": "true" }, make("span", { class: "bar-accept" }), make("span", { class: "bar-reject" }));
      bar.children[0].style.width = `${(100 * accepted) / all}%`;
      bar.children[1].style.width = `${(100 * rejected) / all}%`;
      const { images, cost, seconds } = totals[column];
      const facts = images ? [`mean ${dollars(Math.round(cost))}`, seconds === null ? "" : `median ${duration(seconds)}`].filter(Boolean).join(" · ") : "no image";
      box.replaceChildren(bar, make("p", { class: "counts" }, count("accept", accepted, "accepted"), count("reject", rejected, "rejected"), count(null, open, "undecided")), make("p", { class: "muted" }, facts));
    });
  }
}

// Give an element its place in a line.
export function placed(element, left, width) {
  element.style.left = `${left}px`;
  element.style.width = `${width}px`;
  return element;
}

function headLine(height, number, corner, cells) {
  const line = make("div", { class: "head-line", role: "row", "aria-rowindex": String(number) }, corner, ...cells);
  line.style.height = `${height}px`;
  return line;
}

function count(name, number, word) {
  return make("span", { class: `count ${name ?? ""}`, title: `${counted(number, "image")} ${word}` }, name ? icon(name) : "–", make("b", {}, number.toLocaleString("en-US")), make("span", { class: "word" }, ` ${word}`));
}
