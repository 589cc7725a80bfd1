/** Values of a tile -> pixels: classes in their colours, their outlines, heat maps, hatching. */

/** @import { Color, Heat, TissueClass } from "./types.js" */
/** @import { Tile } from "./tiles.js" */

import { heatColor, packed } from "./colors.js";

export const WHITE = 255;
const HATCH_PX = 8;
const HATCH = packed([120, 60, 160], 190);
const UNREAD = packed([20, 20, 20]);
const UNREAD_GROUND = packed([255, 214, 0]);
export const SHUT = /** @type {Color} */ ([230, 70, 30]);
export const SHUT_IN_PART = /** @type {Color} */ ([245, 200, 110]);

/**
 * @typedef {object} Style how a map is drawn
 * @property {Map<string, { shown: boolean, color: Color, strength: number }>} classes by name;
 *   strength is a class's own opacity, 0 to 1, beside that of the whole map
 * @property {boolean} outline
 * @property {Heat | null} heat
 * @property {number} threshold of heat maps, 0 to 1
 * @property {boolean} hatch whether what has no class is hatched
 * @property {boolean} unread whether what could not be read is hatched, in a way of its own
 */

/**
 * The colour of each value of a class map, 0 where nothing is drawn.
 *
 * @param {TissueClass[]} classes
 * @param {Style} style
 */
export function classTable(classes, style) {
  const table = new Uint32Array(256);
  for (const { index, name } of classes) {
    const own = style.classes.get(name);
    if (own?.shown) table[index] = packed(own.color, Math.round(255 * own.strength));
  }
  return table;
}

/**
 * The colour of each value of a heat map, 0 below the threshold.
 *
 * @param {Style} style
 */
export function heatTable(style) {
  const table = new Uint32Array(256);
  if (style.heat?.kind === "shut") {
    table[0] = packed(SHUT);
    return table;
  }
  if (style.heat?.kind === "gate") {
    table[2] = packed(SHUT_IN_PART); // values as the server's tiles have them
    table[3] = packed(SHUT);
    return table;
  }
  for (let value = 0; value < 256; value++) {
    if (value / 255 >= style.threshold) table[value] = packed(heatColor(value / 255));
  }
  return table;
}

/**
 * Draws a tile.
 *
 * @param {Tile} classes
 * @param {Tile | undefined} values of the heat map, where one is shown
 * @param {Tile | undefined} unread 1 where the slide could not be read
 * @param {Uint32Array} table
 * @param {number} count of classes
 * @param {Style} style
 * @param {number} thickness of outlines, in pixels of the tile
 */
export function painted(classes, values, unread, table, count, style, thickness) {
  const { width, height } = classes;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  if (values !== undefined) {
    for (let i = 0; i < pixels.length; i++) {
      const value = classes.values[i];
      if (value > 0 && value <= count) pixels[i] = table[values.values[i]];
    }
  } else if (style.outline) {
    outline(classes, table, pixels, thickness);
  } else {
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[classes.values[i]];
  }
  if (style.hatch) hatch(classes, pixels);
  if (unread !== undefined) hatchUnread(unread, pixels);
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}

/**
 * Pixels of a class that have another one near.
 *
 * @param {Tile} tile
 * @param {Uint32Array} table
 * @param {Uint32Array} pixels
 * @param {number} thickness how near, in pixels
 */
function outline({ width, height, values }, table, pixels, thickness) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const value = values[i];
      const color = table[value];
      if (color === 0) continue;
      for (let far = 1; far <= thickness; far++) {
        if (
          (x >= far && values[i - far] !== value) ||
          (x + far < width && values[i + far] !== value) ||
          (y >= far && values[i - far * width] !== value) ||
          (y + far < height && values[i + far * width] !== value)
        ) {
          pixels[i] = color;
          break;
        }
      }
    }
  }
}

/**
 * @param {Tile} tile
 * @param {Uint32Array} pixels
 */
function hatch({ width, height, values }, pixels) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] === 0 && (x + y) % HATCH_PX < 2) pixels[i] = HATCH;
    }
  }
}

/**
 * The other way round than what has no class, and on a ground: nobody shall take it for glass.
 *
 * @param {Tile} tile
 * @param {Uint32Array} pixels
 */
function hatchUnread({ width, height, values }, pixels) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (values[i] !== 0) pixels[i] = (x - y + height) % HATCH_PX < 3 ? UNREAD : UNREAD_GROUND;
    }
  }
}
