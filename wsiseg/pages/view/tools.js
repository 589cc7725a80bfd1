/** What the pointer does besides moving the view: measure between two points, or draw around a region. */

/** @import { Place } from "./types.js" */
/** @import { Pane } from "./pane.js" */

/** @typedef {"move" | "measure" | "lasso"} Tool */

const LEAST_STEP_PX = 2;
const MOST_POINTS = 2000;
/** So that what is sent stays below the server's limit. */

export class Tools {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    /** @type {Tool} */
    this.tool = "move";
    /** @type {Place[]} none, one or two ends */
    this.ends = [];
    /** @type {Place | null} where the pointer is while the second end is sought */
    this.over = null;
    /** @type {Place[]} */
    this.lasso = [];
    this.isClosed = false;
  }

  /** Takes a tool, or lays it away. @param {Tool} tool */
  take(tool) {
    this.tool = this.tool === tool ? "move" : tool;
    this.ends = [];
    this.dropLasso();
  }

  /** Ends what is under way, then lays the tool away. */
  escape() {
    if (this.lasso.length) this.dropLasso();
    else if (this.ends.length) this.ends = [];
    else this.tool = "move";
    this.changed();
  }

  dropLasso() {
    this.lasso = [];
    this.isClosed = false;
    this.changed();
  }

  /** Both ends of a measure, the second under the pointer where it is not set. @returns {[Place, Place] | null} */
  measure() {
    const [from, to = this.over] = this.ends;
    return from && to ? [from, to] : null;
  }

  /** @param {Pane} pane */
  listen(pane) {
    const { viewer } = pane;
    viewer.addHandler("canvas-click", (event) => {
      if (this.tool !== "measure" || !event.quick) return;
      event.preventDefaultAction = true;
      const place = pane.placeAt(event.position);
      if (place === null) return;
      this.ends = this.ends.length === 1 ? [this.ends[0], place] : [place];
      this.over = null;
      this.changed();
    });
    viewer.addHandler("canvas-double-click", (event) => {
      if (this.tool === "measure") event.preventDefaultAction = true;
    });
    viewer.addHandler("canvas-drag", (event) => {
      if (this.tool !== "lasso") return;
      event.preventDefaultAction = true;
      if (this.isClosed || !this.lasso.length) {
        const { x, y } = event.position;
        this.isClosed = false;
        this.lasso = [];
        this.extend(pane, new OpenSeadragon.Point(x - event.delta.x, y - event.delta.y));
      }
      this.extend(pane, event.position);
    });
    viewer.addHandler("canvas-drag-end", (event) => {
      if (this.tool !== "lasso") return;
      event.preventDefaultAction = true;
      if (this.lasso.length < 3) this.dropLasso();
      else this.isClosed = true;
      this.changed();
    });
  }

  /**
   * @param {Pane} pane
   * @param {OpenSeadragon.Point} point
   */
  extend(pane, point) {
    const place = pane.placeAt(point);
    const frame = pane.frame();
    if (place === null || frame === null) return;
    const last = this.lasso.at(-1);
    const least = (LEAST_STEP_PX * frame.ratio) / frame.scale;
    if (last !== undefined && Math.hypot(place.x - last.x, place.y - last.y) < least) return;
    this.lasso.push(place);
    if (this.lasso.length > MOST_POINTS) this.lasso = this.lasso.filter((_, index) => index % 2 === 0);
    this.changed();
  }

  /** @param {Place | null} place */
  move(place) {
    if (this.tool !== "measure" || this.ends.length !== 1) return;
    this.over = place;
    this.changed();
  }
}

/**
 * The area that a line encloses, in mm².
 *
 * @param {Place[]} points level-0 pixels
 * @param {[number, number]} mpp
 */
export function enclosed(points, mpp) {
  let sum = 0;
  for (const [index, { x, y }] of points.entries()) {
    const next = points[(index + 1) % points.length];
    sum += x * next.y - next.x * y;
  }
  return (Math.abs(sum) / 2) * mpp[0] * mpp[1] * 1e-6;
}
