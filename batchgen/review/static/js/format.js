// Text for people: money, times, sizes, decisions, word diffs. Pure.

export const LETTERS = { "-": "clear", a: "accept", r: "reject", o: "redo" };
export const WORDS = { clear: "undecided", accept: "accepted", reject: "rejected", redo: "redo" };
export const LETTER_OF = { clear: "-", accept: "a", reject: "r", redo: "o" };

export function capital(text) { return text.charAt(0).toUpperCase() + text.slice(1); }

export function counted(number, noun) {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

// Micros, or dollars as a decimal string, as dollars; cents above one dollar.
export function dollars(amount) {
  const value = typeof amount === "string" ? Number(amount) : amount / 1e6;
  const digits = value && Math.abs(value) < 1 ? 4 : 2;
  return `$${value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export function when(timestamp) {
  if (!timestamp) return "";
  return new Date(timestamp).toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "short" });
}

export function duration(seconds) {
  if (seconds === null || !isFinite(seconds)) return "";
  // Rounded first, as `duration` of text.py does: there is no 60th second or minute.
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${seconds < 10 ? seconds.toFixed(1) : rounded}s`;
  const minutes = Math.floor(rounded / 60);
  if (minutes < 60) return `${minutes}m ${String(rounded % 60).padStart(2, "0")}s`;
  return `${Math.floor(minutes / 60).toLocaleString("en-US")}h ${String(minutes % 60).padStart(2, "0")}m`;
}

export function bytes(number) {
  if (number < 1e6) return `${Math.max(1, Math.round(number / 1e3))} kB`;
  return `${(number / 1e6).toFixed(1)} MB`;
}

const PIECES = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const MOST_PIECES = 2000;

// The parts of a word diff as [kind, text]; kind is "same", "del" or "ins".
export function wordDiff(before, after) {
  const old = before.match(PIECES) ?? [];
  const now = after.match(PIECES) ?? [];
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head++;
  let tail = 0;
  while (tail < old.length - head && tail < now.length - head
    && old[old.length - 1 - tail] === now[now.length - 1 - tail]) tail++;
  const a = old.slice(head, old.length - tail);
  const b = now.slice(head, now.length - tail);
  const middle = a.length * b.length > MOST_PIECES ** 2 ? [["del", a.join("")], ["ins", b.join("")]] : longest(a, b);
  const parts = [["same", old.slice(0, head).join("")], ...middle, ["same", old.slice(old.length - tail).join("")]];
  return parts.filter(([, text]) => text);
}

// The diff by the longest common subsequence, with neighbors of one kind joined.
function longest(a, b) {
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] = a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const parts = [];
  const add = (kind, text) => {
    const last = parts.at(-1);
    if (last && last[0] === kind) last[1] += text;
    else parts.push([kind, text]);
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("same", a[i]); i++; j++; }
    else if (i < a.length && (j >= b.length || table[(i + 1) * width + j] >= table[i * width + j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  }
  return parts;
}
