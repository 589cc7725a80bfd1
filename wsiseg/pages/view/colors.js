/** Colours: tables from values to what is drawn. */

/** @import { Color } from "./types.js" */

/** Dark to light through green, legible on pink and purple tissue and for colour-blind readers. */
const RAMP = /** @type {Color[]} */ ([
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
]);

/**
 * The colour of a value from 0 to 1.
 *
 * @param {number} value
 * @returns {Color}
 */
export function heatColor(value) {
  const place = Math.min(1, Math.max(0, value)) * (RAMP.length - 1);
  const below = Math.min(RAMP.length - 2, Math.floor(place));
  const share = place - below;
  const mix = (/** @type {number} */ i) => Math.round(RAMP[below][i] * (1 - share) + RAMP[below + 1][i] * share);
  return [mix(0), mix(1), mix(2)];
}

/** @param {Color} color @returns {string} */
export function toHex(color) {
  return `#${color.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** @param {string} hex six hexadecimal digits behind a # @returns {Color} */
export function fromHex(hex) {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

const IS_LITTLE = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/**
 * A pixel of `ImageData` as one number.
 *
 * @param {Color} color
 * @param {number} [alpha]
 */
export function packed([red, green, blue], alpha = 255) {
  return (IS_LITTLE ? (alpha << 24) | (blue << 16) | (green << 8) | red : (red << 24) | (green << 16) | (blue << 8) | alpha) >>> 0;
}
