// Keeps what the server has told, and draws as much of it as is wanted.

import * as act from "./act.js";
import { draw, eachOnce, long, mood, strip } from "./row.js";
import { now, plural, setClock, tick, timeOfDay } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAGE = 100; // VMs drawn at first, and with each "more"
const SILENT = 15_000; // ms without a word from the server, which speaks every 5 s

const vms = new Map();
const items = new Map();
const choice = { filter: "", only: "all", sort: "name" };
let store = null;
let span = 300;
let limit = PAGE;
let heard = Date.now();
let source = null;
let broken = false;
let drawn = false;

// -- what the server tells ------------------------------------------------------------------------

function listen() {
  hush();
  heard = Date.now();
  source = new EventSource("v1/events");
  source.addEventListener("hello", (event) => {
    if (JSON.parse(event.data).writable && $("person").hidden) act.start(said);
  });
  source.onmessage = (event) => {
    heard = Date.now();
    broken = false;
    const told = JSON.parse(event.data);
    setClock(told.now);
    ({ store, span } = told);
    if (told.whole) vms.clear();
    for (const vm of told.vms) vms.set(vm.vm, vm);
    for (const name of told.gone) vms.delete(name);
    state();
    redraw();
  };
  source.onerror = () => {
    broken = true;
    state();
  };
}

function hush() {
  source?.close();
  source = null;
}

// A browser has six connections to a server, for all its tabs: those that nobody sees let go of
// theirs, and so do pages that were left and may be come back to.
function whileSeen() {
  if (document.hidden) hush();
  else if (!source) listen();
}

function state() {
  const lost = broken || Date.now() - heard > SILENT;
  let [kind, word, text] = ["live", "live", ""];
  if (lost && store === null) [kind, word] = ["wait", "connecting"];
  else if (lost) [kind, word, text] = ["away", "disconnected", `distjob serve does not answer. What is shown is of ${timeOfDay(store.seen ?? now())}.`];
  else if (!store.up) {
    const shown = store.seen ? `What is shown is of ${timeOfDay(store.seen)}.` : "Nothing was read yet.";
    [kind, word, text] = ["away", "store away", `The store can’t be read since ${timeOfDay(store.since)}: ${store.trouble.replace(/[.]$/, "")}. ${shown}`];
  }
  $("state").dataset.state = kind;
  say("state", word);
  say("trouble", text);
  $("trouble").hidden = text === "";
  document.body.classList.toggle("old", kind === "away");
}

function said(text) {
  if (text) say("said", text);
  for (const item of items.values()) item.vm = null; // the buttons have changed
  redraw();
}

function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// -- what is drawn --------------------------------------------------------------------------------

const KEEPS = {
  all: () => true,
  waited: (vm) => vm.waiters.length > 0,
  async: (vm) => Boolean(long(vm)),
  abort: (vm) => vm.holders.some((job) => job.abort),
  lost: (vm) => mood(vm) === "lost",
};
const oldest = (jobs) => Math.min(Infinity, ...jobs.map((job) => job.since));
const byName = new Intl.Collator(undefined, { numeric: true }).compare;
const less = (a, b) => (a === b ? 0 : a < b ? -1 : 1);
const SORTS = {
  name: () => 0,
  held: (a, b) => less(oldest(a.holders), oldest(b.holders)),
  waiting: (a, b) => less(oldest(a.waiters), oldest(b.waiters)),
  crowd: (a, b) => b.waiters.length - a.waiters.length,
  new: (a, b) => less(newest(b), newest(a)),
};
const newest = (vm) => Math.max(...[...vm.holders, ...vm.waiters].map((job) => job.since));

function text(vm) {
  vm.text ??= [vm.vm, ...eachOnce([...vm.holders, ...vm.waiters]).flatMap((job) => [job.job, job.controller, job.host, job.api, job.phase])]
    .join("\n")
    .toLowerCase();
  return vm.text;
}

function chosen() {
  const words = choice.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const keeps = KEEPS[choice.only];
  const sort = SORTS[choice.sort];
  return [...vms.values()]
    .filter((vm) => keeps(vm) && words.every((word) => text(vm).includes(word)))
    .sort((a, b) => sort(a, b) || byName(a.vm, b.vm));
}

function redraw() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    drawAll(chosen());
  });
}

function drawAll(all) {
  const list = $("vms");
  const some = all.slice(0, limit);
  const names = new Set(some.map((vm) => vm.vm));
  for (const [name, item] of items) if (!names.has(name)) item.remove(), items.delete(name);
  some.forEach((vm, index) => {
    let item = items.get(vm.vm);
    if (!item) items.set(vm.vm, (item = document.createElement("li")));
    if (item.vm !== vm) draw(item, vm, span, act.actions(vm));
    item.vm = vm;
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  counts(all, some);
}

function counts(all, some) {
  const waiting = all.reduce((sum, vm) => sum + vm.waiters.length, 0);
  const of = all.length < vms.size ? ` of ${vms.size.toLocaleString()}` : "";
  const more = all.length - some.length;
  say("count", store ? `${plural(all.length, "VM")}${of}, ${plural(waiting, "waits", "wait")}${more ? `; ${plural(some.length, "VM")} shown` : ""}` : "");
  say("more", `Show ${Math.min(more, PAGE)} more of ${more.toLocaleString()}`);
  $("more").hidden = more === 0;
  say("none", vms.size ? "No VM is as you asked." : "Nothing is under way: all VMs are idle.");
  $("none").hidden = all.length > 0 || !store?.seen;
  document.title = `${vms.size.toLocaleString()} – distjob`;
}

// -- what somebody chooses ------------------------------------------------------------------------

function choose() {
  for (const id of Object.keys(choice)) choice[id] = $(id).value;
  limit = PAGE;
  const query = new URLSearchParams(Object.entries(choice).filter(([, value]) => value && value !== "all" && value !== "name"));
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  redraw();
}

for (const [id, value] of new URLSearchParams(location.search)) if (id in choice) $(id).value = value;
for (const id of ["only", "sort"]) if (!$(id).value) $(id).selectedIndex = 0;
$("choice").addEventListener("input", choose);
$("choice").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => {
  const first = limit;
  limit += PAGE;
  drawAll(chosen());
  const next = $("vms").children[first];
  next?.setAttribute("tabindex", "-1");
  next?.focus();
});
setInterval(() => tick($("vms")), 1_000);
setInterval(() => {
  for (const item of items.values()) if (item.vm) strip(item, item.vm, span);
}, 5_000);
setInterval(() => {
  if (!source) return;
  state();
  if (source.readyState === EventSource.CLOSED || Date.now() - heard > SILENT) listen();
}, 3_000);
document.addEventListener("visibilitychange", whileSeen);
addEventListener("pagehide", hush);
addEventListener("pageshow", whileSeen);
choose();
whileSeen();
