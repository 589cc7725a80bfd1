/** What changes as one looks around: the scale bar, class and probabilities under the pointer, areas in view. */

/** @import { MapFacts, Place } from "./types.js" */
/** @import { State } from "./state.js" */
/** @import { Stage } from "./stage.js" */
/** @import { FieldAreas } from "./panel.js" */
/** @import { Pane } from "./pane.js" */

import { byId, element, isolated } from "../common/dom.js";
import { get } from "../common/api.js";
import { css } from "./drawing.js";
import { WHITE } from "./paint.js";
import { percent, roundLabel, roundLength } from "./units.js";

const BAR_PX = 150;

/**
 * @param {State} state
 * @param {Stage} stage
 */
export function showScale(state, stage) {
  const view = stage.view();
  if (view === null) return;
  const mpp = state.case.mpp[0] / view.scale;
  const um = roundLength(BAR_PX * mpp);
  byId("scale-line", HTMLDivElement).style.width = `${um / mpp}px`;
  byId("scale-text", HTMLSpanElement).textContent = roundLabel(um);
  const shown = 10 / mpp;
  byId("scale", HTMLDivElement).title = `${shown.toPrecision(2)}×`;
}

/** Asks for the newest only: what came too late is dropped. */
class Latest {
  constructor() {
    this.control = new AbortController();
  }

  /**
   * @param {string[]} paths
   * @returns {Promise<any[] | null>} null where a newer question was asked meanwhile, or there is no answer
   */
  async ask(paths) {
    this.control.abort();
    const { signal } = (this.control = new AbortController());
    try {
      return await Promise.all(paths.map((path) => get(path, signal)));
    } catch (error) {
      if (signal.aborted) return null;
      throw error;
    }
  }
}

export class Pointer {
  /** @param {State} state @param {Stage} stage */
  constructor(state, stage) {
    this.state = state;
    this.stage = stage;
    this.root = byId("pointer", HTMLSpanElement);
    this.latest = new Latest();
    /** @type {{ map: MapFacts, place: Place } | null} */
    this.next = null;
    this.isAsking = false;
  }

  /**
   * The pointer is over a place of a pane.
   *
   * @param {Pane} pane
   * @param {number} x CSS pixels
   * @param {Place} place
   */
  over(pane, x, place) {
    const map = this.stage.mapAt(pane, x);
    if (map === undefined) return;
    this.next = { map, place };
    if (!this.isAsking) void this.ask();
  }

  leave() {
    this.next = null;
    this.latest.control.abort();
    this.root.replaceChildren();
  }

  /** One question at a time, then the newest place. */
  async ask() {
    this.isAsking = true;
    while (this.next !== null) {
      const { map, place } = this.next;
      this.next = null;
      try {
        const answers = await this.latest.ask([`/m/${map.id}/at?x=${place.x}&y=${place.y}`]);
        if (answers !== null) this.show(map, place, answers[0]);
      } catch (error) {
        this.root.replaceChildren(element("span", { class: "error" }, String(error instanceof Error ? error.message : error)));
      }
    }
    this.isAsking = false;
  }

  /**
   * @param {MapFacts} map
   * @param {Place} place
   * @param {{ class: number, probabilities?: number[] } | null} found
   */
  show(map, place, found) {
    const [mppX, mppY] = this.state.case.mpp;
    const where = `${((place.x * mppX) / 1000).toFixed(3)}, ${((place.y * mppY) / 1000).toFixed(3)} mm`;
    const parts = [element("span", { class: "quiet" }, where)];
    if (this.state.maps().length > 1) parts.push(element("span", {}, map === this.state.first ? "A" : "B"));
    if (found === null) parts.push(element("span", { class: "quiet" }, "outside the map"));
    else parts.push(...this.classParts(map, found));
    this.root.replaceChildren(...parts);
  }

  /**
   * @param {MapFacts} map
   * @param {{ class: number, probabilities?: number[], unread?: boolean, shut?: boolean[] }} found
   */
  classParts(map, { class: value, probabilities, unread, shut }) {
    if (unread) return [element("strong", {}, "unread: the slide's file is damaged here")];
    if (value === 0) return [element("span", { class: "quiet" }, map.records.unread ? "no class: not tissue" : "no class: not tissue, or unread")];
    if (value === WHITE) return [element("span", { class: "quiet" }, "white: no class")];
    return map.classes.map(({ index, name }) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = css(this.state.styleOf(name).color);
      const probability = probabilities?.[index - 1];
      const about = map.interpolated_from_um === null ? "" : "≈ ";
      const share = probability === undefined ? isolated(name) : `${isolated(name)} ${about}${percent(probability)}`;
      const isThis = index === value;
      const text = shut?.[index - 1] && !isThis ? `${isolated(name)}: gate shut` : share;
      return element("span", { class: isThis ? "" : "quiet", hidden: probability === undefined && !isThis }, swatch, isThis ? element("strong", {}, text) : text);
    });
  }
}

export class FieldReader {
  /**
   * @param {State} state
   * @param {Stage} stage
   * @param {(fields: Map<string, FieldAreas>) => void} show
   */
  constructor(state, stage, show) {
    this.state = state;
    this.stage = stage;
    this.show = show;
    this.latest = new Latest();
    this.timer = 0;
  }

  /** Counts what is in view, once it rests. */
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.read(), 250);
  }

  async read() {
    const field = this.stage.field();
    if (field === null) return;
    const maps = this.state.maps();
    const query = `x=${field.x}&y=${field.y}&w=${field.width}&h=${field.height}`;
    try {
      const answers = await this.latest.ask(maps.map(({ id }) => `/m/${id}/areas?${query}`));
      if (answers !== null) this.show(new Map(maps.map(({ id }, index) => [id, answers[index]])));
    } catch {
      this.show(new Map()); // the message of what else failed says why
    }
  }
}
