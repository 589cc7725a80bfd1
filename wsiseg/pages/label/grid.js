/** The patches on the page: a box for each, made once, and changed only where its answer changed. */

import { element } from "../common/dom.js";
import { isDone } from "./state.js";

/**
 * @typedef {import("./state.js").Item} Item
 * @typedef {import("./state.js").State} State
 * @typedef {{root: HTMLElement, tags: HTMLElement, mark: HTMLElement, seen: string}} Box
 */

const TITLES = { "": "", pending: "being saved", draft: "kept, not confirmed", saved: "saved" };

export class Grid {
  /**
   * @param {HTMLElement} root
   * @param {State} state
   * @param {{chosen: (at: number) => void, opened: () => void}} told what clicks mean
   */
  constructor(root, state, told) {
    this.root = root;
    this.state = state;
    /** @type {Box[]} */
    this.boxes = [];
    this.shown = "";
    root.addEventListener("click", (event) => {
      const at = this.at(event);
      if (at >= 0) told.chosen(at);
    });
    root.addEventListener("dblclick", (event) => {
      if (this.at(event) >= 0) told.opened();
    });
  }

  /** @param {Event} event @returns {number} the box under it, -1 for none */
  at(event) {
    const box = event.target instanceof Element ? event.target.closest(".patch") : null;
    return this.boxes.findIndex((one) => one.root === box);
  }

  draw() {
    const { page } = this.state;
    if (page === null) return;
    const shown = page.items.map((item) => item.patch).join(" ");
    if (shown !== this.shown) {
      this.boxes = page.items.map((item) => this.box(item));
      this.root.replaceChildren(...this.boxes.map((box) => box.root));
      this.shown = shown;
    }
    page.items.forEach((item, at) => this.update(this.boxes[at], item, at === this.state.here));
  }

  /** @param {Item} item @returns {Box} */
  box(item) {
    const picture = this.state.pictures.of(item.patch);
    picture.alt = `patch ${item.place + 1}`;
    const tags = element("div", { class: "tags" });
    const mark = element("div", { class: "mark" });
    const root = element("div", { role: "gridcell", "data-place": item.place }, picture, tags, mark);
    return { root, tags, mark, seen: "" };
  }

  /** @param {Box} box @param {Item} item @param {boolean} here */
  update(box, item, here) {
    const classes = this.state.page?.classes ?? [];
    const opinions = this.state.shown ? (this.state.opinions[item.place] ?? []) : null;
    const kind = item.status === null ? "" : item.pending ? "pending" : item.status === "draft" ? "draft" : "saved";
    const seen = JSON.stringify([here, kind, item.status, item.present, opinions, classes]);
    if (seen === box.seen) return;
    box.seen = seen;
    const kinds = ["patch", here ? "here" : "", isDone(item) ? "done" : "", item.status ?? ""];
    box.root.className = kinds.filter((one) => one !== "").join(" ");
    box.root.setAttribute("aria-selected", String(here));
    box.root.dataset.status = item.status ?? "";
    box.mark.className = `mark ${kind}`;
    box.mark.title = TITLES[kind];
    box.tags.replaceChildren(...tagsOf(item, classes, opinions));
  }
}

/** @param {Item} item @param {{name: string, color: string}[]} classes @param {string[] | null} opinions */
function tagsOf(item, classes, opinions) {
  const tags = classes.filter((one) => item.present.includes(one.name)).map((one) => tag(one.name, one.color));
  if (item.status === "labelled" && tags.length === 0) tags.push(word("none of these"));
  if (item.status === "unsure" || item.status === "excluded") tags.splice(0, tags.length, word(item.status));
  for (const name of opinions ?? []) {
    tags.push(tag(name, classes.find((one) => one.name === name)?.color ?? "#888888", true));
  }
  return tags;
}

/** @param {string} name @param {string} color @param {boolean} [opinion] */
function tag(name, color, opinion = false) {
  const title = opinion ? `model: ${name}` : name;
  const made = element("span", { class: opinion ? "tag opinion" : "tag", title }, name);
  if (opinion) made.style.borderColor = color;
  else made.style.backgroundColor = color;
  return made;
}

/** @param {string} text */
function word(text) {
  return element("span", { class: "tag word" }, text);
}
