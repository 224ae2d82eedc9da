// One image: full size, before and after, its prompt, its cost and its history.

import { get } from "./api.js";
import { diffNodes, find, icon, make, toast } from "./dom.js";
import { LETTERS, WORDS, bytes, capital, dollars, duration, when, wordDiff } from "./format.js";
import { Stage } from "./stage.js";

const HOLD_MS = 300;

export class Single {
  constructor(store) {
    this.store = store;
    this.box = find("single");
    this.stage = new Stage(find("stage"));
    this.detail = null;
    for (const button of find("modes").children) button.addEventListener("click", () => { this.chosen = true; this.setMode(button.dataset.mode); });
    store.addEventListener("cursor", () => this.isOpen && this.load());
    store.addEventListener("rows", (event) => this.isOpen && event.detail.ids.includes(store.current) && this.load({ again: true }));
  }

  get isOpen() { return !this.box.hidden; }

  open() {
    if (this.store.current === undefined) return;
    this.box.hidden = false;
    this.load();
    find("info").focus({ preventScroll: true });
  }

  close() {
    this.box.hidden = true;
    this.shown = null;
    this.stage.box.replaceChildren();
  }

  async load({ again = false } = {}) {
    const id = this.store.current;
    this.#buttons();
    if (!again) this.#place(id);
    let detail;
    try { detail = await get(`/api/images/${id}`); }
    catch (error) { toast(error.message); return; }
    if (id !== this.store.current || !this.isOpen) return;
    this.detail = detail;
    if (this.shown !== detail.sha256) {
      this.shown = detail.sha256;
      const before = earlier(detail);
      this.stage.show(detail, before, this.#names(detail, before));
      this.setMode(detail.unpublished && before && !this.chosen ? "side" : this.stage.mode);
      for (const step of [1, -1, 2]) this.#preload(this.store.ids[this.store.cursor + step]);
    }
    this.#info(detail);
  }

  // A new image that waits is next to the published one until somebody chose another mode.
  #names(detail, before) {
    const names = detail.unpublished && before?.state === "saved" ? { after: "New", before: "Current" } : { after: "After", before: "Before" };
    for (const button of find("modes").children) if (names[button.dataset.mode]) button.textContent = names[button.dataset.mode];
    return names;
  }

  #place(id) {
    find("single-key").textContent = this.store.rows.get(id)?.key ?? "";
    find("single-place").textContent = `${(this.store.cursor + 1).toLocaleString("en-US")} of ${this.store.ids.length.toLocaleString("en-US")}`;
  }

  async #preload(id) {
    if (id === undefined) return;
    const row = await this.store.row(id);
    if (row?.sha256 && row.format !== "mp4") new Image().src = `/thumb/${id}/1280?v=${row.sha256.slice(0, 12)}`;
  }

  setMode(mode) {
    this.stage.setMode(mode);
    for (const button of find("modes").children) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === this.stage.mode));
      button.disabled = button.dataset.mode !== "after" && !this.stage.images.before;
    }
  }

  // A tap changes between before and after; held, the key shows the other one until it is let go.
  flip(repeat) {
    if (repeat || !this.stage.images.before) return;
    this.flippedAt = performance.now();
    this.setMode(this.stage.mode === "before" ? "after" : "before");
  }

  unflip() {
    if (this.flippedAt && performance.now() - this.flippedAt > HOLD_MS) this.setMode(this.stage.mode === "before" ? "after" : "before");
    this.flippedAt = 0;
  }

  #buttons() {
    const decision = LETTERS[this.store.letters.get(this.store.current) ?? "-"];
    for (const button of this.box.querySelectorAll("[data-do]")) {
      if (["accept", "reject", "redo"].includes(button.dataset.do)) button.setAttribute("aria-pressed", String(button.dataset.do === decision));
    }
  }

  #info(detail) {
    this.#buttons();
    const row = this.store.rows.get(detail.id) ?? detail;
    const decision = row.decision ?? "clear";
    find("single-key").textContent = detail.key;
    find("info").replaceChildren(
      this.#decision(row, decision, detail),
      ...(detail.warnings ? [section("Warnings", make("p", {}, JSON.parse(detail.warnings).join("; ")))] : []),
      section("Prompt", this.#prompt(detail)),
      ...this.#references(detail),
      section("Made", this.#facts(detail)),
      section("History", this.#history(detail)),
    );
  }

  #decision(row, decision, detail) {
    const state = make("p", { class: `state ${decision}` }, ...(decision === "clear" ? ["Undecided"] : [icon(decision), capital(WORDS[decision])]));
    const parts = [state];
    if (decision !== "clear" && row.decided_by) parts.push(make("p", { class: "muted" }, `by ${row.decided_by}, ${when(row.decided_at)}`));
    if (row.note) parts.push(make("p", {}, row.note));
    if (detail.unpublished) parts.push(make("p", { class: "muted" }, detail.trouble ?? (decision === "accept" ? "It is published in a moment; during a run of this batch, within seconds." : "Not published. Accept it to publish it.")));
    if (row.redo_prompt) parts.push(make("p", { class: "muted" }, "The next run uses another prompt (below)."));
    return section("Decision", ...parts);
  }

  #prompt(detail) {
    const box = make("div", { class: "prompt" });
    const made = detail.own.made_of ? JSON.parse(detail.own.made_of) : null;
    const redo = this.store.rows.get(detail.id)?.redo_prompt;
    if (redo) box.append(...diffNodes(wordDiff(detail.own.prompt, redo)));
    else if (made && made.prompt !== detail.own.prompt && detail.images.length > 1) box.append(...diffNodes(wordDiff(made.prompt, detail.own.prompt)));
    else box.append(detail.own.prompt);
    return box;
  }

  #references(detail) {
    const listed = JSON.parse(detail.own.reference_images);
    if (!listed.length) return [];
    return [section("Reference images", make("div", { class: "references" }, ...listed.map((name, number) => (
      /^https?:/.test(name) ? make("span", { class: "code" }, name) : make("img", { src: `/reference/${detail.job}/${number}`, alt: name, title: name })))))];
  }

  #facts(detail) {
    const seconds = (new Date(detail.attempt.ended_at) - new Date(detail.attempt.started_at)) / 1000;
    const options = Object.entries(JSON.parse(detail.own.options)).map(([name, value]) => `${name}: ${value}`).join(", ");
    const facts = {
      Model: detail.attempt.model, Options: options || "defaults", Image: `${detail.width} × ${detail.height} ${detail.format}, ${bytes(detail.bytes)}`,
      Cost: dollars(detail.attempt.cost), Time: duration(seconds), Run: String(detail.run), "Request id": detail.attempt.request_id ?? "none",
      Line: detail.own.source, Tags: JSON.parse(detail.own.tags).join(", "), "SHA-256": detail.sha256.slice(0, 16),
    };
    return make("dl", {}, ...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }

  #history(detail) {
    return make("ol", { class: "history" }, ...detail.images.map((image) => {
      const decided = detail.decisions.filter((one) => one.image === image.id && one.sha256 === image.sha256);
      return make("li", { "data-sha256": image.sha256 },
        make("img", { src: `/thumb/${image.id}/320?v=${image.sha256.slice(0, 12)}`, alt: "" }),
        make("div", {},
          make("p", {}, `${image.unpublished ? "Not published" : image.state === "saved" ? "Current" : "Replaced"}, run ${image.run}, ${when(image.saved_at)}`),
          ...decided.map((one) => make("p", { class: "muted" }, `${capital(WORDS[one.decision])} by ${one.decided_by}, ${when(one.decided_at)}${one.note ? `: ${one.note}` : ""}`))));
    }));
  }
}

// The image to compare with: the published one, else the one that was replaced last. After a
// rollback, that is not the image that was made last.
function earlier(detail) {
  const position = detail.images.find((own) => own.id === detail.id)?.position;
  const others = detail.images.filter((one) => one.id < detail.id && one.position === position);
  others.sort((one, other) => other.replaced_at.localeCompare(one.replaced_at) || other.id - one.id);
  return others.find((one) => one.state === "saved" && !one.unpublished) ?? others.find((one) => !one.unpublished) ?? others[0] ?? null;
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}
