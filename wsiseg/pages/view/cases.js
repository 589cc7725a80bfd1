/** The list of slides, where there are several: a picture, the name, and the shares of the classes. */

/** @import { CaseFacts } from "./types.js" */
/** @import { State } from "./state.js" */

import { element, isolated } from "../common/dom.js";
import { area } from "./units.js";
import { css } from "./drawing.js";

/**
 * @param {HTMLElement} root
 * @param {State} state
 * @param {(shown: CaseFacts) => void} chosen
 */
export function drawCases(root, state, chosen) {
  root.hidden = state.cases.length < 2;
  if (root.hidden) return;
  root.replaceChildren(...state.cases.map((one) => caseButton(one, state, chosen)));
  root.querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest" });
}

/**
 * @param {CaseFacts} one
 * @param {State} state
 * @param {(shown: CaseFacts) => void} chosen
 */
function caseButton(one, state, chosen) {
  const [map] = one.maps;
  const total = map.areas.reduce((sum, value) => sum + value, 0);
  const shares = element("span", { class: "shares" });
  for (const [index, { name }] of map.classes.entries()) {
    const part = element("span", { title: `${isolated(name)}: ${area(map.areas[index] ?? 0)} mm²` });
    part.style.width = `${(100 * (map.areas[index] ?? 0)) / (total || 1)}%`;
    part.style.background = css(state.styleOf(name).color);
    shares.append(part);
  }
  const maps = one.maps.length > 1 ? `, ${one.maps.length} maps` : "";
  return element(
    "button",
    { class: "case", type: "button", "aria-pressed": String(one === state.case), onclick: () => chosen(one) },
    element("img", { src: `/s/${one.id}/thumbnail.jpg`, alt: "", loading: "lazy" }),
    element("span", { class: "name" }, one.name),
    element("span", { class: "note" }, `${area(map.tissue_mm2)} mm² of tissue${maps}`),
    shares,
  );
}
