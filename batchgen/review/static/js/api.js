// The server's interface: the session, reads, events, and a queue of decisions that loses none.

export class Refused extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

export const SESSION = crypto.randomUUID();

export async function openSession() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  await post("/api/session", { token });
}

export async function get(path) {
  return read(await fetch(path, { headers: { Accept: "application/json" } }));
}

export async function post(path, body) {
  return read(await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }));
}

async function read(response) {
  const text = await response.text();
  let body = {};
  try { body = JSON.parse(text); } catch { body = { error: text.trim() }; }
  if (!response.ok) throw new Refused(response.status, body.error ?? response.statusText, body);
  return body;
}

const RETRY_MS = [200, 500, 1000, 2000];

// Sends one action after the other. Each has an id, so that sending it again records it once.
export class ActionQueue {
  constructor({ onDone, onRefused, onTrouble }) {
    this.waiting = [];
    this.busy = false;
    Object.assign(this, { onDone, onRefused, onTrouble });
    addEventListener("beforeunload", (event) => {
      if (this.waiting.length) event.preventDefault();
    });
  }

  get length() { return this.waiting.length; }

  add(path, body, about) {
    this.waiting.push({ path, body: { ...body, action: crypto.randomUUID(), session: SESSION }, about });
    this.#run();
  }

  async #run() {
    if (this.busy) return;
    this.busy = true;
    for (let failed = 0; this.waiting.length;) {
      const action = this.waiting[0];
      try {
        const result = await post(action.path, action.body);
        this.waiting.shift();
        if (failed) this.onTrouble(null, this.waiting.length);
        failed = 0;
        this.onDone(result, action);
      } catch (error) {
        if (error instanceof Refused && error.status < 500) {
          this.waiting.shift();
          this.onRefused(error, action);
          continue;
        }
        failed++;
        this.onTrouble(error, this.waiting.length);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failed, RETRY_MS.length) - 1]));
      }
    }
    this.busy = false;
  }
}

// Calls back for each event; `connected` also comes after a lost connection is back.
export function listen(onEvent, onLost) {
  const source = new EventSource("/api/events");
  source.onmessage = (message) => onEvent(JSON.parse(message.data));
  source.onerror = () => onLost(source.readyState);
  return source;
}
