/** Keys of a page, and the list of them that `h` shows. */

import { element } from "./dom.js";

/** What is typed into, so that keys are letters there. */
const TYPED = 'input:not([type="range"], [type="checkbox"], [type="color"], [type="radio"]), textarea, select';

export class Keys {
  constructor() {
    /** @type {Map<string, () => void>} */
    this.handlers = new Map();
    /** @type {Array<[string, string]>} */
    this.shown = [];
    this.dialog = element("dialog", { class: "help" });
    document.body.append(this.dialog);
    document.addEventListener("keydown", (event) => this.pressed(event));
    this.help = () => this.toggleHelp();
    this.bind(["h", "?"], "this list", this.help, "h");
  }

  /**
   * @param {string[]} keys as `KeyboardEvent.key` names them, `ctrl+` before those with Ctrl or Cmd; `shift+Digit1`
   *   and the like as `KeyboardEvent.code` does, since what Shift makes of a digit depends on the keyboard.
   * @param {string} what it does, for the list; "" leaves it out.
   * @param {() => void} handler
   * @param {string} [label] how the keys are shown in the list.
   */
  bind(keys, what, handler, label = keys.join(" ")) {
    for (const key of keys) this.handlers.set(key, handler);
    if (what) this.shown.push([label, what]);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.altKey || (event.target instanceof Element && event.target.matches(TYPED))) return;
    const byPlace = event.shiftKey ? this.handlers.get(`shift+${event.code}`) : undefined;
    const handler = byPlace ?? this.handlers.get((event.ctrlKey || event.metaKey ? "ctrl+" : "") + event.key);
    if (handler === undefined || (this.dialog.open && handler !== this.help)) return; // Escape closes the list
    event.preventDefault();
    if (event.repeat && !event.key.startsWith("Arrow")) return; // a key that is held down is meant once
    handler();
  }

  toggleHelp() {
    if (this.dialog.open) {
      this.dialog.close();
      return;
    }
    const rows = this.shown.map(([keys, what]) =>
      element("tr", {}, element("th", {}, element("kbd", {}, keys)), element("td", {}, what)),
    );
    this.dialog.replaceChildren(
      element("h2", {}, "Keys"),
      element("table", {}, ...rows),
      element("button", { type: "button", onclick: () => this.dialog.close() }, "Close"),
    );
    this.dialog.showModal();
  }
}
