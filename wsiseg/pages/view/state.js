/** What is shown and how, and the same as the part of an address behind #, so that a link restores the view. */

/** @import { CaseFacts, Heat, HeatKind, MapFacts, Mode, TissueClass } from "./types.js" */
/** @import { Style } from "./paint.js" */

import { fromHex, toHex } from "./colors.js";

const MODES = /** @type {Mode[]} */ (["single", "swipe", "side"]);
const KINDS = /** @type {HeatKind[]} */ (["probability", "uncertainty", "shut", "gate"]);

export class State {
  /** @param {CaseFacts[]} cases at least one */
  constructor(cases) {
    this.cases = cases;
    this.case = cases[0];
    this.first = cases[0].maps[0];
    /** @type {MapFacts | null} */
    this.second = cases[0].maps[1] ?? null;
    /** @type {Mode} */
    this.mode = "single";
    this.swipe = 0.5;
    this.opacity = 0.45;
    this.isHidden = false;
    /** @type {Style} */
    this.style = { classes: new Map(), outline: false, heat: null, threshold: 0, hatch: false, unread: true };
    for (const { classes } of cases.flatMap(({ maps }) => maps)) {
      for (const { name, color } of classes) {
        if (!this.style.classes.has(name)) this.style.classes.set(name, { shown: true, color, strength: 1 });
      }
    }
    this.style.hatch = this.maps().some(({ unread_mm2, records }) => unread_mm2 > 0 && !records.unread);
    /** @type {{ x: number, y: number, scale: number } | null} where the view is to begin */
    this.start = null;
  }

  /**
   * Another slide, its first maps.
   *
   * @param {CaseFacts} shown
   */
  show(shown) {
    this.case = shown;
    this.first = shown.maps[0];
    this.second = shown.maps[1] ?? null;
    if (this.second === null) this.mode = "single";
  }

  /** The maps that are to be seen. */
  maps() {
    return this.mode === "single" || this.second === null ? [this.first] : [this.first, this.second];
  }

  /** Classes of all maps that are to be seen, by name, in the order of the first. */
  classes() {
    /** @type {Map<string, TissueClass>} */
    const found = new Map();
    for (const one of this.maps().flatMap(({ classes }) => classes)) {
      if (!found.has(one.name)) found.set(one.name, one);
    }
    return [...found.values()];
  }

  /** @param {string} name of a class */
  styleOf(name) {
    const own = this.style.classes.get(name);
    if (own === undefined) throw new Error(`no map has the class ${name}`);
    return own;
  }

  /** Whether a class is the only one that is shown. @param {string} name */
  isAlone(name) {
    return this.classes().every((one) => this.styleOf(one.name).shown === (one.name === name));
  }

  /** Shows one class alone, or all again. @param {string} name */
  solo(name) {
    const all = this.isAlone(name);
    for (const one of this.classes()) this.styleOf(one.name).shown = all || one.name === name;
  }

  /** The class that is shown alone, "" where several are. */
  alone() {
    const shown = this.classes().filter(({ name }) => this.styleOf(name).shown);
    return shown.length === 1 && this.classes().length > 1 ? shown[0].name : "";
  }

  /** Shows what the gate shut: for the class that is shown alone, else where it left no more than one; or no longer. */
  toggleGate() {
    this.style.heat = this.style.heat?.kind === "gate" ? null : { kind: "gate", name: this.alone() };
  }

  /**
   * @param {{ x: number, y: number, scale: number } | null} view the middle in level-0 pixels, screen pixels for each
   */
  toHash(view) {
    const values = new URLSearchParams({ slide: this.case.id, map: this.first.id });
    if (this.second !== null) values.set("second", this.second.id);
    if (this.mode !== "single") values.set("mode", this.mode);
    if (this.mode === "swipe") values.set("swipe", this.swipe.toFixed(3));
    if (view !== null) {
      values.set("at", [view.x.toFixed(1), view.y.toFixed(1), view.scale.toPrecision(5)].join(","));
    }
    values.set("opacity", String(this.opacity));
    if (this.style.outline) values.set("outline", "1");
    if (this.style.hatch) values.set("hatch", "1");
    if (!this.style.unread) values.set("unread", "0");
    const { heat } = this.style;
    if (heat !== null) {
      values.set("heat", heat.kind);
      values.set("of", heat.name);
      values.set("from", String(this.style.threshold));
    }
    for (const { name, color } of this.classes()) {
      const own = this.styleOf(name);
      if (!own.shown) values.append("off", name);
      if (own.strength < 1) values.append("strength", `${own.strength.toFixed(2)}${name}`);
      if (toHex(own.color) !== toHex(color)) values.append("color", `${toHex(own.color).slice(1)}${name}`);
    }
    return `#${values}`;
  }

  /**
   * Takes over what a link says; what it names and is not here is left as it is.
   *
   * @param {string} hash
   */
  fromHash(hash) {
    const values = new URLSearchParams(hash.replace(/^#/, ""));
    const found = this.cases.find(({ id }) => id === values.get("slide"));
    if (found === undefined) return;
    this.show(found);
    this.first = found.maps.find(({ id }) => id === values.get("map")) ?? this.first;
    this.second = found.maps.find(({ id }) => id === values.get("second")) ?? this.second;
    const mode = MODES.find((one) => one === values.get("mode"));
    if (mode !== undefined && this.second !== null) this.mode = mode;
    this.swipe = numberIn(values.get("swipe"), 0, 1, this.swipe);
    this.opacity = numberIn(values.get("opacity"), 0, 1, this.opacity);
    this.style.outline = values.has("outline");
    this.style.hatch = values.has("hatch");
    this.style.unread = values.get("unread") !== "0";
    this.style.heat = this.heatFrom(values);
    this.style.threshold = numberIn(values.get("from"), 0, 1, 0);
    const off = new Set(values.getAll("off"));
    for (const [name, own] of this.style.classes) own.shown = !off.has(name);
    for (const own of this.style.classes.values()) own.strength = 1;
    for (const text of values.getAll("strength")) {
      const own = this.style.classes.get(text.slice(4));
      if (own !== undefined) own.strength = numberIn(text.slice(0, 4), 0, 1, 1);
    }
    for (const text of values.getAll("color")) {
      const own = this.style.classes.get(text.slice(6));
      if (own !== undefined && /^[0-9a-f]{6}/.test(text)) own.color = fromHex(`#${text.slice(0, 6)}`);
    }
    const at = (values.get("at") ?? "").split(",").map(Number);
    if (at.length === 3 && at.every(Number.isFinite) && at[2] > 0) this.start = { x: at[0], y: at[1], scale: at[2] };
  }

  /** @param {URLSearchParams} values @returns {Heat | null} */
  heatFrom(values) {
    const kind = KINDS.find((one) => one === values.get("heat"));
    const name = values.get("of") ?? "";
    const { records, probabilities, interpolated_from_um } = this.first;
    if (kind === undefined || !(kind === "gate" ? records.gate : probabilities)) return null;
    if (kind === "shut" && interpolated_from_um !== null) return null; // what is interpolated is not 0 where a gate shut it
    return kind === "uncertainty" || (kind === "gate" && name === "") || this.style.classes.has(name) ? { kind, name } : null;
  }
}

/**
 * @param {string | null} text
 * @param {number} least
 * @param {number} most
 * @param {number} otherwise
 */
function numberIn(text, least, most, otherwise) {
  const value = text === null || text === "" ? Number.NaN : Number(text);
  return value >= least && value <= most ? value : otherwise;
}
