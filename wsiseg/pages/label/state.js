/** What the page knows, and how it says things to the server: at once on the screen, then one after the other. */

import { get, post } from "../common/api.js";
import { Pictures } from "./pictures.js";

/** Pages that are at hand before they are wanted. */
const AHEAD = 2;

/**
 * @typedef {"draft" | "labelled" | "unsure" | "excluded"} Status
 * @typedef {{place: number, patch: string, context: string, status: Status | null, present: string[],
 *   pending?: number}} Item
 * @typedef {{round: number, number: number, pages: number, per_page: number, items: Item[], open: number, total: number,
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
    /** @type {Record<string, string[]>} of the round `opinionsOf` */
    this.opinions = {};
    this.opinionsOf = 0;
    /** @type {Promise<void>} */
    this.queue = Promise.resolve();
    /** @type {Promise<void>} */
    this.saving = Promise.resolve();
    /** @type {Map<number, Promise<Page>>} pages that were asked for ahead */
    this.ahead = new Map();
    this.pictures = new Pictures();
  }

  /** @returns {Item | undefined} */
  get item() {
    return this.page?.items[this.here];
  }

  /** @param {number | null} number @param {number} [round] @returns {Promise<Page>} */
  ask(number, round = this.page?.round) {
    const query = new URLSearchParams(this.grouped ? { groups: "1" } : {});
    if (number !== null) query.set("number", String(number));
    if (number !== null && round !== undefined) query.set("round", String(round));
    return get(`/api/page?${query}`);
  }

  /**
   * Shows a page; null is the first with something to answer, in the round under way.
   *
   * @param {number | null} number @param {number} [at] the patch that is chosen @param {number} [round]
   */
  async open(number, at = 0, round = this.page?.round) {
    const ready = number === null || round !== this.page?.round ? undefined : this.ahead.get(number);
    if (ready === undefined) this.forget();
    if (ready === undefined) await this.queue; // what was asked for ahead has no answer that is still under way
    const page = await (ready ?? this.ask(number, round));
    if (ready !== undefined) this.refresh(page);
    this.page = page;
    this.here = Math.min(Math.max(0, at), page.items.length - 1);
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

  /** Pages that were asked for ahead may be out of date. */
  forget() {
    this.ahead.clear();
  }

  /**
   * Has the next pages and their pictures at hand before they are wanted, one after the other; lets go of older ones.
   *
   * @param {Page} page
   */
  async lookAhead(page) {
    const wanted = new Set(page.items.map((item) => item.patch));
    for (const number of this.ahead.keys()) if (number <= page.number) this.ahead.delete(number);
    try {
      for (let number = page.number + 1; number <= page.number + AHEAD && number < page.pages; number += 1) {
        if (!this.ahead.has(number)) this.ahead.set(number, this.ask(number));
        const next = await this.ahead.get(number);
        const addresses = next?.items.map((item) => item.patch) ?? [];
        addresses.forEach((address) => wanted.add(address));
        await this.pictures.ahead(addresses);
        if (this.page !== page) return; // another page looks ahead now
      }
    } catch {
      this.forget(); // asked for again where it is wanted, and said then
    }
    if (this.page === page) this.pictures.keep(wanted);
  }

  /** @param {number} step */
  async turn(step) {
    const page = this.page;
    if (page === null) return;
    const number = page.number + step;
    if (number < 0) return;
    if (number < page.pages) await this.open(number);
    else await this.open(null);
    this.save();
  }

  /** Brings the table up to date with what was said so far. Keys do not wait for it: their answers are in the journal. */
  save() {
    const said = this.queue;
    this.saving = this.saving
      .then(() => said)
      .then(() => post("/api/save", {}))
      .catch((error) => this.failed(`${error.message} — the table is not up to date, your answers are kept`));
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
      const shown = this.page; // the next page may be there already
      if (shown !== null && shown.round === round) shown.open = found.open;
      if (shown !== null) shown.status = found.status;
      this.changed();
    });
  }

  /** Takes the last thing back, or says it again, and goes to where it was. @param {"undo" | "redo"} which */
  takeBack(which) {
    this.failed("");
    this.forget();
    this.say(() => post(`/api/${which}`, {}), (found) => {
      const page = this.page;
      const first = found.items[0]?.place;
      if (page === null || first === undefined) {
        this.failed(which === "undo" ? "there is nothing to take back" : "there is nothing to say again");
        return;
      }
      const at = found.round === page.round ? page.items.findIndex((item) => item.place === first) : -1;
      if (at < 0) {
        this.grouped = false;
        this.open(Math.floor(first / page.per_page), first % page.per_page, found.round).catch((error) =>
          this.failed(error.message),
        );
        return;
      }
      for (const said of found.items) {
        const item = page.items.find((one) => one.place === said.place);
        if (item !== undefined) Object.assign(item, said);
      }
      page.open = found.open;
      page.status = found.status;
      this.here = at;
      this.changed();
    });
  }

  /**
   * One thing after the other, in the order of the keys; what a failure leaves on the screen is read again.
   *
   * @param {() => Promise<any>} what @param {(found: any) => void} [then] called with what was answered
   */
  say(what, then = () => undefined) {
    this.queue = this.queue
      .then(what)
      .then(then)
      .catch((error) => {
        this.failed(`${error.message} — not saved`);
        this.forget();
        return this.ask(this.page?.number ?? null)
          .then((page) => {
            this.page = page;
            this.changed();
          })
          .catch(() => undefined);
      });
  }

  async loadOpinions() {
    const round = this.page?.round ?? 0;
    if (round === this.opinionsOf) return;
    this.opinions = await get(`/api/predictions?round=${round}`);
    this.opinionsOf = round;
  }
}

/** @param {Item} item */
export function isDone(item) {
  return item.status !== null && item.status !== "draft";
}
