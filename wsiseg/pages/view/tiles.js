/** Tiles of values, loaded as they are wanted; those that were used last are kept. */

import { reportFailure } from "../common/api.js";
import { readPng } from "./png.js";

/** @typedef {{ level: number, x: number, y: number }} TileKey */
/** @typedef {{ width: number, height: number, values: Uint8Array }} Tile */

const KEPT = 240;
const AT_ONCE = 6;

export class TileStore {
  /**
   * @param {string} address of the tiles, without the place
   * @param {() => void} arrived called when a tile has come
   */
  constructor(address, arrived) {
    this.address = address;
    this.arrived = arrived;
    /** @type {Map<string, Tile>} */
    this.kept = new Map();
    /** @type {Map<string, AbortController>} */
    this.loading = new Map();
    /** @type {Set<string>} */
    this.failed = new Set();
    /** @type {TileKey[]} */
    this.wanted = [];
  }

  /**
   * A tile, if it is here.
   *
   * @param {TileKey} key
   * @returns {Tile | undefined}
   */
  get(key) {
    const name = nameOf(key);
    const found = this.kept.get(name);
    if (found !== undefined) {
      this.kept.delete(name); // to the end of the queue
      this.kept.set(name, found);
    }
    return found;
  }

  /** Whether a tile cannot be had. @param {TileKey} key */
  hasFailed(key) {
    return this.failed.has(nameOf(key));
  }

  /**
   * Says what is in view, the most urgent first; what is under way and no longer is gets dropped.
   *
   * @param {TileKey[]} keys
   */
  want(keys) {
    const names = new Set(keys.map(nameOf));
    for (const [name, control] of this.loading) if (!names.has(name)) control.abort();
    this.wanted = keys.filter((key) => !this.kept.has(nameOf(key)));
    this.next();
  }

  next() {
    for (const key of this.wanted) {
      if (this.loading.size >= AT_ONCE) return;
      const name = nameOf(key);
      if (!this.loading.has(name) && !this.kept.has(name) && !this.failed.has(name)) void this.load(name);
    }
  }

  /** @param {string} name */
  async load(name) {
    const control = new AbortController();
    this.loading.set(name, control);
    try {
      const answer = await fetch(`${this.address}/${name}.png`, { signal: control.signal });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      this.kept.set(name, await readPng(await answer.arrayBuffer()));
      for (const oldest of this.kept.keys()) {
        if (this.kept.size <= KEPT) break;
        this.kept.delete(oldest);
      }
    } catch (error) {
      if (!control.signal.aborted) {
        this.failed.add(name);
        console.warn(`tile ${name} of ${this.address}: ${error}`);
        if (this.failed.size === 1) void reportFailure(`${this.address}/${name}.png`); // the others fail alike
      }
    }
    if (this.loading.get(name) === control) this.loading.delete(name);
    this.next();
    this.arrived();
  }
}

/** @param {TileKey} key */
function nameOf({ level, x, y }) {
  return `${level}/${x}_${y}`;
}
