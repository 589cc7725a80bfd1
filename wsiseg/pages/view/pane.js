/** One view of a slide: OpenSeadragon, the maps over it, and what is drawn on top. */

/** @import { CaseFacts, Field, Place } from "./types.js" */
/** @import { MapLayer } from "./layer.js" */

import { reportFailure } from "../common/api.js";
import { element } from "../common/dom.js";

/**
 * @typedef {object} Frame where level 0 of the slide is on a canvas
 * @property {number} left pixels of the canvas
 * @property {number} top
 * @property {number} scale pixels of the canvas per level-0 pixel
 * @property {number} ratio pixels of the canvas per CSS pixel
 * @property {Field} field what is in view, in level-0 pixels
 */

/**
 * @typedef {object} Shown a map in a pane
 * @property {MapLayer} layer
 * @property {number} from share of the pane's width at which it begins
 * @property {number} to
 * @property {number} opacity
 */

const MOST_MAGNIFIED = 8;
/** Screen pixels per level-0 pixel that one can zoom in to. */

const TILES_AT_ONCE = 6;
/** As many as a browser asks one server for. */

// OpenSeadragon puts a style of its own into pages that have none marked so; the page's policy refuses it, with a
// message. This is no style to the browser, since it is no element of HTML.
const mark = document.createElementNS("urn:wsiseg", "style");
mark.setAttribute("data-openseadragon-mobile-css", "true");
document.head.append(mark);

export class Pane {
  /**
   * @param {HTMLElement} parent
   * @param {(context: CanvasRenderingContext2D, frame: Frame, pane: Pane) => void} drawOnTop
   */
  constructor(parent, drawOnTop) {
    this.drawOnTop = drawOnTop;
    this.host = element("div", { class: "osd" });
    this.canvas = element("canvas", { class: "map" });
    this.top = element("canvas", { class: "top" });
    this.label = element("div", { class: "label" });
    this.root = element("div", { class: "pane" }, this.host, this.canvas, this.top, this.label);
    parent.append(this.root);
    /** @type {Shown[]} */
    this.shown = [];
    /** @type {CaseFacts | null} */
    this.case = null;
    this.pending = 0;
    this.viewer = new OpenSeadragon.Viewer({
      element: this.host,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: false,
      animationTime: 0.35,
      springStiffness: 9,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.5,
      maxZoomPixelRatio: MOST_MAGNIFIED,
      zoomPerScroll: 1.35,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: TILES_AT_ONCE,
      maxTilesPerFrame: TILES_AT_ONCE, // as it comes, one tile is asked for in each frame that is drawn
      timeout: 120000,
      maxImageCacheCount: 300,
    });
    // Keys belong to the page.
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
    let hasFailed = false;
    this.viewer.addHandler("tile-load-failed", ({ tile }) => {
      if (hasFailed) return; // the others fail alike
      hasFailed = true;
      void reportFailure(String(tile?.getUrl()));
    });
    for (const name of /** @type {const} */ (["update-viewport", "animation", "resize"])) {
      this.viewer.addHandler(name, () => this.redraw());
    }
    new ResizeObserver(() => this.redraw()).observe(this.root);
  }

  /**
   * Shows a slide, or the empty place of one that is not at hand.
   *
   * @param {CaseFacts} facts
   * @returns {Promise<void>} when it is open
   */
  open(facts) {
    this.case = facts;
    return new Promise((resolve) => {
      this.viewer.addOnceHandler("open", () => resolve());
      // @ts-expect-error a source may be given as an object with functions of its own
      this.viewer.open(tileSource(facts));
    });
  }

  /** @returns {Frame | null} null while nothing is open */
  frame() {
    if (this.case === null || !this.viewer.isOpen()) return null;
    const { viewport } = this.viewer;
    const ratio = window.devicePixelRatio || 1;
    const size = viewport.getContainerSize();
    if (!size.x || !size.y) return null;
    const origin = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const scale = (viewport.getZoom(true) * size.x) / this.case.width;
    const field = { x: -origin.x / scale, y: -origin.y / scale, width: size.x / scale, height: size.y / scale };
    return { left: origin.x * ratio, top: origin.y * ratio, scale: scale * ratio, ratio, field };
  }

  /** Draws in the next frame. */
  redraw() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  draw() {
    const frame = this.frame();
    if (frame === null) return;
    const [width, height] = [this.root.clientWidth, this.root.clientHeight].map((side) => Math.round(side * frame.ratio));
    for (const canvas of [this.canvas, this.top]) {
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
    }
    const context = this.canvas.getContext("2d");
    const top = this.top.getContext("2d");
    if (context === null || top === null) return;
    context.clearRect(0, 0, width, height);
    for (const { layer, from, to } of this.shown) {
      context.save();
      context.beginPath();
      context.rect(Math.round(from * width), 0, Math.round(to * width) - Math.round(from * width), height);
      context.clip();
      layer.draw(context, frame);
      context.restore();
    }
    this.canvas.style.opacity = String(this.shown[0]?.opacity ?? 1);
    top.clearRect(0, 0, width, height);
    this.drawOnTop(top, frame, this);
  }

  /**
   * @param {OpenSeadragon.Point} point CSS pixels in the pane
   * @returns {Place | null} level-0 pixels
   */
  placeAt(point) {
    const frame = this.frame();
    if (frame === null) return null;
    const scale = frame.scale / frame.ratio;
    return { x: frame.field.x + point.x / scale, y: frame.field.y + point.y / scale };
  }

  /**
   * Moves the view.
   *
   * @param {Place} middle level-0 pixels
   * @param {number} scale CSS pixels per level-0 pixel
   * @param {boolean} [immediately]
   */
  moveTo(middle, scale, immediately = false) {
    if (this.case === null) return;
    const { viewport } = this.viewer;
    viewport.zoomTo((scale * this.case.width) / viewport.getContainerSize().x, undefined, immediately);
    viewport.panTo(new OpenSeadragon.Point(middle.x / this.case.width, middle.y / this.case.width), immediately);
    viewport.applyConstraints(immediately);
  }
}

/**
 * @param {CaseFacts} facts
 */
function tileSource(facts) {
  const levels = Math.max(0, Math.ceil(Math.log2(Math.max(facts.width, facts.height) / facts.tile)));
  return {
    width: facts.width,
    height: facts.height,
    tileSize: facts.tile,
    tileOverlap: 0,
    minLevel: 0,
    maxLevel: levels,
    /** @param {number} level @param {number} x @param {number} y */
    getTileUrl: (level, x, y) => `/s/${facts.id}/${levels - level}/${x}_${y}.jpg`,
    ...(facts.slide ? {} : { tileExists: () => false }),
  };
}
