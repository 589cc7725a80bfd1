/** The labelling page: a grid of patches, answered by keys. */

import { get, post } from "../common/api.js";
import { byId, element } from "../common/dom.js";
import { Keys } from "../common/keys.js";
import { State, isDone } from "./state.js";

/** @typedef {import("./state.js").Item} Item */

const COLUMNS = 6;
const TRAINING_MS = 2000;
const grid = byId("grid", HTMLDivElement);
const context = byId("context", HTMLDialogElement);

const state = new State(draw, (text) => {
  const box = byId("message", HTMLDivElement);
  box.textContent = text;
  box.hidden = text === "";
});

/** @type {string[]} the classes of the last answer, for `.` */
let previous = [];

/* Drawing */

function draw() {
  const page = state.page;
  if (page === null) return;
  byId("where", HTMLDivElement).textContent =
    `Round ${page.round}, ${state.grouped ? "group" : "page"} ${page.number + 1} of ${page.pages}`;
  grid.replaceChildren(...page.items.map(drawPatch));
  drawStatus();
  drawClasses();
  drawScale();
}

/** @param {Item} item @param {number} at */
function drawPatch(item, at) {
  const classes = state.page?.classes ?? [];
  const tags = classes.filter((one) => item.present.includes(one.name)).map((one) => tag(one.name, one.color));
  if (item.status === "labelled" && tags.length === 0) tags.push(word("none of these"));
  if (item.status === "unsure" || item.status === "excluded") tags.splice(0, tags.length, word(item.status));
  if (state.shown) {
    for (const name of state.opinions[item.place] ?? []) {
      const color = classes.find((one) => one.name === name)?.color ?? "#888888";
      tags.push(tag(name, color, true));
    }
  }
  const kinds = ["patch", at === state.here ? "here" : "", isDone(item) ? "done" : "", item.status ?? ""];
  const box = element(
    "div",
    {
      class: kinds.join(" "),
      role: "gridcell",
      "aria-selected": at === state.here,
      "data-place": item.place,
      "data-status": item.status ?? "",
      onclick: () => {
        state.here = at;
        draw();
      },
      ondblclick: showContext,
    },
    element("img", { src: item.patch, alt: `patch ${item.place + 1}`, draggable: false }),
    element("div", { class: "tags" }, ...tags),
    mark(item),
  );
  return box;
}

/** @param {string} name @param {string} color @param {boolean} [opinion] */
function tag(name, color, opinion = false) {
  const made = element("span", { class: opinion ? "tag opinion" : "tag", title: opinion ? `model: ${name}` : name }, name);
  if (opinion) made.style.borderColor = color;
  else made.style.backgroundColor = color;
  return made;
}

/** @param {string} text */
function word(text) {
  return element("span", { class: "tag word" }, text);
}

/** @param {Item} item */
function mark(item) {
  if (item.status === null) return null;
  const kind = item.pending ? "pending" : item.status === "draft" ? "draft" : "saved";
  const titles = { pending: "being saved", draft: "kept, not confirmed", saved: "saved" };
  return element("div", { class: `mark ${kind}`, title: titles[kind] });
}

function drawStatus() {
  const page = state.page;
  if (page === null) return;
  const { status } = page;
  const pace = status.per_minute === null ? "" : ` · ${Math.round(status.per_minute)} a minute`;
  byId("status", HTMLDivElement).textContent =
    `${status.done} labelled${pace} · ${page.open} of ${page.total} open in this round`;
  const rows = [
    ["labelled", status.done],
    ["unsure", status.unsure],
    ["excluded", status.excluded],
    ["not confirmed", status.drafts],
  ];
  if (status.right !== null) {
    const percent = (/** @type {number} */ value) => `${Math.round(100 * value)}`;
    rows.push([
      "model right, random patches",
      `${percent(status.right)} % (${percent(status.right_low)}–${percent(status.right_high)}), ${status.random_answers}`,
    ]);
  }
  byId("progress", HTMLTableElement).replaceChildren(
    ...rows.map(([name, value]) => element("tr", {}, element("th", {}, name), element("td", {}, String(value)))),
  );
  byId("hint", HTMLParagraphElement).textContent = status.hint;
}

function drawClasses() {
  const page = state.page;
  if (page === null) return;
  byId("classes", HTMLOListElement).replaceChildren(
    ...page.classes.map((one, at) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.backgroundColor = one.color;
      const few = page.status.few.includes(one.name);
      const count = page.status.positives[one.name] ?? 0;
      return element(
        "li",
        { onclick: () => toggle(at) },
        element("kbd", {}, at < 9 ? String(at + 1) : " "),
        swatch,
        element("span", { class: "name", title: one.name }, one.name),
        element(
          "span",
          { class: few ? "count few" : "count", title: few ? "fewer than 20 patches: hardly learned" : "patches" },
          String(count),
        ),
      );
    }),
  );
}

function drawScale() {
  const page = state.page;
  const picture = grid.querySelector("img");
  if (page === null || picture === null) return;
  const side = Math.min(picture.clientWidth, picture.clientHeight);
  const microns = page.patch_px * page.mpp;
  const bar = [10, 20, 25, 50, 100, 200, 500].find((value) => value >= microns / 4) ?? 500;
  const line = element("div", { id: "bar" });
  line.style.width = `${(side * bar) / microns}px`;
  byId("scale", HTMLElement).replaceChildren(
    line,
    `${bar} µm · patches of ${page.patch_px} px at ${page.mpp} µm per pixel · ${page.labeller} · h shows the keys`,
  );
}

/**
 * Agreement with oneself on patches that were shown twice, and with others, where there is any.
 *
 * @param {{intra: Kappa[], inter: Kappa[]}} summary
 * @typedef {{name: string, pairs: number, agreement: number | null, kappa: number | null}} Kappa
 */
function showAgreement(summary) {
  const rows = [
    ...summary.intra.map((one) => agreementRow("with yourself", one)),
    ...summary.inter.map((one) => agreementRow("with others", one)),
  ];
  byId("agreement", HTMLTableElement).replaceChildren(...rows.filter((row) => row !== null));
}

/** @param {string} whom @param {Kappa} one */
function agreementRow(whom, one) {
  if (one.pairs === 0 || one.agreement === null) return null;
  const kappa = one.kappa === null ? "" : `, κ ${one.kappa.toFixed(2)}`;
  const text = `${Math.round(100 * one.agreement)} % of ${one.pairs}${kappa}`;
  return element("tr", {}, element("th", {}, `${one.name}, ${whom}`), element("td", {}, text));
}

/* Answering */

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
  else {
    state.here = next;
    draw();
  }
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
  if (at < 0 || at >= count) {
    if (Math.abs(step) === 1) turn(step);
    return;
  }
  state.here = at;
  draw();
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

async function addClass() {
  const name = await ask("Name of the new class. Patches that were answered before are unknown in it.");
  if (name === null) return;
  await post("/api/class", { add: name });
  await state.open(state.page?.number ?? null, state.here);
}

async function renameClass() {
  const names = state.page?.classes.map((one) => one.name) ?? [];
  const number = await ask(`Number of the class to rename: ${names.map((name, at) => `${at + 1} ${name}`).join(", ")}`);
  const old = number === null ? undefined : names[Number(number) - 1];
  if (old === undefined) return;
  const name = await ask(`New name of ${old}. Its answers stay.`, old);
  if (name === null || name === old) return;
  await post("/api/class", { rename: [old, name] });
  await state.open(state.page?.number ?? null, state.here);
}

/* Training */

async function startTraining() {
  await state.queue;
  showTraining(await post("/api/train", {}));
}

/** @param {{phase: string, model: string, said: string, command: string}} training */
function showTraining(training) {
  const text = {
    none: "",
    running: `${training.model} is being trained; labelling goes on. ${training.said}`,
    done: `${training.model} is trained. Start again with --model ${training.model} and it helps to choose.`,
    failed: `the training failed: ${training.said}`,
  }[training.phase];
  byId("training", HTMLParagraphElement).textContent = text ?? "";
  byId("training", HTMLParagraphElement).dataset.phase = training.phase;
  byId("train", HTMLButtonElement).disabled = training.phase === "running";
  if (training.phase === "running") {
    setTimeout(() => {
      get("/api/train").then(showTraining, (error) => state.failed(error.message));
    }, TRAINING_MS);
  }
}

/* Keys */

const keys = new Keys();
for (let at = 0; at < 9; at += 1) keys.bind([String(at + 1)], "", () => toggle(at));
for (let at = 0; at < 9; at += 1) keys.bind([`shift+Digit${at + 1}`], "", () => toggleAll(at));
keys.shown.push(["1 … 9", "a class is there, or not"], ["Shift 1 … 9", "the same for all open patches of the page"]);
keys.bind(["Enter"], "confirm, and go on", () => confirm("labelled"));
keys.bind(["shift+Enter"], "confirm the rest of the page as shown", confirmRest, "Shift Enter");
keys.bind(["0"], "none of these classes", () => confirm("labelled", () => []));
keys.bind(["?", "q"], "cannot tell: kept out of training", () => confirm("unsure"), "? q");
keys.bind(["x"], "exclude: artefact, nothing to learn from", () => confirm("excluded"));
keys.bind(["."], "as the patch before", () => confirm("labelled", () => [...previous]));
keys.bind(["ArrowLeft"], "", () => move(-1));
keys.bind(["ArrowRight"], "", () => move(1));
keys.bind(["ArrowUp"], "", () => move(-COLUMNS));
keys.bind(["ArrowDown"], "", () => move(COLUMNS));
keys.shown.push(["arrows", "to another patch"]);
keys.bind(["PageDown", "n"], "next page", () => turn(1), "Page down n");
keys.bind(["PageUp", "b"], "page before", () => turn(-1), "Page up b");
keys.bind(["c", " "], "show the surroundings", showContext, "c Space");
keys.bind(["u", "ctrl+z"], "take back, without end", () => state.takeBack("undo"), "u Ctrl z");
keys.bind(["U", "ctrl+Z", "ctrl+y"], "say again", () => state.takeBack("redo"), "U Ctrl y");
keys.bind(["p"], "show or hide what the model says", now(showOpinions));
keys.bind(["g"], "groups of patches that look alike, or not", now(showGroups));

/** @type {[string, string, () => void][]} */
const actions = [
  ["Confirm", "Enter", () => confirm("labelled")],
  ["None", "0", () => confirm("labelled", () => [])],
  ["Unsure", "?", () => confirm("unsure")],
  ["Exclude", "x", () => confirm("excluded")],
  ["Undo", "u", () => state.takeBack("undo")],
  ["Redo", "U", () => state.takeBack("redo")],
  ["Context", "c", showContext],
  ["Groups", "g", now(showGroups)],
];
byId("actions", HTMLDivElement).append(
  ...actions.map(([name, key, run]) => element("button", { type: "button", title: `key ${key}`, onclick: run }, name)),
);
byId("add", HTMLButtonElement).addEventListener("click", now(addClass));
byId("rename", HTMLButtonElement).addEventListener("click", now(renameClass));
byId("train", HTMLButtonElement).addEventListener("click", now(startTraining));
window.addEventListener("resize", drawScale);
document.addEventListener("click", (event) => {
  if (event.target instanceof HTMLButtonElement) event.target.blur(); // so that Enter confirms a patch
});

state
  .open(null)
  .then(() => get("/api/train"))
  .then(showTraining)
  .then(() => get("/api/summary"))
  .then(showAgreement)
  .catch((error) => state.failed(error.message));
