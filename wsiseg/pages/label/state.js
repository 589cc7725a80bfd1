/** What the page knows, and how it says things to the server: at once on the screen, then one after the other. */

import { get, post } from "../common/api.js";

/**
 * @typedef {"draft" | "labelled" | "unsure" | "excluded"} Status
 * @typedef {{place: number, patch: string, context: string, status: Status | null, present: string[],
 *   pending?: number}} Item
 * @typedef {{round: number, number: number, pages: number, items: Item[], open: number, total: number,
 *   classes: {name: string, color: string}[], labeller: string, model: boolean, patch_px: number, mpp: number,
 *   status: any}} Page
 */

export class State {
  /** @param {() => void} changed called when something is to be drawn anew. @param {(text: string) => void} failed */
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    /** @type {Page | null} */
    this.page = null;
    this.here = 0;
    this.grouped = false;
    this.shown = false;
    /** @type {Record<string, string[]>} */
    this.opinions = {};
    /** @type {Promise<void>} */
    this.queue = Promise.resolve();
    /** @type {Map<number, Promise<Page>>} pages that were asked for ahead */
    this.ahead = new Map();
  }

  /** @returns {Item | undefined} */
  get item() {
    return this.page?.items[this.here];
  }

  /** @param {number | null} number @returns {Promise<Page>} */
  ask(number) {
    const query = new URLSearchParams(this.grouped ? { groups: "1" } : {});
    if (number !== null) query.set("number", String(number));
    return get(`/api/page?${query}`);
  }

  /** Shows a page; null is the first with something to answer. @param {number | null} number @param {number} [place] */
  async open(number, place = 0) {
    const ready = number === null ? undefined : this.ahead.get(number);
    this.ahead.clear();
    await this.queue;
    const page = await (ready ?? this.ask(number));
    if (ready !== undefined) this.refresh(page);
    this.page = page;
    this.here = Math.min(Math.max(0, place), page.items.length - 1);
    if (number === null) this.here = Math.max(0, page.items.findIndex((item) => !isDone(item)));
    if (this.shown) await this.loadOpinions();
    this.changed();
    this.lookAhead(page);
  }

  /** What was asked for ahead is as old as that. @param {Page} page */
  refresh(page) {
    if (this.page === null) return;
    page.open = this.page.open;
    page.status = this.page.status;
  }

  /** Has the next page and its pictures at hand before they are wanted. @param {Page} page */
  lookAhead(page) {
    if (page.number + 1 >= page.pages) return;
    const next = this.ask(page.number + 1);
    this.ahead.set(page.number + 1, next);
    next.then((found) => found.items.forEach((item) => (new Image().src = item.patch))).catch(() => this.ahead.clear());
  }

  /** @param {number} step */
  async turn(step) {
    const page = this.page;
    if (page === null) return;
    const number = page.number + step;
    if (number < 0) return;
    this.say(() => post("/api/save", {}));
    if (number < page.pages) await this.open(number);
    else await this.open(null);
  }

  /**
   * Says something of items: on the screen at once, marked as saved when the server has it on its disk.
   *
   * @param {Item[]} items @param {Status} status @param {(item: Item) => string[]} [present]
   */
  answer(items, status, present = (item) => item.present) {
    const page = this.page;
    if (page === null || items.length === 0) return;
    /** @type {Record<string, string[]>} */
    const answers = {};
    for (const item of items) {
      item.present = present(item);
      item.status = status;
      item.pending = (item.pending ?? 0) + 1;
      answers[item.place] = item.present;
    }
    const round = page.round;
    this.changed();
    this.say(async () => {
      const found = await post("/api/answer", { answers, status, round, shown: this.shown });
      for (const item of items) item.pending = (item.pending ?? 1) - 1;
      page.open = found.open;
      page.status = found.status;
      this.changed();
    });
  }

  /** @param {"undo" | "redo"} which */
  takeBack(which) {
    this.say(async () => {
      const found = await post(`/api/${which}`, {});
      const touched = found.items.map((/** @type {Item} */ item) => item.place);
      const at = this.page?.items.findIndex((item) => touched.includes(item.place)) ?? -1;
      if (this.page !== null && at >= 0) {
        for (const said of found.items) {
          const item = this.page.items.find((one) => one.place === said.place);
          if (item !== undefined) Object.assign(item, said);
        }
        this.page.open = found.open;
        this.page.status = found.status;
        this.here = at;
        this.changed();
      } else if (touched.length > 0 && !this.grouped) {
        const size = this.page?.items.length || 24;
        const number = Math.floor(touched[0] / 24);
        setTimeout(() => this.open(number, touched[0] % 24).catch((error) => this.failed(error.message)), 0, size);
      } else {
        this.failed(which === "undo" ? "nothing on this round to take back" : "nothing to say again");
      }
    });
  }

  /** One after the other, in the order of the keys. @param {() => Promise<any>} what */
  say(what) {
    this.queue = this.queue.then(what).catch((error) => {
      this.failed(`${error.message} — not saved`);
      this.ahead.clear();
      return this.ask(this.page?.number ?? null)
        .then((page) => {
          this.page = page;
          this.changed();
        })
        .catch(() => undefined);
    });
  }

  async loadOpinions() {
    this.opinions = await get("/api/predictions");
  }
}

/** @param {Item} item */
export function isDone(item) {
  return item.status !== null && item.status !== "draft";
}
