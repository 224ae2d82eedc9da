// The review page, as a grid or a comparison: puts its parts together, and turns keys and buttons
// into decisions.

import { ActionQueue, Refused, get, listen, openSession } from "./api.js";
import { Basket, copy } from "./basket.js";
import { Compare, MOST } from "./compare.js";
import { confirmed, find, toast } from "./dom.js";
import { Filters } from "./filters.js";
import { WORDS, counted, dollars } from "./format.js";
import { Grid } from "./grid.js";
import { Keys } from "./keys.js";
import { Matrix } from "./matrix.js";
import { askRedo } from "./redo.js";
import { Single } from "./single.js";
import { Store } from "./store.js";

const ADVANCE = "batchgen-advance";
const LIVE_MS = 1500;
const LIVE_SHARE = 10;
const ON_AN_IMAGE = new Set(["redo", "select", "line"]);
const isComparison = find("grid").dataset.view === "comparison";
const store = new Store();
const single = new Single(store);
const view = isComparison ? new Matrix(store, { open: () => single.open(), reload: () => load(), hides: () => filters.hasAny }) : new Grid(store, { open: () => single.open() });
const basket = new Basket();
const compare = new Compare(store, { decide });
const filters = new Filters(() => load(), { sorts: !isComparison });
const keys = new Keys(run, { hidden: isComparison ? [] : ["swap"] });
const queue = new ActionQueue({ onDone: saved, onRefused: refused, onTrouble: trouble });

async function load({ live = false } = {}) {
  const asked = store.changes;
  store.setIndex(await view.load(filters.query, { live }), { merge: live && !isComparison, keep: live, asked });
  summarize();
}

function summarize() {
  const { accepted, rejected, undecided } = store.counts;
  const all = Math.max(1, accepted + rejected + undecided);
  find("progress").children[0].style.width = `${(100 * accepted) / all}%`;
  find("progress").children[1].style.width = `${(100 * rejected) / all}%`;
  find("progress").setAttribute("aria-label", `${accepted} accepted, ${rejected} rejected, ${undecided} undecided`);
  const runs = [...filters.chosen.runs];
  const where = runs.length === 1 ? `run ${runs[0]}` : runs.length ? `${runs.length} runs` : "all runs";
  const decided = store.ids.reduce((sum, id) => sum + (store.letters.get(id) !== "-"), 0);
  const outside = view.outside ? `, ${counted(view.outside, "other image")} outside of the matrix` : "";
  find("summary").textContent = `${where}: ${counted(store.ids.length, "image")}, ${decided.toLocaleString("en-US")} decided${outside}`;
  find("banner").hidden = !filters.isNarrow;
  find("banner-text").textContent = `${counted(store.ids.length, "image")} shown of this batch's ${(accepted + rejected + undecided).toLocaleString("en-US")}; commands for all act on those shown only`;
  find("empty").textContent = view.trouble || (filters.isNarrow ? "No image passes the filter." : "No image yet. It appears here as soon as a run saves it.");
  filters.batch.counts = store.counts;
  filters.draw(store.counts);
}

// Record a decision about images; they show it once the server says that it is durable.
function decide(decision, ids, extra = {}) {
  const rows = ids.map((id) => store.rows.get(id)).filter((row) => row?.state === "saved");
  const changed = rows.filter((row) => extra.prompt || extra.note || (store.pending.get(row.id) ?? row.decision ?? "clear") !== decision);
  if (!changed.length) return false;
  for (const row of changed) store.pending.set(row.id, decision);
  const decisions = changed.map((row) => ({ image: row.id, sha256: row.sha256, decision, ...extra }));
  queue.add("/api/decisions", { decisions }, changed.map((row) => row.id));
  view.refresh(changed.map((row) => row.id));
  return true;
}

function saved(result, action) {
  for (const id of action.about) store.pending.delete(id);
  store.counts = result.counts;
  store.setRows(result.rows);
  const missing = result.images.slice(result.rows.length);
  for (const id of missing) store.rows.delete(id);
  store.want(missing.filter((id) => view.tiles.has(id)));
  if (action.path === "/api/undo") {
    const place = store.at.get(result.images[0]);
    if (place !== undefined) store.moveTo(place);
    const stays = result.rows.some((one) => one.publish === "on_accept" && !one.unpublished) ? "; a published image stays published, `batchgen rollback` restores the one before" : "";
    toast(`undone: ${counted(result.images.length, "image")}${stays}`);
  }
  const row = result.rows[0];
  if (row) find("announce").textContent = `${row.key}: ${WORDS[row.decision ?? "clear"]}, saved`;
  summarize();
  basket.refresh();
}

function refused(error, action) {
  for (const id of action.about) { store.pending.delete(id); store.rows.delete(id); }
  store.want(action.about);
  view.refresh(action.about);
  if (error.status === 403) trouble(error, queue.length + 1);
  toast(error.message);
}

function trouble(error, waiting) {
  const alarm = find("alarm");
  alarm.hidden = error === null;
  if (error === null) return;
  alarm.textContent = waiting ? `Not saved yet: ${counted(waiting, "decision")}. ${reason(error)}` : reason(error);
}

function reason(error) {
  return error instanceof Refused ? error.message : "The server cannot be reached; start `batchgen review` again. This page tries again by itself.";
}

function targets() {
  if (single.isOpen || !store.selected.size) return store.current === undefined ? [] : [store.current];
  return [...store.selected];
}

// What has not been loaded was not seen, so nothing is decided about it. A key that is held down
// faster than images load waits for them in this way.
async function judge(decision) {
  const ids = targets();
  if (!ids.length) toast("no image here");
  if (!ids.length || (ids.length === 1 && !store.rows.has(ids[0]))) return;
  if (ids.length > 1) await store.allRows(ids);
  if (!decide(decision, ids) && store.pending.has(ids[0])) return;
  after(ids);
}

function after(ids) {
  if (store.selected.size && !single.isOpen) {
    store.selected.clear();
    store.changed("selection");
  }
  if (ids.length > 1 || !find("advance").checked) return;
  const next = store.nextUndecided();
  if (next >= 0) store.moveTo(next);
}

async function redo() {
  const ids = targets();
  const row = ids.length === 1 ? store.rows.get(ids[0]) : null;
  if (!ids.length || row === undefined) return;
  // The dialog opens at once, so that no key that is meant for it decides something.
  const prompt = row && (row.redo_prompt ?? get(`/api/images/${row.id}`).then((detail) => detail.own.prompt));
  const wish = await askRedo(row ? row.key : counted(ids.length, "image"), prompt);
  focusView();
  await store.allRows(ids);
  if (wish && decide("redo", ids, wish)) after(ids);
}

async function decideShown(decision, verb) {
  const rows = (await store.allRows(store.ids)).filter((row) => row.state === "saved");
  const cost = rows.reduce((sum, row) => sum + row.price, 0);
  const price = decision === "reject" ? ` The next run regenerates them for about ${dollars(cost)}.` : "";
  if (await confirmed(`${verb} ${counted(rows.length, "image")}?`, `All images shown, and no others.${price} Undo takes it back.`, verb)) decide(decision, rows.map((row) => row.id));
}

async function openCompare() {
  let ids = [...store.selected];
  if (ids.length < 2) ids = (await get(`/api/related/${store.current}`)).ids;
  const rows = (await store.allRows(ids.slice(0, MOST))).filter((row) => row.state === "saved");
  if (rows.length < 2) { toast("nothing to compare: select 2 to 6 images with S or Shift and the arrows"); return; }
  compare.open(rows);
}

function focusView() { (single.isOpen ? find("info") : find("grid")).focus({ preventScroll: true }); }

const STEPS = { left: -1, right: 1, up: -1, down: 1, home: -Infinity, end: Infinity, "page-up": -10, "page-down": 10 };

const commands = {
  accept: () => judge("accept"), reject: () => judge("reject"), redo, undo: () => queue.add("/api/undo", {}, []),
  open: () => { if (!single.isOpen) single.open(); }, grid: leave, leave, flip: ({ repeat }) => single.flip(repeat), unflip: () => single.unflip(),
  zoom: () => single.stage.actualSize(), full: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  compare: openCompare, help: () => keys.show(), previous: () => store.moveTo(store.cursor - 1),
  filter: () => { leave(); find("text").focus(); },
  swap: () => isComparison && view.swap(),
  select: () => { if (!store.selected.delete(store.current)) store.selected.add(store.current); store.changed("selection"); },
  unselect: () => { store.selected.clear(); store.changed("selection"); },
  line: async () => copy((await get(`/api/images/${store.current}`)).own.source),
};

function leave() {
  if (compare.isOpen) compare.close();
  else if (single.isOpen) { single.close(); view.render(); }
  else if (store.selected.size) commands.unselect();
  find("grid").focus({ preventScroll: true });
}

// Run the command of a key or a button; returns whether it was one.
function run(name, { shift = false, repeat = false } = {}) {
  const command = name.replace(/-2$/, "");
  if (compare.isOpen && !["leave", "reject", "undo", "grid"].includes(command)) return false;
  if (compare.isOpen && command === "reject") { compare.rejectOthers(); return true; }
  if (command in STEPS) {
    if (single.isOpen && document.activeElement?.classList.contains("slider")) return false;
    if (single.isOpen) store.moveTo(store.cursor + STEPS[command]);
    else view.move(command, { extend: shift });
    return true;
  }
  if (command === "next") {
    const place = store.nextUndecided();
    if (place >= 0) store.moveTo(place);
    else toast("every image shown is decided");
    return true;
  }
  if (store.current === undefined && (ON_AN_IMAGE.has(command) || (command === "compare" && store.selected.size < 2))) {
    toast("no image here");
    return true;
  }
  if (command === "open" && document.activeElement?.matches("button, a, summary")) return false;
  if (command === "flip" && !single.isOpen) return document.activeElement === find("grid");
  if (command === "flip" && document.activeElement?.matches("button")) document.activeElement.blur();
  commands[command]?.({ shift, repeat });
  return command in commands;
}

function selectionBar() {
  find("selection-bar").hidden = !store.selected.size;
  find("selection-text").textContent = `${counted(store.selected.size, "image")} selected`;
}

function happened(event) {
  if (event.type === "changed" && isComparison) cellsChanged();
  if (event.type === "connected") { if (connectedBefore) load({ live: true }); connectedBefore = true; find("alarm").hidden ||= queue.length === 0; }
  if (event.type === "decided") {
    for (const row of event.rows) {
      const before = store.rows.get(row.id);
      if (row.decided_by !== filters.batch.by && before && before.decided_at !== row.decided_at) toast(`${row.key}: ${WORDS[row.decision ?? "clear"]} by ${row.decided_by}`);
    }
    store.counts = event.counts;
    store.setRows(event.rows.filter((row) => !store.pending.has(row.id)));
    summarize();
    basket.refresh();
  }
  if (event.type === "images") {
    clearTimeout(refreshing);
    refreshing = setTimeout(async () => {
      const before = store.counts;
      const batch = await get("/api/batch");
      if (store.counts === before) store.counts = batch.counts;
      if (!isComparison) await load({ live: true });
      store.want(store.forget((row) => row.unpublished).filter((id) => view.tiles.has(id) || id === store.current));
      basket.refresh();
    }, 500);
  }
}

// The cells of a comparison show states too, which change without a new image. A large one is read
// less often.
function cellsChanged() {
  following ||= setTimeout(async () => {
    following = 0;
    const began = performance.now();
    try { await load({ live: true }); } catch { /* the alarm says so; the next change tries again */ }
    pause = Math.max(LIVE_MS, LIVE_SHARE * (performance.now() - began));
  }, pause);
}

let connectedBefore = false;
let refreshing = 0;
let following = 0;
let pause = LIVE_MS;

async function begin() {
  try {
    await openSession();
    store.batch = await get("/api/batch");
  } catch (error) {
    find("summary").textContent = "";
    find("empty").hidden = false;
    find("empty").textContent = error instanceof Refused ? `This page is locked: ${error.message}.` : reason(error);
    return;
  }
  store.counts = store.batch.counts;
  find("batch-name").textContent = store.batch.name;
  document.title = `${isComparison ? "Comparison" : "Review"}: ${store.batch.name}`;
  if (!isComparison) find("comparison-link").hidden = !store.batch.axes.length;
  filters.setup(store.batch, isComparison ? store.batch.compared_runs : store.batch.runs);
  find("size").value = String(view.size);
  find("size").addEventListener("input", (event) => view.setSize(Number(event.target.value)));
  find("advance").checked = localStorage.getItem(ADVANCE) !== "no";
  find("advance").addEventListener("change", (event) => localStorage.setItem(ADVANCE, event.target.checked ? "yes" : "no"));
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => { run(button.dataset.do === "next" ? "right" : button.dataset.do); });
  find("undo").addEventListener("click", () => run("undo"));
  find("help").addEventListener("click", () => run("help"));
  find("accept-shown").addEventListener("click", () => decideShown("accept", "Accept"));
  find("reject-shown").addEventListener("click", () => decideShown("reject", "Reject"));
  store.addEventListener("selection", selectionBar);
  addEventListener("keydown", (event) => { if (compare.isOpen && /^[1-6]$/.test(event.key)) compare.pick(Number(event.key) - 1); });
  await load();
  store.restorePlace();
  find("grid").focus({ preventScroll: true });
  basket.refresh();
  listen(happened, () => trouble(new Error("lost"), queue.length));
}

begin();
