// What somebody with a token may do. The token is kept for this tab, until it is closed.

import { h } from "./words.js";
import { eachOnce, long } from "./row.js";

const $ = (id) => document.getElementById(id);
const KEY = "distjob token";
let person = "";
let done = () => {};

export const signedIn = () => person !== "";

async function ask(path, token, body) {
  const headers = { authorization: `Bearer ${token}` };
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error);
  return data;
}

export async function start(changed) {
  done = changed;
  $("person").hidden = false;
  $("person").addEventListener("click", () => (signedIn() ? signOut() : signIn()));
  $("cancel").addEventListener("click", () => $("dialog").close());
  const token = sessionStorage.getItem(KEY);
  if (token) await welcome(token).catch(signOut);
}

async function welcome(token) {
  person = (await ask("v1/me", token)).name;
  sessionStorage.setItem(KEY, token);
  $("person").textContent = `Sign out ${person}`;
  done("");
}

function signOut() {
  person = "";
  sessionStorage.removeItem(KEY);
  $("person").textContent = "Sign in";
  done("");
}

function show(title, yes, content, act) {
  $("title").textContent = title;
  $("yes").textContent = yes;
  $("body").replaceChildren(...content);
  $("problem").hidden = true;
  $("form").onsubmit = async (event) => {
    event.preventDefault();
    $("yes").disabled = true;
    try {
      await act();
      $("dialog").close();
    } catch (error) {
      $("problem").textContent = error.message;
      $("problem").hidden = false;
    } finally {
      $("yes").disabled = false;
    }
  };
  $("dialog").showModal();
  $("body").querySelector("input")?.focus();
}

function signIn() {
  const input = h("input", { type: "password", id: "token", autocomplete: "off" });
  show("Sign in", "Sign in", [h("label", {}, "Token ", input)], () => welcome(input.value.trim()));
}

async function act(path, body, words) {
  const { jobs } = await ask(path, sessionStorage.getItem(KEY), body);
  done(`VM ${body.vm}: ${jobs.length ? `${words} ${jobs.map((job) => `${job.job} of ${job.controller}`).join(", ")}` : "nothing was there any more"}`);
}

function abort(vm, job) {
  const reason = h("input", { id: "reason", maxlength: 150, autocomplete: "off" });
  const text = `${job.job} of ${job.controller} is asked to stop. Its owner decides, and is told that it was ${person} who asked.`;
  show(`Abort on ${vm.vm}`, "Ask to abort", [h("p", {}, text), h("label", {}, "Reason ", reason)], () =>
    act("v1/abort", { vm: vm.vm, reason: reason.value }, "asked to abort:"),
  );
}

function discard(vm, job) {
  const text = `${job.job} has no owner: ${job.controller} was. What it has half done stays half done.`;
  show(`Discard on ${vm.vm}`, "Discard", [h("p", {}, text)], () => act("v1/discard", { vm: vm.vm }, "discarded:"));
}

function evict(vm) {
  const jobs = [...eachOnce(vm.holders), ...vm.waiters];
  const boxes = jobs.map((job) => h("input", { type: "checkbox", value: job.ticket }));
  const labels = jobs.map((job, index) =>
    h("label", { class: "check" }, boxes[index], ` ${job.job} of ${job.controller} (${job.host}, pid ${job.pid}), ${job.slot ? `holds, token ${job.token}` : "waits"}`),
  );
  const text = "A holder may be at work, and only a guard keeps it off the VM once the next has come: stop it first if you can.";
  show(`Break jobs on ${vm.vm}`, "Break by force", [h("p", {}, text), ...labels], async () => {
    const tickets = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!tickets.length) throw new Error("Choose what is to be broken.");
    await act("v1/evict", { vm: vm.vm, tickets }, "broken:");
  });
}

export function actions(vm) {
  if (!signedIn()) return [];
  const job = long(vm);
  const button = (text, key, onclick) => h("button", { type: "button", "data-key": key, "aria-label": `${text} on ${vm.vm}`, onclick }, text);
  return [
    job && !job.abort && button("Abort", "abort", () => abort(vm, job)),
    job?.left && button("Discard", "discard", () => discard(vm, job)),
    button("Evict", "evict", () => evict(vm)),
  ].filter(Boolean);
}
