/** The view as a picture: what is on the screen, a scale bar, and a legend below. */

/** @import { State } from "./state.js" */
/** @import { Pane } from "./pane.js" */

import { isolated } from "../common/dom.js";
import { heatColor } from "./colors.js";
import { css } from "./drawing.js";
import { SHUT, SHUT_IN_PART } from "./paint.js";
import { roundLabel, roundLength } from "./units.js";

const LINE_PX = 26;
const MARGIN_PX = 12;

/**
 * @param {Pane[]} panes
 * @param {State} state
 * @returns {HTMLCanvasElement}
 */
export function snapshot(panes, state) {
  const ratio = panes[0].frame()?.ratio ?? 1;
  const widths = panes.map((pane) => pane.canvas.width);
  const width = widths.reduce((sum, value) => sum + value, 0);
  const { height } = panes[0].canvas;
  const picture = document.createElement("canvas");
  const context = /** @type {CanvasRenderingContext2D} */ (picture.getContext("2d"));
  const items = legend(state);
  const rows = layOut(context, items, width, ratio);
  picture.width = width;
  picture.height = height + Math.round((rows.length * LINE_PX + 2 * MARGIN_PX) * ratio);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, picture.width, picture.height);
  let left = 0;
  for (const pane of panes) {
    pane.draw();
    const slide = pane.viewer.drawer.canvas;
    context.filter = pane.host.classList.contains("grey") ? "grayscale(1)" : "none";
    if (slide instanceof HTMLCanvasElement) context.drawImage(slide, left, 0, pane.canvas.width, height);
    context.filter = "none";
    context.globalAlpha = Number(pane.canvas.style.opacity);
    context.drawImage(pane.canvas, left, 0);
    context.globalAlpha = 1;
    context.drawImage(pane.top, left, 0);
    left += pane.canvas.width;
  }
  scaleBar(context, panes[0], state, height);
  drawLegend(context, rows, height, ratio);
  return picture;
}

/** @typedef {{ text: string, colors: string[] }} Item */

/** @param {State} state @returns {Item[]} */
function legend(state) {
  /** @type {Item[]} */
  const items = [];
  const { heat, threshold } = state.style;
  if (heat === null) {
    for (const { name } of state.classes()) {
      const own = state.styleOf(name);
      if (own.shown && !state.isHidden) items.push({ text: name, colors: [css(own.color)] });
    }
  } else if (heat.kind === "shut") {
    items.push({ text: `${isolated(heat.name)}: probability 0`, colors: [css(SHUT)] });
  } else if (heat.kind === "gate") {
    items.push({ text: heat.name ? `gate shut for ${isolated(heat.name)}` : "gate left one class at most", colors: [css(SHUT)] });
    items.push({ text: "in part", colors: [css(SHUT_IN_PART)] });
  } else {
    const colors = Array.from({ length: 24 }, (_, i) => css(heatColor(threshold + ((1 - threshold) * i) / 23)));
    const what = heat.kind === "uncertainty" ? "uncertainty" : `probability of ${isolated(heat.name)}`;
    const um = state.first.interpolated_from_um;
    const from = um === null ? "" : `, interpolated from ${um.toPrecision(2)} µm`;
    items.push({ text: `${what}, ${threshold.toFixed(2)} to 1${from}`, colors });
  }
  const maps = state.maps().map(({ name, model }) => `${isolated(name)} (${isolated(model)})`);
  items.push({ text: `${isolated(state.case.name)}: ${maps.join(" | ")}`, colors: [] });
  return items;
}

/** @param {number} ratio */
function fontOf(ratio) {
  return `${14 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Item[]} items
 * @param {number} width
 * @param {number} ratio
 */
function layOut(context, items, width, ratio) {
  context.font = fontOf(ratio);
  /** @type {Array<Array<Item & { x: number, swatch: number }>>} */
  const rows = [[]];
  let x = MARGIN_PX * ratio;
  for (const item of items) {
    const swatch = item.colors.length === 0 ? 0 : (item.colors.length === 1 ? 16 : 96) * ratio;
    const needed = swatch + context.measureText(item.text).width + 28 * ratio;
    if (x + needed > width && rows[rows.length - 1].length) {
      rows.push([]);
      x = MARGIN_PX * ratio;
    }
    rows[rows.length - 1].push({ ...item, x, swatch });
    x += needed;
  }
  return rows;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {ReturnType<typeof layOut>} rows
 * @param {number} top
 * @param {number} ratio
 */
function drawLegend(context, rows, top, ratio) {
  context.font = fontOf(ratio);
  context.textBaseline = "middle";
  for (const [index, row] of rows.entries()) {
    const y = top + (MARGIN_PX + (index + 0.5) * LINE_PX) * ratio;
    for (const { text, colors, x, swatch } of row) {
      for (const [place, color] of colors.entries()) {
        context.fillStyle = color;
        const part = swatch / colors.length;
        context.fillRect(x + place * part, y - 8 * ratio, Math.ceil(part), 16 * ratio);
      }
      context.fillStyle = "#111";
      context.fillText(text, x + swatch + (swatch ? 6 * ratio : 0), y);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Pane} pane
 * @param {State} state
 * @param {number} height
 */
function scaleBar(context, pane, state, height) {
  const frame = pane.frame();
  if (frame === null) return;
  const { ratio } = frame;
  const um = roundLength((150 * ratio * state.case.mpp[0]) / frame.scale);
  const width = (um / state.case.mpp[0]) * frame.scale;
  const [x, y] = [16 * ratio, height - 16 * ratio];
  context.fillStyle = "rgb(20 24 30 / 78%)";
  context.fillRect(x - 9 * ratio, y - 32 * ratio, width + 18 * ratio, 40 * ratio);
  context.fillStyle = "#fff";
  context.fillRect(x, y - 5 * ratio, width, 5 * ratio);
  context.font = `600 ${fontOf(ratio)}`;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(roundLabel(um), x + width / 2, y - 12 * ratio);
  context.textAlign = "left";
}
