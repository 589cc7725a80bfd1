/** The panel at the right: classes and their areas, how maps are drawn, which are compared, and what is to be known. */

/** @import { HeatKind, Mode, TissueClass } from "./types.js" */
/** @import { State } from "./state.js" */

import { element, isolated } from "../common/dom.js";
import { fromHex, heatColor, toHex } from "./colors.js";
import { css } from "./drawing.js";
import { SHUT, SHUT_IN_PART } from "./paint.js";
import { area, percent } from "./units.js";

/** @typedef {{ classes: number[], white: number, none: number, mpp: number }} FieldAreas in mm² */

/**
 * @typedef {object} Actions
 * @property {() => void} repaint colours are changed just now, and the panel shall stay as it is
 * @property {() => void} restyled colours, classes or heat map were changed
 * @property {() => void} rearranged other maps, or another way to compare
 */

/** @type {Array<[Mode, string]>} */
const MODES = [
  ["single", "one map"],
  ["swipe", "swipe"],
  ["side", "side by side"],
];

export class Panel {
  /**
   * @param {HTMLElement} root
   * @param {State} state
   * @param {Actions} actions
   */
  constructor(root, state, actions) {
    this.root = root;
    this.state = state;
    this.actions = actions;
    /** @type {Map<string, FieldAreas>} by map */
    this.fields = new Map();
  }

  /** Shows the state as it is. */
  draw() {
    const sections = [this.classes(), this.drawing(), this.heat(), this.compare(), this.notes()];
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.name : undefined;
    this.root.replaceChildren(...sections.filter((one) => one !== null));
    if (focused !== undefined) {
      for (const one of this.root.querySelectorAll("[data-name]")) {
        if (one instanceof HTMLElement && one.dataset.name === focused) one.focus();
      }
    }
  }

  /** Areas of the field in view have come. @param {Map<string, FieldAreas>} fields */
  showFields(fields) {
    this.fields = fields;
    this.root.querySelector("section")?.replaceWith(this.classes());
  }

  classes() {
    const maps = this.state.maps();
    const heads = maps.length > 1 ? ["A in view", "B in view"] : ["map", "in view"];
    const rows = this.state.classes().map((one, index) => this.classRow(one, index));
    const rest = [this.restRow("white", ({ white_mm2 }) => white_mm2, ({ white }) => white)];
    return element(
      "section",
      {},
      element("h2", {}, "Classes, mm²"),
      element(
        "table",
        { class: "classes" },
        element("tr", {}, element("th"), element("th"), element("th"), ...heads.map((text) => element("th", {}, text))),
        ...rows,
        ...rest,
      ),
      this.hatchRow("hatch", "hatch what has no class" + (this.state.first.records.unread ? ": not tissue" : ": not tissue, or unread"), "u"),
      this.state.maps().some(({ holes }) => holes) ? this.hatchRow("unread", "hatch what could not be read", "d") : null,
      this.fieldNote(),
    );
  }

  /**
   * @param {TissueClass} one
   * @param {number} index place in the list, whose key it has
   */
  classRow(one, index) {
    const { state } = this;
    const own = state.styleOf(one.name);
    const numbers = this.numbers((map, field) => {
      const place = map.classes.findIndex(({ name }) => name === one.name);
      return [map.areas[place], field?.classes[place]];
    });
    const changed = (/** @type {() => void} */ change) => () => {
      change();
      this.actions.restyled();
    };
    const shown = element("input", {
      type: "checkbox",
      checked: own.shown,
      title: `show ${one.name}`,
      "aria-label": `show ${one.name}`,
      "data-name": `show ${one.name}`,
    });
    shown.addEventListener("change", changed(() => (own.shown = shown.checked)));
    const color = element("input", {
      type: "color",
      value: toHex(own.color),
      title: "change the colour",
      "aria-label": `colour of ${one.name}`,
    });
    color.addEventListener("change", changed(() => (own.color = fromHex(color.value))));
    const strength = element("input", {
      type: "range",
      class: "strength",
      min: "0",
      max: "1",
      step: "0.05",
      value: String(own.strength),
      title: `opacity of ${one.name}`,
      "aria-label": `opacity of ${one.name}`,
      "data-name": `opacity of ${one.name}`,
    });
    strength.addEventListener("change", changed(() => (own.strength = Number(strength.value))));
    const title = state.isAlone(one.name) ? "show all classes" : `show ${one.name} alone`;
    const solo = element("button", { type: "button", title, dir: "auto", onclick: changed(() => state.solo(one.name)) }, one.name);
    return element(
      "tr",
      { class: own.shown ? "" : "off" },
      element("td", {}, shown, color),
      element("td", { class: "name", title: one.name }, solo, strength),
      element("td", {}, index < 9 ? element("kbd", {}, String(index + 1)) : null),
      ...numbers,
    );
  }

  /**
   * Cells of a row: of one map its area and that in view; of two maps those in view, the others when one points there.
   *
   * @param {(map: import("./types.js").MapFacts, field: FieldAreas | undefined) => Array<number | undefined>} values
   */
  numbers(values) {
    const text = (/** @type {number | undefined} */ value) => (value === undefined ? "–" : area(value));
    const maps = this.state.maps();
    return maps.flatMap((map) => {
      const [whole, inView] = values(map, this.fields.get(map.id)).map(text);
      const cell = element("td", { class: "number", title: `${whole} mm² in all of ${map.name}` }, inView);
      return maps.length > 1 ? [cell] : [element("td", { class: "number" }, whole), cell];
    });
  }

  /**
   * @param {string} name
   * @param {(map: import("./types.js").MapFacts) => number} ofMap
   * @param {(field: FieldAreas) => number} ofField
   */
  restRow(name, ofMap, ofField) {
    const numbers = this.numbers((map, field) => [ofMap(map), field === undefined ? undefined : ofField(field)]);
    return element(
      "tr",
      { class: "rest" },
      element("td"),
      element("td", { class: "name", title: "tissue that is white: glass, lumina, fat; no class" }, name),
      element("td"),
      ...numbers,
    );
  }

  /**
   * @param {"hatch" | "unread"} what
   * @param {string} text
   * @param {string} key
   */
  hatchRow(what, text, key) {
    const { style } = this.state;
    const box = element("input", { type: "checkbox", checked: style[what], id: what, "data-name": what });
    box.addEventListener("change", () => {
      style[what] = box.checked;
      this.actions.restyled();
    });
    return element("div", { class: "row" }, box, element("label", { htmlFor: what }, text), element("kbd", {}, key));
  }

  fieldNote() {
    const [field] = this.fields.values();
    if (field === undefined) return null;
    const total = field.classes.reduce((sum, value) => sum + value, 0);
    const shares = this.state.maps()[0].classes.map(({ name }, index) => `${isolated(name)} ${percent(field.classes[index] / total)}`);
    return element("p", { class: "note" }, total > 0 ? `in view: ${shares.join(", ")}; counted at ${field.mpp.toPrecision(3)} µm/px` : "in view: no class");
  }

  drawing() {
    const { state } = this;
    const value = element("span", { class: "value" }, `${Math.round(100 * state.opacity)} %`);
    const opacity = element("input", { type: "range", min: "0", max: "1", step: "0.05", value: String(state.opacity), "aria-label": "opacity", "data-name": "opacity" });
    opacity.addEventListener("input", () => {
      state.opacity = Number(opacity.value);
      state.isHidden = false;
      value.textContent = `${Math.round(100 * state.opacity)} %`;
      this.actions.repaint();
    });
    const outline = this.toggle("Outlines", state.style.outline, () => {
      state.style.outline = !state.style.outline;
      this.actions.restyled();
    });
    const hidden = this.toggle("Hide map", state.isHidden, () => {
      state.isHidden = !state.isHidden;
      this.actions.restyled();
    });
    return element(
      "section",
      {},
      element("h2", {}, "Map"),
      element("div", { class: "row" }, "opacity", opacity, value),
      element("div", { class: "row" }, outline, element("kbd", {}, "b"), hidden, element("kbd", {}, "o")),
    );
  }

  /**
   * @param {string} text
   * @param {boolean} isOn
   * @param {() => void} pressed
   */
  toggle(text, isOn, pressed) {
    return element("button", { type: "button", "aria-pressed": String(isOn), "data-name": text, onclick: pressed }, text);
  }

  heat() {
    const { state } = this;
    const { records, probabilities, interpolated_from_um } = state.first;
    if (!probabilities && !records.gate) {
      return element("section", {}, element("h2", {}, "Heat map"), element("p", { class: "note" }, "This map was written without probabilities."));
    }
    const { heat } = state.style;
    /** @type {Array<[string, HeatKind | "", string]>} */
    const choices = [["none", "", ""]];
    const names = state.first.classes.map(({ name }) => name);
    if (probabilities) {
      choices.push(["uncertainty", "uncertainty", ""]);
      for (const name of names) choices.push([`probability of ${isolated(name)}`, "probability", name]);
    }
    if (records.gate) {
      choices.push(["gate left one class at most", "gate", ""]);
      for (const name of names) choices.push([`gate shut for ${isolated(name)}`, "gate", name]);
    } else if (probabilities && interpolated_from_um === null) {
      for (const name of names) choices.push([`${isolated(name)} shut out: probability 0`, "shut", name]);
    }
    const select = element("select", { "aria-label": "heat map", "data-name": "heat" });
    for (const [index, [text, kind, name]] of choices.entries()) {
      const isChosen = heat === null ? kind === "" : heat.kind === kind && heat.name === name;
      select.append(element("option", { value: String(index), selected: isChosen }, text));
    }
    select.addEventListener("change", () => {
      const [, kind, name] = choices[Number(select.value)];
      state.style.heat = kind === "" ? null : { kind, name };
      this.actions.restyled();
    });
    const parts = heat === null || heat.kind === "shut" ? [] : heat.kind === "gate" ? [this.gateKey()] : this.threshold();
    const gate = this.toggle("Gate shut", heat?.kind === "gate", () => {
      state.toggleGate();
      this.actions.restyled();
    });
    return element(
      "section",
      {},
      element("h2", {}, "Heat map"),
      element("div", { class: "row" }, select, element("kbd", {}, "p")),
      records.gate ? element("div", { class: "row" }, gate, element("kbd", {}, "k")) : null,
      ...parts,
      probabilities && interpolated_from_um !== null
        ? element("p", { class: "note" }, `The map keeps probabilities at ${interpolated_from_um.toPrecision(2)} µm per pixel; finer ones are interpolated.`)
        : null,
    );
  }

  /** What the colours of the gate's places mean. */
  gateKey() {
    const line = (/** @type {import("./types.js").Color} */ color, /** @type {string} */ text) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = css(color);
      return element("div", { class: "row" }, swatch, text);
    };
    const name = this.state.style.heat?.name;
    return element(
      "div",
      { class: "note" },
      line(SHUT, name ? `shut: ${isolated(name)} cannot be here` : "one class left: the gate alone decided"),
      line(SHUT_IN_PART, "in some of the patches over a place, not in all"),
    );
  }

  /** @returns {HTMLElement[]} */
  threshold() {
    const { style } = this.state;
    const value = element("span", { class: "value" }, style.threshold.toFixed(2));
    const range = element("input", { type: "range", min: "0", max: "1", step: "0.01", value: String(style.threshold), "aria-label": "threshold", "data-name": "threshold" });
    range.addEventListener("input", () => {
      style.threshold = Number(range.value);
      value.textContent = style.threshold.toFixed(2);
      this.actions.repaint();
    });
    range.addEventListener("change", () => this.actions.restyled());
    const bar = element("canvas", { class: "heat-bar", width: 256, height: 1 });
    const context = bar.getContext("2d");
    for (let x = 0; x < 256 && context !== null; x++) {
      context.fillStyle = x / 255 < style.threshold ? "#444" : `rgb(${heatColor(x / 255).join(" ")})`;
      context.fillRect(x, 0, 1, 1);
    }
    return [
      element("div", { class: "row" }, "from", range, value),
      bar,
      element("div", { class: "ends" }, element("span", {}, "0"), element("span", {}, "0.5"), element("span", {}, "1")),
    ];
  }

  compare() {
    const { state } = this;
    if (state.second === null) return null;
    const buttons = MODES.map(([mode, text]) =>
      this.toggle(text, state.mode === mode, () => {
        state.mode = mode;
        this.actions.rearranged();
      }),
    );
    const choose = (/** @type {string} */ label, /** @type {string} */ id, /** @type {(id: string) => void} */ chosen) => {
      const select = element("select", { "aria-label": `map ${label}`, "data-name": `map ${label}` });
      for (const map of state.case.maps) {
        select.append(element("option", { value: map.id, selected: map.id === id }, `${isolated(map.name)} (${isolated(map.model)})`));
      }
      select.addEventListener("change", () => {
        chosen(select.value);
        this.actions.rearranged();
      });
      return element("div", { class: "row" }, label, select);
    };
    const byId = (/** @type {string} */ id) => state.case.maps.find((map) => map.id === id) ?? state.first;
    return element(
      "section",
      {},
      element("h2", {}, "Compare"),
      choose("A", state.first.id, (id) => (state.first = byId(id))),
      choose("B", state.second.id, (id) => (state.second = byId(id))),
      element("div", { class: "row" }, ...buttons),
      element("p", { class: "note" }, element("kbd", {}, "v"), " changes the way, ", element("kbd", {}, "x"), " swaps A and B"),
    );
  }

  notes() {
    const { case: shown, first } = this.state;
    const lines = [];
    if (!shown.slide) lines.push("The slide is not at hand: the map is shown alone. Give it by --slide.");
    if (first.unread_mm2 > 0) {
      lines.push(`${area(first.unread_mm2)} mm² of tissue could not be read, since the slide's file is damaged there.${first.records.unread ? "" : " This map does not record where."}`);
    }
    if (first.gate !== null) {
      const shut = Object.entries(first.gate.shut).map(([name, count]) => `${isolated(name)} in ${count}`);
      lines.push(
        `The gate shut classes in ${first.gate.gated} of ${first.gate.read} patches (${shut.join(", ")}). ` +
          (first.records.gate
            ? "Key k shows where; of a class that is shown alone, where it was shut."
            : "This map does not record where; a class that was shut out has the probability 0 there (heat map)."),
      );
    }
    lines.push(...shown.notes, ...first.notes);
    if (!lines.length) return null;
    return element("section", {}, element("h2", {}, "Notes"), ...lines.map((line) => element("p", { class: "note" }, line)));
  }
}
