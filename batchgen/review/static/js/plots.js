// Plots as SVG: lines, steps and stacked bars over time, with axes, a legend and a readout.

import { make, svg } from "./dom.js";

const PAD = { left: 46, right: 10, top: 8, bottom: 22 };
const TICKS = 4;

// Draw `lines` [{name, kind, values, area, format}] and `bars` [{name, kind, values}] with one value
// per step of `step` seconds; `levels` [{name, kind, value}] are horizontal; `marks` are step numbers.
export function plot(box, { step, lines = [], bars = [], levels = [], marks = [], format = String, least = 0 }) {
  const count = Math.max(0, ...[...lines, ...bars].map((one) => one.values.length));
  const known = [...lines, ...bars].some((one) => one.values.some((value) => value !== null && value !== undefined));
  if (!known) {
    box.replaceChildren(make("p", { class: "empty-chart" }, "No data yet"));
    return;
  }
  const [width, height] = [box.clientWidth, box.clientHeight];
  const stacked = Array.from({ length: count }, (_, at) => bars.reduce((sum, bar) => sum + (bar.values[at] ?? 0), 0));
  const shown = levels.filter((level) => level.value !== null && level.value !== undefined);
  const top = nice(Math.max(least, ...stacked, ...shown.map((level) => level.value), ...lines.flatMap((line) => line.values.filter((value) => value !== null))) || 1);
  const inset = bars.length ? barWidth(width, count) / 2 + 2 : 0;
  const x = (at) => PAD.left + inset + (count > 1 ? at / (count - 1) : 0.5) * (width - PAD.left - PAD.right - 2 * inset);
  const y = (value) => height - PAD.bottom - (value / top) * (height - PAD.top - PAD.bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(lines, bars, format) });
  for (let tick = 0; tick <= TICKS; tick++) {
    const value = (top * tick) / TICKS;
    drawing.append(svg("path", { class: "axis", d: `M${PAD.left} ${y(value)}H${width - PAD.right}` }), text(PAD.left - 6, y(value) + 4, format(value), "end"));
  }
  timeAxis(drawing, count, step, x, height);
  drawBars(drawing, bars, count, x, y, width);
  for (const level of shown) drawing.append(svg("path", { class: `curve ${level.kind}`, d: `M${PAD.left} ${y(level.value)}H${width - PAD.right}` }));
  for (const line of lines) drawLine(drawing, line, x, y);
  for (const at of marks) drawing.append(svg("path", { class: "mark", d: `M${x(at)} ${PAD.top}l5 9h-10z` }));
  box.replaceChildren(drawing);
  readout(box, { lines, bars, count, step, x, format });
}

function drawLine(drawing, line, x, y) {
  let path = "";
  let open = false;
  let [first, last] = [null, null];
  line.values.forEach((value, at) => {
    if (value === null || value === undefined) { open = open && line.bridge; return; }
    path += `${open ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    first ??= at;
    last = at;
    open = true;
  });
  if (first === null) return;
  if (line.area) drawing.append(svg("path", { class: `area ${line.kind}`, d: `${path}L${x(last)} ${y(0)}L${x(first)} ${y(0)}Z` }));
  if (first === last) path += "h0.1";
  drawing.append(svg("path", { class: `curve ${line.kind}`, "stroke-linecap": "round", d: path }));
}

function drawBars(drawing, bars, count, x, y, width) {
  const span = barWidth(width, count);
  for (let at = 0; at < count; at++) {
    let below = 0;
    for (const bar of bars) {
      const value = bar.values[at] ?? 0;
      if (!value) continue;
      const [low, high] = [y(below), y(below + value)];
      drawing.append(svg("rect", { class: `bar ${bar.kind}`, x: (x(at) - span / 2).toFixed(1), y: high.toFixed(1), width: span.toFixed(1), height: Math.max(1, low - high).toFixed(1) }));
      below += value;
    }
  }
}

function barWidth(width, count) {
  return Math.max(1, Math.min(26, ((width - PAD.left - PAD.right) / Math.max(1, count)) * 0.8));
}

function timeAxis(drawing, count, step, x, height) {
  const total = Math.max(step, (count - 1) * step);
  const spans = [10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const span = spans.find((one) => total / one <= 6) ?? 86400 * 7;
  for (let at = 0; at <= total; at += span) {
    if (count > 1 || at === 0) drawing.append(text(x(at / step), height - 5, clock(at), "middle"));
  }
}

function readout(box, { lines, bars, count, step, x, format }) {
  const tip = make("div", { class: "tip", hidden: true });
  box.append(tip);
  box.onpointerleave = () => { tip.hidden = true; };
  box.onpointermove = (event) => {
    const left = event.clientX - box.getBoundingClientRect().left;
    const [start, end] = [x(0), x(Math.max(1, count - 1))];
    const at = Math.max(0, Math.min(count - 1, Math.round(((left - start) / Math.max(1, end - start)) * (count - 1))));
    const rows = [...lines, ...bars].filter((one) => one.values[at] !== null && one.values[at] !== undefined);
    tip.replaceChildren(make("p", { class: "muted" }, clock(at * step)), ...rows.map((one) => make("p", {}, `${one.name}: ${(one.format ?? format)(one.values[at])}`)));
    tip.hidden = false;
    const room = box.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, left + 14 > room ? left - tip.offsetWidth - 14 : left + 14))}px`;
  };
}

export function legend(box, entries) {
  box.replaceChildren(...entries.map(({ name, kind, bar }) => make("span", {},
    svg("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" }, bar ? svg("rect", { class: `bar ${kind}`, width: 22, height: 8, rx: 2 }) : svg("path", { class: `curve ${kind}`, d: "M0 4H22" })), name)));
}

function described(lines, bars, format) {
  const last = (one) => [...one.values].reverse().find((value) => value !== null && value !== undefined);
  return [...lines, ...bars].filter((one) => last(one) !== undefined).map((one) => `${one.name}: ${(one.format ?? format)(last(one))} at the end`).join("; ");
}

function text(x, y, content, anchor) {
  const element = svg("text", { x, y, "text-anchor": anchor });
  element.textContent = content;
  return element;
}

// The least round number that is not smaller and whose quarters are round too.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((one) => one * power).find((one) => one >= value * 0.999);
}

export function clock(seconds) {
  if (seconds < 60) return `${Math.round(seconds)}s`;
  if (seconds < 3600) return seconds % 60 ? `${Math.floor(seconds / 60)}m ${Math.round(seconds % 60)}s` : `${seconds / 60}m`;
  const minutes = Math.round((seconds % 3600) / 60);
  return minutes ? `${Math.floor(seconds / 3600)}h ${minutes}m` : `${Math.floor(seconds / 3600)}h`;
}
