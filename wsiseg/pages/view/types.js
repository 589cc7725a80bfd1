/**
 * What the server tells of slides and maps; lengths in level-0 pixels, areas in mm².
 *
 * @typedef {[number, number, number]} Color red, green and blue, 0 to 255
 * @typedef {{ index: number, name: string, color: Color }} TissueClass
 * @typedef {{ gated: number, read: number, shut: Record<string, number> }} Gate
 *
 * @typedef {object} MapFacts
 * @property {string} id
 * @property {string} name
 * @property {string} model
 * @property {string} finished
 * @property {TissueClass[]} classes
 * @property {number} width map pixels
 * @property {number} height
 * @property {[number, number]} step level-0 pixels per map pixel
 * @property {[number, number]} mpp um per map pixel
 * @property {number} levels
 * @property {boolean} probabilities whether the map holds them
 * @property {number | null} interpolated_from_um um per pixel of coarse probabilities, which are interpolated in between;
 * null of a map that holds all of them, or none
 * @property {number[]} areas of each class
 * @property {number} tissue_mm2
 * @property {number} white_mm2
 * @property {number} unread_mm2
 * @property {Gate | null} gate
 * @property {{ gate: boolean, unread: boolean }} records what the map records the places of
 * @property {boolean} holes whether it records any place that could not be read
 * @property {string[]} notes
 *
 * @typedef {object} CaseFacts
 * @property {string} id
 * @property {string} name
 * @property {number} width
 * @property {number} height
 * @property {[number, number]} mpp um per level-0 pixel
 * @property {boolean} slide whether the slide is at hand
 * @property {number} tile side of tiles, in pixels
 * @property {string[]} notes
 * @property {MapFacts[]} maps
 *
 * @typedef {"probability" | "uncertainty" | "shut" | "gate"} HeatKind "shut" is probability 0, of maps without places
 * @typedef {{ kind: HeatKind, name: string }} Heat `name` is that of the class, "" for uncertainty and for what the
 * gate left no more than one class
 *
 * @typedef {"single" | "swipe" | "side"} Mode
 * @typedef {{ x: number, y: number }} Place
 * @typedef {{ x: number, y: number, width: number, height: number }} Field
 * @typedef {{ rings: Array<Array<[number, number]>>, class: string }} Area
 * @typedef {{ file: string, count: number, undo: number, areas: Area[] }} Corrections
 */

export {};
