// The dashboard of a run: figures, curves, newest images, failures; live, or from the ledger alone.

import { Refused, get, listen, openSession } from "./api.js";
import { find, make } from "./dom.js";
import { capital, counted, dollars, duration, when } from "./format.js";
import { legend, plot } from "./plots.js";

const EVERY_MS = 1000;
const query = new URLSearchParams(location.search);
const REMEDY = {
  failed: (name) => `fix the line, or batchgen retry ${name}`,
  blocked: (name) => `change the prompt, or batchgen retry ${name} --blocked`,
  uncertain: (name) => `batchgen reconcile ${name}, or batchgen acknowledge ${name}`,
};
let shown = null;
let busy = false;
let again = false;

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const wanted = new URLSearchParams();
    for (const name of ["run", "compare"]) if (query.get(name)) wanted.set(name, query.get(name));
    shown = await get(`/api/run?${wanted}`);
    draw();
  } catch (error) { problem(error); }
  busy = false;
  if (again) { again = false; setTimeout(refresh, EVERY_MS); }
}

function problem(error) {
  const cause = find("cause");
  cause.hidden = false;
  if (error instanceof Refused && error.status === 404) cause.textContent = "This batch has no run yet.";
  else cause.textContent = error instanceof Refused ? `This page is locked: ${error.message}.` : "The server cannot be reached; start `batchgen review` again. This page tries again by itself.";
}

function draw() {
  const { run, state } = shown;
  document.title = `${shown.batch}: ${state.name}`;
  find("name").textContent = `${shown.batch}, run ${run.id}`;
  const end = run.ended_at ?? shown.now;
  find("when").textContent = `${when(run.started_at)}, ${duration((new Date(end) - new Date(run.started_at)) / 1000)}${state.owner ? `, ${state.owner}` : ""}`;
  find("state").className = `pill ${state.name}`;
  find("state").textContent = { running: "▶ Running", waiting: "… Waiting", ended: "✓ Ended", stopped: "■ Stopped", killed: "✕ Killed" }[state.name];
  find("cause").hidden = !state.text;
  find("cause").textContent = state.text;
  figures();
  curves();
  images();
  failures();
  runs();
}

function figures() {
  const { status, run, rates, left, samples, curves: all } = shown;
  const jobs = Object.values(status.jobs).reduce((sum, one) => sum + one, 0);
  const bad = status.jobs.failed + status.jobs.blocked + status.jobs.uncertain;
  const eta = left ? `about ${duration(left.seconds)} left${band(left)}` : shown.state.name === "running" ? "time left is unknown so far" : "";
  const last = samples.at(-1);
  const money = [`estimate ${dollars(run.estimate)}`];
  if (Number(run.reserved)) money.push(`in flight ${dollars(run.reserved)}`);
  if (Number(run.maybe)) money.push(`possible ${dollars(run.maybe)}`);
  const budget = tightest();
  const latency = [...all.p50.keys()].reverse().find((at) => all.p50[at] !== null);
  find("figures").replaceChildren(
    figure("Done", `${status.jobs.done.toLocaleString("en-US")} of ${jobs.toLocaleString("en-US")}`, [bad ? `${counted(bad, "job")} failed, blocked or uncertain` : "", eta], meter(status.jobs.done / jobs, bad / jobs)),
    figure("Charged", dollars(run.charged), [money.join(", "), budget]),
    figure("Images per minute", rates ? rates[0].toFixed(1) : "–", [rates ? `lowest ${rates[1].toFixed(1)}, highest ${rates[2].toFixed(1)}` : `from ${20} images on`]),
    figure("Seconds per image", latency === undefined ? "–" : all.p50[latency].toFixed(1), [latency === undefined ? "" : `95 % below ${all.p95[latency].toFixed(1)}`]),
    figure("In flight", last ? `${last.in_flight} of ${last.allowed}` : "–", [last ? `width ${last.width}` : "sampled every 10 s", shown.queue.paid ? `${counted(shown.queue.paid, "download")} waiting${shown.queue.expires_at ? `, the first expires ${when(shown.queue.expires_at)}` : ""}` : ""]),
  );
}

function band(left) {
  if (left.most === null || left.most - left.least < 5) return "";
  return ` (${duration(left.least)} to ${duration(left.most)})`;
}

// The budget that is reached first, and whether that happens before the end.
function tightest() {
  const { budgets, left, run, rates } = shown;
  const least = budgets.slice().sort((one, other) => Number(one.left) - Number(other.left))[0];
  if (!least) return "no budget";
  const text = `${least.period} budget ${dollars(least.left)} left`;
  const seconds = (new Date(run.ended_at ?? shown.now) - new Date(run.started_at)) / 1000;
  const perSecond = seconds > 0 ? Number(run.charged) / seconds : 0;
  if (!left || !rates || !perSecond) return text;
  const reached = Number(least.left) / perSecond;
  return reached < left.seconds ? `${text}, reached in ${duration(reached)}: dispatch stops then` : text;
}

function figure(name, value, notes, extra = null) {
  return make("div", { class: "figure" }, make("h3", {}, name), make("b", {}, value), ...(extra ? [extra] : []), ...notes.filter(Boolean).map((note) => make("p", {}, note)));
}

function meter(done, bad) {
  const element = make("div", { class: "meter" }, make("span"), make("span", { class: "bad" }));
  element.children[0].style.width = `${100 * done}%`;
  element.children[1].style.width = `${100 * bad}%`;
  return element;
}

function curves() {
  const { curves: own, compared, run, samples } = shown;
  const step = own.step_s;
  const perMinute = (values) => values.map((value) => (value * 60) / step);
  const other = compared && resampled(compared.curves, step);
  const name = compared ? `run ${compared.run.id}` : "";
  // The last step is incomplete during the run.
  const isOpen = run.ended_at === null && own.ok.length > 1;
  const rate = [{ name: "images", kind: "c1", area: true, values: perMinute(own.ok).map((value, at) => (isOpen && at === own.ok.length - 1 ? null : value)) }];
  if (other) rate.push({ name, kind: "c3 dashed", values: perMinute(other.ok) });
  const limits = [{ name: "limit", kind: "c2 dashed", value: shown.limit }];
  draw1("rate", { step, lines: rate, levels: limits, least: 4, format: (value) => tidy(value) });
  const money = [{ name: "charged", kind: "c1", area: true, values: own.cost }];
  if (other) money.push({ name, kind: "c3 dashed", values: other.cost });
  const levels = [{ name: "estimate", kind: "c3 dotted", value: micros(run.estimate) }, { name: "budget of the run", kind: "c2 dashed", value: run.max_cost === null ? null : micros(run.max_cost) }];
  draw1("money", { step, lines: money, levels, format: (value) => dollars(Math.round(value)) });
  draw1("latency", { step, lines: [{ name: "half below (p50)", kind: "c1", bridge: true, values: own.p50 }, { name: "95 % below (p95)", kind: "c2 dashed", bridge: true, values: own.p95 }], format: (value) => `${tidy(value)}s` });
  const start = new Date(run.started_at).getTime();
  const at = (sample) => Math.floor((new Date(sample.at).getTime() - start) / 1000 / step);
  const spread = (field) => {
    const values = Array.from({ length: own.ok.length }, () => null);
    for (const sample of samples) if (at(sample) >= 0 && at(sample) < values.length) values[at(sample)] = sample[field];
    return values;
  };
  const marks = own.throttled.flatMap((value, place) => (value ? [place] : []));
  draw1("width", { step, least: 4, marks: samples.length ? marks : [], lines: [{ name: "in flight", kind: "c1", bridge: true, values: spread("in_flight") }, { name: "width", kind: "c2 dashed", bridge: true, values: spread("width") }, { name: "allowed", kind: "c3 dotted", bridge: true, values: spread("allowed") }], format: (value) => tidy(value) });
  draw1("outcome", { step, least: 4, bars: [{ name: "images", kind: "ok", values: own.ok }, { name: "429 or 503", kind: "slow", values: own.throttled }, { name: "other", kind: "bad", values: own.other }], format: (value) => tidy(value) });
}

function draw1(id, options) {
  plot(find(id), options);
  const { lines = [], bars = [], levels = [], marks = [] } = options;
  const entries = [...lines, ...levels.filter((level) => level.value !== null), ...bars.map((bar) => ({ ...bar, bar: true }))];
  legend(find(`${id}-legend`), marks.length ? [...entries, { name: "▼ 429 or 503", kind: "" }] : entries);
}

// The curves of another run in steps of this one, so that both share one axis.
function resampled(other, step) {
  const total = other.ok.length * other.step_s;
  const points = Math.max(1, Math.ceil(total / step));
  const ok = Array.from({ length: points }, () => 0);
  const cost = Array.from({ length: points }, () => 0);
  other.ok.forEach((value, place) => { ok[Math.min(points - 1, Math.floor((place * other.step_s) / step))] += value; });
  cost.forEach((_, place) => { cost[place] = other.cost[Math.min(other.cost.length - 1, Math.floor((place * step) / other.step_s))]; });
  return { ok, cost };
}

function micros(amount) { return Math.round(Number(amount) * 1e6); }

function tidy(value) { return value >= 10 || Number.isInteger(value) ? Math.round(value).toLocaleString("en-US") : value.toFixed(1); }

function images() {
  const box = find("images");
  const ids = shown.images.map((image) => image.id).join();
  if (box.dataset.ids === ids) return;
  box.dataset.ids = ids;
  box.replaceChildren(...shown.images.map((image) => make("img", { src: `/thumb/${image.id}/320?v=${image.sha256.slice(0, 12)}`, alt: image.key, title: image.key })));
  if (!shown.images.length) box.replaceChildren(make("p", { class: "muted" }, "None yet."));
}

function failures() {
  const rows = shown.failures.map((one) => make("tr", {}, make("td", {}, make("span", { class: `word ${one.state}` }, capital(one.state))), make("td", {}, one.key), make("td", {}, one.reason), make("td", {}, one.source), make("td", {}, REMEDY[one.state](shown.batch))));
  find("failures").replaceChildren(rows.length ? table(["State", "Job", "Reason", "Line", "What to do"], rows) : make("p", { class: "muted" }, "None."));
}

function runs() {
  const rows = shown.runs.map((one) => {
    const seconds = one.ended_at ? (new Date(one.ended_at) - new Date(one.started_at)) / 1000 : null;
    return make("tr", {}, make("td", {}, String(one.id)), make("td", {}, when(one.started_at)), make("td", { class: "number" }, one.charged_attempts.toLocaleString("en-US")), make("td", { class: "number" }, dollars(one.charged)), make("td", { class: "number" }, seconds === null ? "" : duration(seconds)), make("td", {}, one.stopped ?? ""));
  });
  find("history").replaceChildren(table(["Run", "Started", "Charged requests", "Charged", "Time", "Stopped"], rows));
  choices(find("runs"), [["", "Newest run"], ...shown.runs.map((one) => [String(one.id), `Run ${one.id}`])], query.get("run") ?? "");
  choices(find("compare"), [["", "Compare with…"], ...shown.runs.filter((one) => one.id !== shown.run.id).map((one) => [String(one.id), `Run ${one.id}`])], query.get("compare") ?? "");
}

function choices(select, options, chosen) {
  if (select.dataset.options === JSON.stringify(options)) return;
  select.dataset.options = JSON.stringify(options);
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}

function table(names, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col", class: ["Charged requests", "Charged", "Time"].includes(name) ? "number" : "" }, name)))), make("tbody", {}, ...rows));
}

function choose(name, value) {
  if (value) query.set(name, value);
  else query.delete(name);
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  refresh();
}

async function begin() {
  find("runs").addEventListener("change", (event) => choose("run", event.target.value));
  find("compare").addEventListener("change", (event) => choose("compare", event.target.value));
  new ResizeObserver(() => shown && curves()).observe(find("board"));
  try { await openSession(); } catch (error) { problem(error); return; }
  await refresh();
  let last = performance.now();
  listen((event) => {
    if (event.type === "changed" || event.type === "connected") {
      const wait = Math.max(0, last + EVERY_MS - performance.now());
      last = performance.now() + wait;
      setTimeout(refresh, wait);
    }
  }, () => problem(new Error("lost")));
  // A run that was killed changes nothing any more, and time passes without changes too.
  setInterval(() => { if (shown && !shown.run.ended_at) refresh(); }, 2 * EVERY_MS);
}

begin();
