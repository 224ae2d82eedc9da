// The basket: what the next run regenerates, what that costs, and the command for it.

import { get } from "./api.js";
import { find, make, toast } from "./dom.js";
import { counted, dollars } from "./format.js";

const NAMES = { rejected: "Rejected, same prompt", redo: "Redo with another prompt" };

export class Basket {
  constructor() {
    find("basket").addEventListener("click", () => this.show());
  }

  async refresh() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      try { this.draw(await get("/api/basket")); } catch { /* the next decision tries again */ }
    }, 150);
  }

  draw(basket) {
    this.content = basket;
    const jobs = basket.groups.reduce((sum, group) => sum + group.jobs, 0);
    find("basket-text").textContent = jobs ? `${counted(jobs, "image")} to regenerate, ${dollars(basket.total)}` : "Nothing to regenerate";
    find("basket").classList.toggle("full", jobs > 0);
  }

  async show() {
    this.draw(await get("/api/basket"));
    const { groups, total, budgets, command } = this.content;
    const rows = groups.map((group) => make("tr", {}, make("td", {}, NAMES[group.group]), number(group.jobs.toLocaleString("en-US")), number(dollars(group.cost))));
    const sum = make("tr", {}, make("th", {}, "Estimated total"), number(""), number(dollars(total)));
    find("basket-body").replaceChildren(
      groups.length ? make("table", {}, make("tbody", {}, ...rows, sum)) : make("p", {}, "No image is rejected. The next run has nothing to regenerate."),
      ...budgets.map((budget) => make("p", { class: "muted" }, `Budget of the ${budget.period}: ${dollars(budget.left)} left`)),
      make("div", { class: "command" }, make("code", {}, command), make("button", { type: "button", onclick: () => copy(command) }, "Copy")),
      make("p", { class: "muted" }, "This page sends no request and spends nothing. The run asks before it spends."),
    );
    find("basket-dialog").showModal();
  }
}

function number(text) { return make("td", { class: "number" }, text); }

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`copied: ${text}`);
  } catch { toast(text, 10000); }
}
