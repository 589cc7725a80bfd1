/**
 * Reads the samples of a PNG as they are.
 *
 * A canvas would do as well, were its pixels exact: colour management, premultiplied alpha and what browsers do against
 * fingerprints change them, and one off is another class.
 */

const SIGNATURE_BYTES = 8;

/**
 * @param {ArrayBuffer} buffer a PNG of 8 bits and one sample a pixel (grey or palette), not interlaced
 * @returns {Promise<{ width: number, height: number, values: Uint8Array }>}
 */
export async function readPng(buffer) {
  const view = new DataView(buffer);
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const packed = [];
  let width = 0;
  let height = 0;
  for (let place = SIGNATURE_BYTES; place < buffer.byteLength; ) {
    const length = view.getUint32(place);
    const kind = String.fromCharCode(...new Uint8Array(buffer, place + 4, 4));
    if (kind === "IHDR") {
      [width, height] = [view.getUint32(place + 8), view.getUint32(place + 12)];
      const [bits, color, , , interlaced] = new Uint8Array(buffer, place + 16, 5);
      if (bits !== 8 || (color !== 0 && color !== 3) || interlaced) throw new Error("a tile of another kind came");
    } else if (kind === "IDAT") {
      packed.push(new Uint8Array(buffer, place + 8, length));
    }
    place += 12 + length;
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const lines = new Uint8Array(await new Response(stream).arrayBuffer());
  return { width, height, values: unfiltered(lines, width, height) };
}

/**
 * Undoes PNG's filters, of one byte a pixel.
 *
 * @param {Uint8Array} lines each a filter's number and `width` bytes
 * @param {number} width
 * @param {number} height
 */
function unfiltered(lines, width, height) {
  const values = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const filter = lines[y * (width + 1)];
    const from = y * (width + 1) + 1;
    const row = y * width;
    if (filter === 0) {
      values.set(lines.subarray(from, from + width), row);
      continue;
    }
    for (let x = 0; x < width; x++) {
      const left = x ? values[row + x - 1] : 0;
      const above = y ? values[row + x - width] : 0;
      const corner = x && y ? values[row + x - width - 1] : 0;
      values[row + x] = lines[from + x] + predicted(filter, left, above, corner);
    }
  }
  return values;
}

/**
 * @param {number} filter
 * @param {number} left
 * @param {number} above
 * @param {number} corner
 */
function predicted(filter, left, above, corner) {
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return (left + above) >> 1;
  const guess = left + above - corner;
  const [toLeft, toAbove, toCorner] = [guess - left, guess - above, guess - corner].map(Math.abs);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}
