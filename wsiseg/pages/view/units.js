/** Lengths and areas as people read them. */

/** @param {number} um */
export function length(um) {
  if (um >= 10_000) return `${(um / 1000).toFixed(1)} mm`;
  if (um >= 1000) return `${(um / 1000).toFixed(2)} mm`;
  return um >= 100 ? `${um.toFixed(0)} µm` : `${um.toFixed(1)} µm`;
}

/**
 * How far two places are from each other, in um.
 *
 * @param {[import("./types.js").Place, import("./types.js").Place]} ends level-0 pixels
 * @param {[number, number]} mpp
 */
export function distance([from, to], mpp) {
  return Math.hypot((to.x - from.x) * mpp[0], (to.y - from.y) * mpp[1]);
}

/** @param {number} mm2 */
export function area(mm2) {
  if (mm2 === 0) return "0";
  if (mm2 < 0.001) return "< 0.001";
  return mm2 >= 100 ? mm2.toFixed(0) : mm2 >= 10 ? mm2.toFixed(1) : mm2.toFixed(3);
}

/** @param {number} share 0 to 1 */
export function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.01 ? 2 : 1)} %`;
}

/**
 * The longest round length of at most so many um: 1, 2 or 5 and zeros.
 *
 * @param {number} most
 */
export function roundLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].map((digit) => digit * power).find((value) => value <= most) ?? power;
}

/** @param {number} um a round length */
export function roundLabel(um) {
  return um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
}
