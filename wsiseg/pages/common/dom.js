/** Elements of a page. Names come from files of strangers: they are set as text and never read as HTML. */

/**
 * Makes an element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} [properties] `class`, `title`, `data-…`, `aria-…` become attributes; functions
 *   named `on…` listen; the rest are properties of the element.
 * @param {...(Node | string | null | undefined)} children text, or other elements.
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function" && name.startsWith("on")) {
      made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (name === "class" || name.includes("-")) {
      made.setAttribute(name, String(value));
    } else {
      Reflect.set(made, name, value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * The element of a page with an id.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} with the id ${id}`);
  return found;
}

const BIDI = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;
/** Letters that are written from right to left, and marks that say so. */

/**
 * A name within a text: whatever directions its letters have, the text around it keeps its own.
 *
 * @param {string} name
 */
export function isolated(name) {
  return BIDI.test(name) ? `\u2068${name}\u2069` : name;
}
