/** What stands beside the patches: how it goes, the classes, agreement, the scale, a training. */

import { byId, element } from "../common/dom.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {import("./state.js").Page} Page
 * @typedef {{name: string, pairs: number, agreement: number | null, kappa: number | null}} Kappa
 */

/** Lengths of the scale bar, in µm. */
const BARS = [10, 20, 25, 50, 100, 200, 500];

/** @param {number} value */
const percent = (value) => `${Math.round(100 * value)}`;

/** @param {Page} page @param {boolean} grouped */
export function drawStatus(page, grouped) {
  const { status } = page;
  byId("where", HTMLDivElement).textContent =
    `Round ${page.round}, ${grouped ? "group" : "page"} ${page.number + 1} of ${page.pages}`;
  const pace = status.per_minute === null ? "" : ` · ${Math.round(status.per_minute)} a minute`;
  byId("status", HTMLDivElement).textContent =
    `${status.done} labelled${pace} · ${page.open} of ${page.total} open in this round`;
  /** @type {[string, string | number][]} */
  const rows = [
    ["labelled", status.done],
    ["unsure", status.unsure],
    ["excluded", status.excluded],
    ["not confirmed", status.drafts],
  ];
  if (status.right !== null) {
    const interval = `${percent(status.right_low)}–${percent(status.right_high)}`;
    rows.push([
      "model right, random patches",
      `${percent(status.right)} % (${interval}), ${status.random_answers}`,
    ]);
  }
  byId("progress", HTMLTableElement).replaceChildren(
    ...rows.map(([name, value]) => element("tr", {}, element("th", {}, name), element("td", {}, String(value)))),
  );
  byId("hint", HTMLParagraphElement).textContent = status.hint;
}

/** Classes with the patches in which they are, and their share. @param {Page} page @param {(at: number) => void} toggle */
export function drawClasses(page, toggle) {
  const { status } = page;
  byId("classes", HTMLOListElement).replaceChildren(
    ...page.classes.map((one, at) => {
      const few = status.few.includes(one.name);
      const count = status.positives[one.name] ?? 0;
      const share = status.done === 0 ? 0 : count / status.done;
      const swatch = element("span", { class: "swatch" });
      const filled = element("span", { class: "share" });
      swatch.style.backgroundColor = filled.style.backgroundColor = one.color;
      filled.style.width = `${percent(share)}%`;
      const about = few ? "fewer than 20 patches: hardly learned" : "patches in which it is";
      return element(
        "li",
        { onclick: () => toggle(at), title: one.name },
        element("kbd", {}, at < 9 ? String(at + 1) : " "),
        swatch,
        element("span", { class: "name" }, one.name),
        element("span", { class: few ? "count few" : "count", title: about }, String(count)),
        element("span", { class: "percent", title: "of the labelled patches" }, `${percent(share)} %`),
        filled,
      );
    }),
  );
}

/** @param {Page} page */
export function drawScale(page) {
  const picture = byId("grid", HTMLDivElement).querySelector("img");
  if (picture === null) return;
  const side = Math.min(picture.clientWidth, picture.clientHeight);
  const microns = page.patch_px * page.mpp;
  const bar = BARS.find((value) => value >= microns / 4) ?? 500;
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
 */
export function showAgreement(summary) {
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
  const text = `${percent(one.agreement)} % of ${one.pairs}${kappa}`;
  return element("tr", {}, element("th", {}, `${one.name}, ${whom}`), element("td", {}, text));
}

/** @param {{phase: string, model: string, said: string}} training */
export function drawTraining({ phase, model, said }) {
  const text = {
    none: "",
    running: `${model} is being trained; labelling goes on. ${said}`,
    done: `${model} is trained. Start again with --model ${model} and it helps to choose.`,
    failed: `the training failed: ${said}`,
  }[phase];
  const place = byId("training", HTMLParagraphElement);
  place.textContent = text ?? "";
  place.dataset.phase = phase;
  byId("train", HTMLButtonElement).disabled = phase === "running";
}
