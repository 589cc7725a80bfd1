/** The labelling page: a grid of patches, answered by keys. */

import { get, post } from "../common/api.js";
import { byId, element, isolated } from "../common/dom.js";
import { Keys } from "../common/keys.js";
import { Grid } from "./grid.js";
import { drawClasses, drawScale, drawStatus, drawTraining, showAgreement } from "./panel.js";
import { State, isDone } from "./state.js";

/** @typedef {import("./state.js").Item} Item */

const COLUMNS = 6;
const TRAINING_MS = 2000;
const context = byId("context", HTMLDialogElement);

const state = new State(draw, (text) => {
  const box = byId("message", HTMLDivElement);
  box.textContent = text;
  box.hidden = text === "";
});
const grid = new Grid(byId("grid", HTMLDivElement), state, { chosen: choose, opened: showContext });

/** @type {string[]} the classes of the last answer, for `.` */
let previous = [];

function draw() {
  const page = state.page;
  if (page === null) return;
  grid.draw();
  drawStatus(page, state.grouped);
  drawClasses(page, toggle);
  rescale();
}

let scaled = "";

/** The scale is measured anew only where it may have changed. */
function rescale() {
  const page = state.page;
  if (page === null) return;
  const now = [page.patch_px, page.mpp, window.innerWidth, window.innerHeight].join(" ");
  if (now === scaled) return;
  scaled = now;
  requestAnimationFrame(() => drawScale(page));
}

/* Answering */

/** @param {number} at */
function choose(at) {
  state.here = at;
  draw();
}

/** @param {Item} item @param {string} name */
function toggled(item, name) {
  return item.present.includes(name) ? item.present.filter((one) => one !== name) : [...item.present, name];
}

/** @param {number} at number of the class, from 0 */
function toggle(at) {
  const one = state.page?.classes[at];
  const { item } = state;
  if (one === undefined || item === undefined) return;
  const status = item.status === "labelled" ? "labelled" : "draft";
  state.answer([item], status, (it) => toggled(it, one.name));
  previous = item.present;
}

/** For the whole page: on, or off where all have it. @param {number} at */
function toggleAll(at) {
  const page = state.page;
  const one = page?.classes[at];
  if (page === null || one === undefined) return;
  const items = page.items.filter((item) => !isDone(item));
  const on = !items.every((item) => item.present.includes(one.name));
  state.answer(items, "draft", (item) =>
    on ? [...new Set([...item.present, one.name])] : item.present.filter((name) => name !== one.name),
  );
}

/** @param {import("./state.js").Status} status @param {(item: Item) => string[]} [present] */
function confirm(status, present) {
  const { item } = state;
  if (item === undefined) return;
  state.answer([item], status, present);
  previous = item.present;
  goOn();
}

/** To the next patch without an answer, and to the next page where there is none. */
function goOn() {
  const page = state.page;
  if (page === null) return;
  const order = [...page.items.keys()].map((step) => (state.here + 1 + step) % page.items.length);
  const next = order.find((at) => !isDone(page.items[at]));
  if (next === undefined) turn(1);
  else choose(next);
}

function confirmRest() {
  const page = state.page;
  if (page === null) return;
  state.answer(
    page.items.filter((item) => !isDone(item)),
    "labelled",
  );
  turn(1);
}

/** @param {number} step */
function move(step) {
  const count = state.page?.items.length ?? 0;
  const at = state.here + step;
  if (at >= 0 && at < count) choose(at);
  else if (Math.abs(step) === 1) turn(step);
}

/** @param {number} step */
function turn(step) {
  state
    .turn(step)
    .then(() => get("/api/summary"))
    .then(showAgreement)
    .catch((error) => state.failed(error.message));
}

/* Context, opinions, groups */

function showContext() {
  const { item } = state;
  if (item === undefined) return;
  if (context.open) {
    context.close();
    return;
  }
  byId("picture", HTMLImageElement).src = item.context;
  context.showModal();
}

async function showOpinions() {
  if (!state.page?.model) {
    state.failed("there is no model whose opinion could be shown; start with --model");
    return;
  }
  state.shown = !state.shown;
  if (state.shown) await state.loadOpinions();
  draw();
}

async function showGroups() {
  state.grouped = !state.grouped;
  state.forget();
  await state.open(null);
}

/** @param {() => Promise<void>} what */
function now(what) {
  return () => {
    state.failed("");
    what().catch((error) => state.failed(error.message));
  };
}

/* Classes */

/** @param {string} question @param {string} [given] @returns {Promise<string | null>} */
function ask(question, given = "") {
  const dialog = byId("ask", HTMLDialogElement);
  const input = byId("given", HTMLInputElement);
  byId("question", HTMLParagraphElement).textContent = question;
  input.value = given;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "yes" && input.value.trim() ? input.value.trim() : null),
      { once: true },
    );
  });
}

/** @param {object} change */
async function changeClasses(change) {
  await post("/api/class", change);
  state.forget();
  await state.open(state.page?.number ?? null, state.here);
}

async function addClass() {
  const name = await ask("Name of the new class. Patches that were answered before are unknown in it.");
  if (name !== null) await changeClasses({ add: name });
}

async function renameClass() {
  const names = state.page?.classes.map((one) => one.name) ?? [];
  const number = await ask(`Number of the class to rename: ${names.map((name, at) => `${at + 1} ${isolated(name)}`).join(", ")}`);
  const old = number === null ? undefined : names[Number(number) - 1];
  if (old === undefined) return;
  const name = await ask(`New name of ${isolated(old)}. Its answers stay.`, old);
  if (name !== null && name !== old) await changeClasses({ rename: [old, name] });
}

/* Training */

async function startTraining() {
  await state.queue;
  showTraining(await post("/api/train", {}));
}

/** @param {{phase: string, model: string, said: string}} training */
function showTraining(training) {
  drawTraining(training);
  if (training.phase === "running") {
    setTimeout(() => {
      get("/api/train").then(showTraining, (error) => state.failed(error.message));
    }, TRAINING_MS);
  }
}

/* Keys: which ones, the server says, since people may choose their own */

/** @type {Record<string, () => void>} */
const ACTIONS = {
  confirm: () => confirm("labelled"),
  rest: confirmRest,
  none: () => confirm("labelled", () => []),
  unsure: () => confirm("unsure"),
  exclude: () => confirm("excluded"),
  same: () => confirm("labelled", () => [...previous]),
  left: () => move(-1),
  right: () => move(1),
  up: () => move(-COLUMNS),
  down: () => move(COLUMNS),
  next: () => turn(1),
  before: () => turn(-1),
  context: showContext,
  undo: () => state.takeBack("undo"),
  redo: () => state.takeBack("redo"),
  opinions: now(showOpinions),
  groups: now(showGroups),
};

const BUTTONS = [
  ["Confirm", "confirm"],
  ["None", "none"],
  ["Unsure", "unsure"],
  ["Exclude", "exclude"],
  ["Undo", "undo"],
  ["Redo", "redo"],
  ["Context", "context"],
  ["Groups", "groups"],
];

/** @param {{action: string, keys: string[], label: string, what: string}[]} bindings */
function bindKeys(bindings) {
  const keys = new Keys();
  for (let at = 0; at < 9; at += 1) {
    keys.bind([String(at + 1)], "", () => toggle(at));
    keys.bind([`shift+Digit${at + 1}`], "", () => toggleAll(at));
  }
  keys.shown.push(["1 … 9", "a class is there, or not"], ["Shift 1 … 9", "the same for all open patches of the page"]);
  for (const { action, keys: names, label, what } of bindings) keys.bind(names, what, ACTIONS[action], label);
  const labels = new Map(bindings.map(({ action, label }) => [action, label]));
  byId("actions", HTMLDivElement).append(
    ...BUTTONS.map(([name, action]) =>
      element("button", { type: "button", title: `key ${labels.get(action)}`, onclick: ACTIONS[action] }, name),
    ),
  );
}

byId("add", HTMLButtonElement).addEventListener("click", now(addClass));
byId("rename", HTMLButtonElement).addEventListener("click", now(renameClass));
byId("train", HTMLButtonElement).addEventListener("click", now(startTraining));
window.addEventListener("resize", rescale);
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLButtonElement) event.target.blur(); // so that Enter confirms a patch
});

get("/api/keys")
  .then(bindKeys)
  .then(() => state.open(null))
  .then(() => get("/api/train"))
  .then(showTraining)
  .then(() => get("/api/summary"))
  .then(showAgreement)
  .catch((error) => state.failed(error.message));
