/** What is drawn on top of slide and map: measures, lassos, corrections, regions, the line between two maps. */

/** @import { Area, Color, Field, Place } from "./types.js" */
/** @import { Frame } from "./pane.js" */

import { distance, length } from "./units.js";

const HALO = "rgb(0 0 0 / 75%)";

/** @param {Frame} frame @param {Place} place @returns {[number, number]} pixels of the canvas */
function onCanvas(frame, { x, y }) {
  return [frame.left + x * frame.scale, frame.top + y * frame.scale];
}

/**
 * A line that is seen on any ground.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {string} color
 * @param {() => void} trace
 * @param {number[]} [dash] CSS pixels
 */
function stroke(context, frame, color, trace, dash = []) {
  context.save();
  context.lineJoin = "round";
  context.lineCap = "round";
  context.beginPath();
  trace();
  context.lineWidth = 4 * frame.ratio;
  context.strokeStyle = HALO;
  context.stroke();
  context.setLineDash(dash.map((part) => part * frame.ratio));
  context.lineWidth = 2 * frame.ratio;
  context.strokeStyle = color;
  context.stroke();
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {string} text
 * @param {number} x pixels of the canvas
 * @param {number} y
 */
function label(context, frame, text, x, y) {
  context.save();
  context.font = `600 ${14 * frame.ratio}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  const width = context.measureText(text).width;
  const [pad, height] = [6 * frame.ratio, 22 * frame.ratio];
  context.fillStyle = HALO;
  context.fillRect(x, y - height / 2, width + 2 * pad, height);
  context.fillStyle = "#fff";
  context.fillText(text, x + pad, y);
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {[Place, Place]} ends
 * @param {[number, number]} mpp
 */
export function drawMeasure(context, frame, ends, mpp) {
  const [[x0, y0], [x1, y1]] = ends.map((end) => onCanvas(frame, end));
  const tick = 6 * frame.ratio;
  const far = Math.hypot(x1 - x0, y1 - y0) || 1;
  const [dx, dy] = [(-(y1 - y0) / far) * tick, ((x1 - x0) / far) * tick];
  stroke(context, frame, "#fff", () => {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    for (const [x, y] of [[x0, y0], [x1, y1]]) {
      context.moveTo(x - dx, y - dy);
      context.lineTo(x + dx, y + dy);
    }
  });
  label(context, frame, length(distance(ends, mpp)), Math.max(x0, x1) + 8 * frame.ratio, x0 > x1 ? y0 : y1);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Place[]} points
 * @param {boolean} isClosed
 */
export function drawLasso(context, frame, points, isClosed) {
  const places = points.map((point) => onCanvas(frame, point));
  const trace = () => {
    for (const [index, [x, y]] of places.entries()) index ? context.lineTo(x, y) : context.moveTo(x, y);
    if (isClosed) context.closePath();
  };
  if (isClosed) {
    context.save();
    context.beginPath();
    trace();
    context.fillStyle = "rgb(255 255 255 / 22%)";
    context.fill("evenodd");
    context.restore();
  }
  stroke(context, frame, "#ffe45c", trace);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Area[]} areas
 * @param {(name: string) => string} colorOf a class, as CSS has it
 */
export function drawCorrections(context, frame, areas, colorOf) {
  for (const { rings, class: name } of areas) {
    const trace = () => {
      for (const ring of rings) {
        for (const [index, [x, y]] of ring.entries()) {
          const [left, top] = onCanvas(frame, { x, y });
          index ? context.lineTo(left, top) : context.moveTo(left, top);
        }
        context.closePath();
      }
    };
    stroke(context, frame, colorOf(name), trace, [7, 5]);
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Field} region
 */
export function drawRegion(context, frame, region) {
  const [x, y] = onCanvas(frame, region);
  const [width, height] = [region.width * frame.scale, region.height * frame.scale];
  stroke(context, frame, "#ffe45c", () => context.rect(x, y, width, height), [8, 6]);
}

/**
 * The line between two maps, and which is which.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {number} share of the width
 */
export function drawSwipe(context, frame, share) {
  const { width, height } = context.canvas;
  const x = share * width;
  stroke(context, frame, "#fff", () => {
    context.moveTo(x, 0);
    context.lineTo(x, height);
  });
  context.save();
  context.beginPath();
  context.arc(x, height / 2, 13 * frame.ratio, 0, 2 * Math.PI);
  context.fillStyle = "#fff";
  context.fill();
  context.fillStyle = "#333";
  context.font = `700 ${14 * frame.ratio}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText("⇔", x, height / 2);
  context.restore();
}

/** @param {Color} color */
export function css(color) {
  return `rgb(${color.join(" ")})`;
}
