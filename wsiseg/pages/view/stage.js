/** The panes and the maps in them, as the state has it; what is drawn on top; where the view is. */

/** @import { Corrections, Field, MapFacts, Place } from "./types.js" */
/** @import { State } from "./state.js" */
/** @import { Tools } from "./tools.js" */
/** @import { Frame } from "./pane.js" */

import { isolated } from "../common/dom.js";
import * as drawing from "./drawing.js";
import { MapLayer } from "./layer.js";
import { Pane } from "./pane.js";

const GRIP_PX = 14;

export class Stage {
  /**
   * @param {HTMLElement} root
   * @param {State} state
   * @param {Tools} tools
   * @param {() => void} moved called when the view moves
   */
  constructor(root, state, tools, moved) {
    this.root = root;
    this.state = state;
    this.tools = tools;
    this.moved = moved;
    /** @type {Pane[]} */
    this.panes = [];
    /** @type {Map<string, MapLayer>} */
    this.layers = new Map();
    /** @type {Corrections | null} */
    this.corrections = null;
    /** @type {Field | null} */
    this.region = null;
    this.isFollowing = false;
    this.isSwiping = false;
    this.addPane();
  }

  addPane() {
    const pane = new Pane(this.root, (context, frame, self) => this.drawOnTop(context, frame, self));
    this.tools.listen(pane);
    for (const name of /** @type {const} */ (["zoom", "pan"])) {
      pane.viewer.addHandler(name, (/** @type {{ immediately?: boolean }} */ event) => this.follow(pane, event.immediately ?? false));
    }
    pane.viewer.addHandler("update-viewport", () => this.moved());
    pane.viewer.addHandler("canvas-press", (event) => {
      const near = Math.abs(event.position.x - this.state.swipe * pane.root.clientWidth) < GRIP_PX;
      this.isSwiping = this.state.mode === "swipe" && near;
    });
    pane.viewer.addHandler("canvas-drag", (event) => {
      if (!this.isSwiping) return;
      event.preventDefaultAction = true;
      this.state.swipe = Math.min(1, Math.max(0, event.position.x / pane.root.clientWidth));
      this.arrange();
    });
    pane.viewer.addHandler("canvas-release", () => {
      this.isSwiping = false;
    });
    this.panes.push(pane);
    return pane;
  }

  /** Moves the other panes along. @param {Pane} pane @param {boolean} immediately */
  follow(pane, immediately) {
    if (this.isFollowing) return;
    this.isFollowing = true;
    const { viewport } = pane.viewer;
    for (const other of this.panes) {
      if (other === pane || !other.viewer.isOpen()) continue;
      other.viewer.viewport.zoomTo(viewport.getZoom(false), undefined, immediately);
      other.viewer.viewport.panTo(viewport.getCenter(false), immediately);
    }
    this.isFollowing = false;
  }

  /** Opens the slide that the state names. */
  async open() {
    this.region = null;
    await Promise.all(this.panes.map((pane) => pane.open(this.state.case)));
    this.arrange();
  }

  /** Puts the maps into panes, and draws. */
  arrange() {
    const { state } = this;
    const needed = state.mode === "side" && state.second !== null ? 2 : 1;
    if (this.panes.length < needed) {
      const view = this.view();
      const pane = this.addPane();
      void pane.open(state.case).then(() => {
        if (view !== null) this.moveTo(view, view.scale, true);
      });
    }
    while (this.panes.length > needed) {
      const gone = this.panes.pop();
      gone?.viewer.destroy();
      gone?.root.remove();
    }
    const opacity = state.isHidden ? 0 : state.style.outline && state.style.heat === null ? 1 : state.opacity;
    const maps = state.maps();
    for (const [index, pane] of this.panes.entries()) {
      const inPane = needed === 2 ? [maps[index]] : maps;
      const cuts = inPane.length === 2 ? [0, state.swipe, 1] : [0, 1];
      pane.shown = inPane.map((facts, i) => ({ layer: this.layer(facts), from: cuts[i], to: cuts[i + 1], opacity }));
      // Colours of a heat map are told from each other on grey tissue alone.
      pane.host.classList.toggle("grey", state.style.heat !== null && opacity > 0);
      const letter = needed === 2 ? `${index ? "B" : "A"}: ` : "";
      const names = inPane.length === 2 ? `A: ${isolated(inPane[0].name)}  |  B: ${isolated(inPane[1].name)}` : isolated(inPane[0].name);
      pane.label.textContent = state.second === null ? "" : letter + names;
    }
    this.redraw();
  }

  /** @param {MapFacts} facts */
  layer(facts) {
    let found = this.layers.get(facts.id);
    if (found === undefined) {
      found = new MapLayer(facts, this.state.style, () => this.redraw());
      this.layers.set(facts.id, found);
    }
    return found;
  }

  /** Draws anew after a change of colours, classes or heat map. */
  restyle() {
    for (const layer of this.layers.values()) layer.restyle();
    this.arrange();
  }

  redraw() {
    for (const pane of this.panes) pane.redraw();
  }

  /** The middle in level-0 pixels, and CSS pixels for each of them. */
  view() {
    const frame = this.panes[0].frame();
    if (frame === null) return null;
    const { x, y, width, height } = frame.field;
    return { x: x + width / 2, y: y + height / 2, scale: frame.scale / frame.ratio };
  }

  /** @returns {Field | null} what is in view */
  field() {
    return this.panes[0].frame()?.field ?? null;
  }

  /**
   * @param {Place} middle
   * @param {number} scale CSS pixels per level-0 pixel
   * @param {boolean} [immediately]
   */
  moveTo(middle, scale, immediately = false) {
    this.isFollowing = true;
    for (const pane of this.panes) pane.moveTo(middle, scale, immediately);
    this.isFollowing = false;
  }

  /** Shows the whole slide. @param {boolean} [immediately] */
  home(immediately = false) {
    for (const { root, viewer } of this.panes) {
      viewer.viewport.resize(new OpenSeadragon.Point(root.clientWidth, root.clientHeight), true);
      viewer.viewport.goHome(immediately);
    }
  }

  /** The map under a place of a pane. @param {Pane} pane @param {number} x CSS pixels */
  mapAt(pane, x) {
    const share = x / pane.root.clientWidth;
    return (pane.shown.find(({ from, to }) => share >= from && share < to) ?? pane.shown[0])?.layer.facts;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Frame} frame
   * @param {Pane} pane
   */
  drawOnTop(context, frame, pane) {
    const { state, tools } = this;
    if (this.corrections !== null) {
      drawing.drawCorrections(context, frame, this.corrections.areas, (name) => {
        const own = state.style.classes.get(name);
        return own === undefined ? "#fff" : drawing.css(own.color);
      });
    }
    if (this.region !== null) drawing.drawRegion(context, frame, this.region);
    if (tools.lasso.length) drawing.drawLasso(context, frame, tools.lasso, tools.isClosed);
    const ends = tools.measure();
    if (ends !== null) drawing.drawMeasure(context, frame, ends, state.case.mpp);
    if (state.mode === "swipe" && pane.shown.length === 2) drawing.drawSwipe(context, frame, state.swipe);
  }
}
