"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const figures = [...document.querySelectorAll("figure")];
  const view = $("view");
  let at = 0;

  function show(place) {
    at = (place + figures.length) % figures.length;
    const figure = figures[at];
    const link = figure.querySelector("a");
    const parts = [];
    const image = (source, alt) => Object.assign(new Image(), { src: source, alt });
    if (link) {
      const after = image(link.getAttribute("href"), figure.querySelector("img").alt);
      if (figure.dataset.before) {
        const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
        range.setAttribute("aria-label", "Boundary between before and after");
        const line = Object.assign(document.createElement("span"), { className: "line" });
        const move = () => { after.style.clipPath = `inset(0 0 0 ${range.value}%)`; line.style.left = `${range.value}%`; };
        range.addEventListener("input", move);
        move();
        parts.push(image(figure.dataset.before, "Before"), after, range, line);
      } else parts.push(after);
    }
    $("shown").replaceChildren(...parts);
    const caption = figure.querySelector("figcaption");
    $("about").textContent = [...caption.childNodes].filter((node) => node.nodeType === 3 || node.matches("small")).map((node) => node.textContent.trim()).filter(Boolean).join(" · ");
    if (!view.open) view.showModal();
    $("shown").querySelector("input")?.focus();
  }

  document.querySelector("main").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(figures.indexOf(link.closest("figure")));
  });
  $("back").addEventListener("click", () => show(at - 1));
  $("next").addEventListener("click", () => show(at + 1));
  $("close").addEventListener("click", () => view.close());
  view.addEventListener("close", () => figures[at]?.querySelector("a")?.focus());
  view.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });

  if (!document.body.classList.contains("pick")) return;
  const name = document.body.dataset.storage;
  let picks = {};
  try { picks = JSON.parse(localStorage.getItem(name) ?? "{}"); } catch { picks = {}; }
  const say = (text) => { $("said").textContent = text; setTimeout(() => { $("said").textContent = ""; }, 4000); };
  const chosen = () => figures.filter((figure) => picks[figure.dataset.id]?.heart);
  const label = (figure) => figure.dataset.key || figure.querySelector("figcaption").firstChild.textContent;

  function keep() {
    try { localStorage.setItem(name, JSON.stringify(picks)); } catch { say("This browser keeps nothing: download picks.csv before you leave."); }
    $("count").textContent = `${chosen().length} of ${figures.length} chosen`;
  }

  for (const figure of figures) {
    const heart = figure.querySelector(".heart");
    const comment = figure.querySelector(".choose input");
    const own = picks[figure.dataset.id] ?? { heart: false, comment: "" };
    const draw = () => {
      heart.setAttribute("aria-pressed", String(own.heart));
      figure.classList.toggle("chosen", own.heart);
    };
    comment.value = own.comment;
    draw();
    heart.addEventListener("click", () => { own.heart = !own.heart; picks[figure.dataset.id] = own; draw(); keep(); });
    comment.addEventListener("input", () => { own.comment = comment.value; picks[figure.dataset.id] = own; keep(); });
  }
  keep();

  // Text that a spreadsheet would compute starts with an apostrophe; `review --import` removes it.
  const computed = (text) => /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) && !/^'*[+-]?[0-9]+(\.[0-9]+)?$/.test(text);
  const cell = (text) => `"${(computed(text) ? `'${text}` : text).replaceAll('"', '""')}"`;

  function csv() {
    const rows = figures.filter((figure) => picks[figure.dataset.id]).map((figure) => {
      const own = picks[figure.dataset.id];
      return [figure.dataset.key ?? "", label(figure), own.heart ? "1" : "", own.comment, figure.dataset.id].map(cell).join(",");
    });
    return `key,file,heart,comment,sha256\r\n${rows.map((row) => `${row}\r\n`).join("")}`;
  }

  $("only").addEventListener("click", () => {
    const on = document.body.classList.toggle("only");
    $("only").setAttribute("aria-pressed", String(on));
  });
  $("copy").addEventListener("click", async () => {
    const text = chosen().map(label).join("\n");
    try { await navigator.clipboard.writeText(text); say(`${chosen().length} copied`); } catch { say(text); }
  });
  $("save").addEventListener("click", () => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "picks.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
})();
