// One VM: who holds it, who waits for whom, and a strip of its last minutes.

import { h, now, plural, since } from "./words.js";

const SHOWN = 3; // who wait, before the rest is folded
const SVG = "http://www.w3.org/2000/svg";
const WORDS = { held: "held", waited: "somebody waits", lost: "owner lost", idle: "idle" };

export const mood = (vm) =>
  vm.holders.some((job) => job.left || !job.alive) ? "lost" : vm.waiters.length ? "waited" : "held";

export const long = (vm) => vm.holders.find((job) => job.slot === "async");

export const eachOnce = (jobs) => [...new Map(jobs.map((job) => [job.ticket, job])).values()];

export function draw(item, vm, span, actions) {
  const focused = item.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const open = item.querySelector("details")?.open;
  item.className = mood(vm);
  item.replaceChildren(
    h("div", { class: "name" }, h("h2", {}, vm.vm), badge(vm), h("div", { class: "strip" })),
    h("ul", { class: "holders", "aria-label": "holds" }, ...eachOnce(vm.holders).map((job) => holder(vm, job))),
    waiters(vm, open),
    h("div", { class: "actions" }, ...actions),
  );
  strip(item, vm, span);
  if (focused) item.querySelector(`[data-key="${focused}"]`)?.focus();
}

export function strip(item, vm, span) {
  const end = now();
  const start = end - span;
  const svg = document.createElementNS(SVG, "svg");
  const times = {};
  svg.setAttribute("viewBox", `0 0 ${span} 8`);
  svg.setAttribute("preserveAspectRatio", "none");
  vm.strip.forEach(([at, kind], index) => {
    const from = Math.max(at, start);
    const to = Math.min(vm.strip[index + 1]?.[0] ?? end, end);
    if (to <= start || kind === "idle") return;
    times[kind] = (times[kind] ?? 0) + to - from;
    const rect = document.createElementNS(SVG, "rect");
    const facts = { x: from - start, width: Math.max(to - from, span / 150), height: 8, class: kind };
    for (const [name, value] of Object.entries(facts)) rect.setAttribute(name, value);
    svg.append(rect);
  });
  const shares = Object.entries(times).map(([kind, time]) => `${WORDS[kind]} ${Math.round((100 * time) / span)} %`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `last ${plural(Math.round(span / 60), "minute")}: ${shares.join(", ") || "idle"}`);
  item.querySelector(".strip")?.replaceChildren(svg);
}

function badge(vm) {
  const left = vm.holders.find((job) => job.left)?.left;
  const text =
    left ?? (mood(vm) === "lost" ? "session ended" : vm.waiters.length ? plural(vm.waiters.length, "waits", "wait") : "");
  return text && h("span", { class: "badge" }, text);
}

function holder(vm, job) {
  const slots = vm.holders.filter((other) => other.ticket === job.ticket).map((other) => other.slot);
  const lets = job.slot === "async" && vm.mask ? `lets in ${vm.mask.join(", ")}` : "";
  return h(
    "li",
    { class: job.left || !job.alive ? "job dead" : "job" },
    h("p", { class: "what" }, h("strong", {}, job.job), " ", since(job.since), " ", note(`${slots.join(" + ")} slot, token ${job.token}`)),
    h("p", { class: "who" }, ...owner(job)),
    job.phase && h("p", {}, `phase ${job.phase}`),
    job.progress && progress(job),
    job.abort && h("p", { class: "abort" }, `asked to abort by ${job.abort.by.controller}`, job.abort.reason && `: ${job.abort.reason}`),
    lets && h("p", {}, note(lets)),
  );
}

function owner(job) {
  const state = job.left ?? (job.alive ? "" : "session ended");
  const api = job.api && job.api !== job.job ? ` · ${job.api}` : "";
  return [job.left ? "was " : "", h("b", {}, job.controller), " ", note(`${job.host}, pid ${job.pid}${api}`), state && " ", state && h("span", { class: "badge" }, state)];
}

function progress({ job, progress: { done, total, unit } }) {
  const amount = (value) => Number(value.toPrecision(6)).toLocaleString();
  const text = `${amount(done)}${total == null ? "" : ` of ${amount(total)}`}${unit ? ` ${unit}` : ""}`;
  const known = total > 0;
  const bar = h("progress", { max: known ? total : 1, value: known ? Math.min(done, total) : null, "aria-label": `progress of ${job}` });
  const share = known ? `${Math.round((100 * done) / total)} %, ` : "";
  return h("p", { class: "progress" }, bar, " ", note(share + text));
}

function waiters(vm, open) {
  const items = vm.waiters.map((job) => waiter(vm, job));
  const list = (some, start) => h("ol", { class: "waiters", "aria-label": "waits", start }, ...some);
  if (items.length <= SHOWN + 1) return items.length ? list(items, 1) : h("div");
  const rest = items.splice(SHOWN);
  return h(
    "div",
    {},
    list(items, 1),
    h("details", { open: Boolean(open) }, h("summary", { "data-key": "rest" }, `${rest.length} more wait`), list(rest, SHOWN + 1)),
  );
}

function waiter(vm, job) {
  const names = job.waits_for
    .map((ticket) => vm.holders.find((other) => other.ticket === ticket))
    .filter(Boolean)
    .map((other) => `${other.job} of ${other.controller}`);
  return h(
    "li",
    { class: job.alive ? "job" : "job dead" },
    h("p", { class: "what" }, h("strong", {}, job.job), " ", since(job.since), " ", note(`waits for ${names.join(" and ") || "those before it"}`)),
    h("p", { class: "who" }, ...owner(job)),
  );
}

const note = (text) => h("small", {}, text);
