/** A map drawn over a slide, or over nothing: the tiles in view, coarser ones where finer are still to come. */

/** @import { MapFacts, Field } from "./types.js" */
/** @import { TileKey } from "./tiles.js" */
/** @import { Style } from "./paint.js" */
/** @import { Frame } from "./pane.js" */

import { classTable, heatTable, painted } from "./paint.js";
import { TileStore } from "./tiles.js";

const TILE_PX = 512;
const PAINTED = 160;
const OUTLINE_PX = 2;
/** Thickness of outlines on the screen, approximately. */

export class MapLayer {
  /**
   * @param {MapFacts} facts
   * @param {Style} style shared with whoever changes it; `restyle` says that it was
   * @param {() => void} arrived called when there is more to draw
   */
  constructor(facts, style, arrived) {
    this.facts = facts;
    this.style = style;
    this.arrived = arrived;
    this.classes = new TileStore(`/m/${facts.id}/classes`, arrived);
    /** @type {Map<string, TileStore>} */
    this.heats = new Map();
    /** @type {Map<string, OffscreenCanvas>} */
    this.painted = new Map();
    this.unread = facts.holes ? new TileStore(`/m/${facts.id}/unread`, arrived) : null;
    this.thickness = 1;
    this.restyle();
  }

  /** Draw anew what was drawn in another style. */
  restyle() {
    this.painted.clear();
    this.values = this.heatStore();
    const { facts, style } = this;
    this.table = this.values === null ? classTable(facts.classes, style) : heatTable(style);
  }

  /** The tiles of the heat map that is shown; null where none is, or this map has none. */
  heatStore() {
    const heat = this.style.heat;
    if (heat === null || !(heat.kind === "gate" ? this.facts.records.gate : this.facts.probabilities)) return null;
    const index = heat.name === "" ? 0 : this.facts.classes.find(({ name }) => name === heat.name)?.index;
    if (index === undefined) return null;
    const part = heat.kind === "uncertainty" ? "uncertainty" : `${heat.kind === "gate" ? "gate" : "probability"}/${index}`;
    let store = this.heats.get(part);
    if (store === undefined) {
      store = new TileStore(`/m/${this.facts.id}/${part}`, this.arrived);
      this.heats.set(part, store);
    }
    return store;
  }

  /**
   * The level whose pixels are nearest to those of the screen, not coarser than two of them.
   *
   * @param {number} scale screen pixels per level-0 pixel
   */
  levelFor(scale) {
    const level = Math.floor(Math.log2(1.4 / (scale * Math.max(...this.facts.step))));
    return Math.min(this.facts.levels - 1, Math.max(0, level));
  }

  /**
   * Draws what is in view.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {Frame} frame where the slide is on the canvas
   */
  draw(context, frame) {
    const level = this.levelFor(frame.scale);
    const thickness = Math.max(1, Math.round(OUTLINE_PX / (frame.scale * this.facts.step[0] * 2 ** level)));
    if (thickness !== this.thickness && this.style.outline) this.painted.clear();
    this.thickness = thickness;
    const keys = this.keysIn(frame.field, level);
    this.classes.want(keys);
    this.values?.want(keys);
    if (this.style.unread) this.unread?.want(keys);
    for (const key of keys) this.drawTile(context, frame, key);
  }

  /**
   * Tiles of a level that a field touches, the middle first.
   *
   * @param {Field} field
   * @param {number} level
   * @returns {TileKey[]}
   */
  keysIn(field, level) {
    const [sideX, sideY] = this.facts.step.map((step) => step * TILE_PX * 2 ** level);
    const columns = Math.ceil(Math.ceil(this.facts.width / 2 ** level) / TILE_PX);
    const rows = Math.ceil(Math.ceil(this.facts.height / 2 ** level) / TILE_PX);
    const keys = [];
    for (let y = Math.max(0, Math.floor(field.y / sideY)); y < rows && y * sideY < field.y + field.height; y++) {
      for (let x = Math.max(0, Math.floor(field.x / sideX)); x < columns && x * sideX < field.x + field.width; x++) {
        keys.push({ level, x, y });
      }
    }
    const [middleX, middleY] = [(field.x + field.width / 2) / sideX - 0.5, (field.y + field.height / 2) / sideY - 0.5];
    const far = (/** @type {TileKey} */ { x, y }) => (x - middleX) ** 2 + (y - middleY) ** 2;
    return keys.sort((a, b) => far(a) - far(b));
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Frame} frame
   * @param {TileKey} key
   */
  drawTile(context, frame, key) {
    for (let up = 0; key.level + up < this.facts.levels; up++) {
      const from = { level: key.level + up, x: key.x >> up, y: key.y >> up };
      const picture = this.paintedTile(from);
      if (picture === null) continue;
      const whole = this.onScreen(frame, key, this.sizeOf(key));
      const side = TILE_PX >> up; // of what is wanted, in pixels of the coarser tile
      const [left, top] = [(key.x - (from.x << up)) * side, (key.y - (from.y << up)) * side];
      const [width, height] = [Math.min(side, picture.width - left), Math.min(side, picture.height - top)];
      if (width <= 0 || height <= 0) return;
      context.imageSmoothingEnabled = whole.width < width;
      context.drawImage(picture, left, top, width, height, whole.x, whole.y, whole.width, whole.height);
      return;
    }
  }

  /** @param {TileKey} key @returns {[number, number]} width and height in pixels of its level */
  sizeOf({ level, x, y }) {
    const [width, height] = [this.facts.width, this.facts.height].map((side) => Math.ceil(side / 2 ** level));
    return [Math.min(TILE_PX, width - x * TILE_PX), Math.min(TILE_PX, height - y * TILE_PX)];
  }

  /**
   * Whole pixels of the canvas, so that tiles meet without a seam.
   *
   * @param {Frame} frame
   * @param {TileKey} key
   * @param {[number, number]} size
   */
  onScreen(frame, { level, x, y }, [width, height]) {
    const [stepX, stepY] = this.facts.step.map((step) => step * 2 ** level * frame.scale);
    const left = Math.round(frame.left + x * TILE_PX * stepX);
    const top = Math.round(frame.top + y * TILE_PX * stepY);
    return {
      x: left,
      y: top,
      width: Math.round(frame.left + (x * TILE_PX + width) * stepX) - left,
      height: Math.round(frame.top + (y * TILE_PX + height) * stepY) - top,
    };
  }

  /**
   * A tile in colours; null while its values are still to come.
   *
   * @param {TileKey} key
   */
  paintedTile(key) {
    const name = `${key.level}/${key.x}_${key.y}`;
    const known = this.painted.get(name);
    if (known !== undefined) return known;
    const classes = this.classes.get(key);
    const values = this.values?.get(key);
    const unread = this.style.unread ? this.unread : null;
    const holes = unread?.get(key);
    if (classes === undefined || (this.values !== null && values === undefined)) return null;
    if (unread !== null && holes === undefined && !unread.hasFailed(key)) return null;
    const table = /** @type {Uint32Array} */ (this.table);
    const made = painted(classes, values, holes, table, this.facts.classes.length, this.style, this.thickness);
    this.painted.set(name, made);
    for (const oldest of this.painted.keys()) {
      if (this.painted.size <= PAINTED) break;
      this.painted.delete(oldest);
    }
    return made;
  }
}
