// One or two images under one zoom: fitted, actual size, dragged, side by side, or with a slider.

import { make } from "./dom.js";
import { explain } from "./tile.js";

export class Stage {
  constructor(box) {
    this.box = box;
    this.mode = "after";
    this.images = { after: null, before: null };
    this.zoom = { scale: 0, x: 0.5, y: 0.5 };
    this.split = 50;
    this.pointers = new Map();
    new ResizeObserver(() => this.place()).observe(box);
    box.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    box.addEventListener("pointerdown", (event) => this.#drag(event));
    box.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    box.addEventListener("dblclick", () => this.actualSize());
  }

  // Show a new pair; the zoom starts over unless it is the same job.
  show(after, before, names = { after: "After", before: "Before" }) {
    this.names = names;
    this.images = { after, before };
    this.zoom = { scale: 0, x: 0.5, y: 0.5 };
    this.render();
  }

  setMode(mode) {
    this.mode = this.images.before || mode === "after" ? mode : "after";
    this.render();
  }

  render() {
    const { after, before } = this.images;
    const panes = { after: [after], before: [before], side: [before, after], slider: [before, after] }[this.mode].filter(Boolean);
    this.panes = panes.map((image, place) => this.#pane(image, this.mode === "slider" && place === 1));
    this.box.replaceChildren(...this.panes);
    if (this.mode === "slider" && panes.length === 2) this.#slider();
    this.place();
  }

  #pane(image, over) {
    const pane = make("div", { class: over ? "pane over" : "pane" });
    if (this.mode !== "after") pane.append(make("span", { class: "tag" }, image === this.images.after ? this.names.after : this.names.before));
    if (image.format === "mp4") {
      const video = make("video", { controls: true, loop: true, src: `/image/${image.id}` });
      video.addEventListener("loadedmetadata", () => this.place());
      pane.append(video);
    } else {
      const shown = make("img", { alt: "", draggable: false, src: `/thumb/${image.id}/1280?v=${image.sha256.slice(0, 12)}` });
      shown.dataset.image = String(image.id);
      shown.addEventListener("load", () => this.place());
      pane.append(shown);
      const whole = new Image();
      whole.src = `/image/${image.id}?v=${image.sha256.slice(0, 12)}`;
      const ready = whole.decode();
      ready.then(() => { if (shown.isConnected) shown.src = whole.src; }, () => {});
      // A browser may show a format of which the server cannot make a thumbnail.
      shown.addEventListener("error", () => { const failed = shown.src; ready.catch(() => explain(pane, failed)); });
    }
    return pane;
  }

  #slider() {
    const range = make("input", { type: "range", class: "slider", min: "0", max: "100", step: "0.5", value: String(this.split) });
    range.setAttribute("aria-label", "Boundary between before and after");
    const line = make("div", { class: "divider" });
    const move = () => {
      this.split = Number(range.value);
      this.panes[1].style.clipPath = `inset(0 0 0 ${this.split}%)`;
      line.style.left = `${this.split}%`;
    };
    range.addEventListener("input", move);
    this.box.append(range, line);
    move();
  }

  actualSize() {
    this.zoom = this.zoom.scale ? { scale: 0, x: 0.5, y: 0.5 } : { ...this.zoom, scale: 1 / devicePixelRatio };
    this.place();
  }

  // Scale and move all images alike: the same part of each is in the middle of its pane.
  place() {
    for (const pane of this.panes ?? []) {
      const element = pane.querySelector("img, video");
      const image = element && (this.images.before && String(this.images.before.id) === element.dataset.image ? this.images.before : this.images.after);
      if (!element || !image) continue;
      const [width, height] = [image.width || element.naturalWidth || 1, image.height || element.naturalHeight || 1];
      const fit = Math.min(pane.clientWidth / width, pane.clientHeight / height, Math.max(1, 200 / width));
      const scale = this.zoom.scale || fit;
      element.style.width = `${width * scale}px`;
      element.style.height = `${height * scale}px`;
      const along = (space, length, at) => (length <= space ? (space - length) / 2 : Math.min(0, Math.max(space - length, space / 2 - length * at)));
      element.style.transform = `translate(${along(pane.clientWidth, width * scale, this.zoom.x)}px, ${along(pane.clientHeight, height * scale, this.zoom.y)}px)`;
      pane.dataset.fit = String(fit);
      pane.dataset.size = `${width * scale}x${height * scale}`;
    }
  }

  #wheel(event) {
    event.preventDefault();
    const fit = Number(this.panes[0]?.dataset.fit) || 1;
    const next = (this.zoom.scale || fit) * Math.exp(-event.deltaY / 400);
    this.zoom = { ...this.zoom, scale: next <= fit ? 0 : Math.min(8, next) };
    this.place();
  }

  #drag(event) {
    if (event.target.closest(".slider, video")) return;
    this.pointers.set(event.pointerId, event);
    this.box.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.zoom.scale) return;
    const [width, height] = this.panes[0].dataset.size.split("x").map(Number);
    const bound = (value) => Math.min(1, Math.max(0, value));
    this.zoom.x = bound(this.zoom.x - (event.clientX - before.clientX) / width);
    this.zoom.y = bound(this.zoom.y - (event.clientY - before.clientY) / height);
    this.pointers.set(event.pointerId, event);
    this.place();
  }
}
