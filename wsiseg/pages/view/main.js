/** The viewer: puts the parts together, and says what each key does. */

/** @import { CaseFacts, Field } from "./types.js" */
/** @import { Tool } from "./tools.js" */

import { FAILED, get, post } from "../common/api.js";
import { byId, element, isolated } from "../common/dom.js";
import { Keys } from "../common/keys.js";
import { drawCases } from "./cases.js";
import { Panel } from "./panel.js";
import { FieldReader, Pointer, showScale } from "./readout.js";
import { snapshot } from "./snapshot.js";
import { Stage } from "./stage.js";
import { State } from "./state.js";
import { enclosed, Tools } from "./tools.js";
import { area, distance, length } from "./units.js";

const MAGNIFICATIONS = [2.5, 5, 10, 20, 40];
const PAN_SHARE = 0.2;

class View {
  /** @param {CaseFacts[]} cases */
  constructor(cases) {
    this.state = new State(cases);
    this.state.fromHash(location.hash);
    this.tools = new Tools(() => this.toolChanged());
    this.stage = new Stage(byId("stage", HTMLElement), this.state, this.tools, () => this.moved());
    this.panel = new Panel(byId("panel", HTMLElement), this.state, {
      repaint: () => this.repaint(),
      restyled: () => this.restyled(),
      rearranged: () => this.rearranged(),
    });
    this.fields = new FieldReader(this.state, this.stage, (fields) => this.panel.showFields(fields));
    this.pointer = new Pointer(this.state, this.stage);
    /** @type {Map<string, Field[]>} least certain regions, by map */
    this.regions = new Map();
    this.region = -1;
    this.hashTimer = 0;
    this.lastView = "";
    this.keys = new Keys();
    this.bindKeys();
    this.buttons();
    this.listen();
  }

  async start() {
    await this.show();
    const { start } = this.state;
    if (start !== null) this.stage.moveTo(start, start.scale, true);
  }

  /** Shows the slide that the state names. */
  async show() {
    const { state } = this;
    this.region = -1;
    this.tools.escape();
    document.title = `${isolated(state.case.name)} – wsiseg`;
    const corrections = this.readCorrections();
    corrections.catch(() => {}); // is awaited below
    await this.stage.open();
    this.restyled();
    drawCases(byId("cases", HTMLElement), state, (one) => this.choose(one));
    this.stage.home(true); // when all around has its size
    await corrections;
  }

  /** @param {CaseFacts} one */
  choose(one) {
    this.state.show(one);
    this.attempt(() => this.show());
  }

  /** @param {number} step */
  chooseNext(step) {
    const { cases } = this.state;
    this.choose(cases[(cases.indexOf(this.state.case) + step + cases.length) % cases.length]);
  }

  repaint() {
    this.stage.restyle();
    this.remember();
  }

  restyled() {
    this.repaint();
    this.panel.draw();
    const { first, case: shown } = this.state;
    byId("title", HTMLElement).textContent = isolated(shown.name);
    byId("model", HTMLElement).textContent = `${isolated(first.name)}, ${isolated(first.model)}, ${first.mpp[0].toPrecision(3)} µm/px`;
  }

  rearranged() {
    this.restyled();
    this.fields.later();
    this.attempt(() => this.readCorrections());
  }

  moved() {
    const { x = 0, y = 0, scale = 0 } = this.stage.view() ?? {};
    const view = `${x} ${y} ${scale}`;
    if (view === this.lastView) return; // more of the same view was drawn
    this.lastView = view;
    showScale(this.state, this.stage);
    this.fields.later();
    this.remember();
  }

  /** The address of the page restores the view. */
  remember() {
    clearTimeout(this.hashTimer);
    this.hashTimer = setTimeout(() => history.replaceState(null, "", this.state.toHash(this.stage.view())), 300);
  }

  listen() {
    const stage = byId("stage", HTMLElement);
    stage.addEventListener("pointermove", (event) => {
      const pane = this.stage.panes.find(({ root }) => event.target instanceof Node && root.contains(event.target));
      if (pane === undefined) return;
      const box = pane.root.getBoundingClientRect();
      const place = pane.placeAt(new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top));
      this.tools.move(place);
      if (place !== null) this.pointer.over(pane, event.clientX - box.left, place);
    });
    stage.addEventListener("pointerleave", () => this.pointer.leave());
    window.addEventListener(FAILED, (event) => {
      if (event instanceof CustomEvent) this.say(String(event.detail), true);
    });
    window.addEventListener("hashchange", () => {
      this.state.fromHash(location.hash);
      this.attempt(() => this.start());
    });
  }

  buttons() {
    const zooms = MAGNIFICATIONS.map((factor) =>
      element("button", { type: "button", title: `${10 / factor} µm per pixel of the screen`, onclick: () => this.magnify(factor) }, `${factor}×`),
    );
    byId("zooms", HTMLElement).replaceChildren(element("button", { type: "button", onclick: () => this.stage.home() }, "Fit"), ...zooms);
    const tool = (/** @type {string} */ text, /** @type {string} */ key, /** @type {() => void} */ pressed) =>
      element("button", { type: "button", title: `key ${key}`, id: `tool-${key}`, onclick: pressed }, text);
    byId("tools", HTMLElement).replaceChildren(
      tool("Measure", "m", () => this.tools.take("measure")),
      tool("Correct", "e", () => this.tools.take("lasso")),
      tool("Uncertain", "g", () => this.nextRegion(1)),
      tool("Link", "l", () => this.copyLink()),
      tool("PNG", "s", () => this.savePicture()),
      tool("Keys", "h", () => this.keys.toggleHelp()),
    );
  }

  bindKeys() {
    const { keys, state, stage } = this;
    const restyle = (/** @type {() => void} */ change) => () => {
      change();
      this.restyled();
    };
    for (let digit = 1; digit <= 9; digit++) {
      keys.bind([String(digit)], "", () => this.digit(digit));
      keys.bind([`shift+Digit${digit}`], "", restyle(() => {
        const one = state.classes()[digit - 1];
        if (one) state.solo(one.name);
      }));
    }
    keys.shown.push(["1 – 9", "show or hide a class"], ["Shift+1 – 9", "show a class alone, or all again"]);
    keys.bind(["o"], "hide the map, or show it again", restyle(() => (state.isHidden = !state.isHidden)));
    keys.bind([","], "", restyle(() => this.opacity(-0.1)));
    keys.bind(["."], "", restyle(() => this.opacity(0.1)));
    keys.shown.push([", .", "map fainter, stronger"]);
    keys.bind(["b"], "outlines instead of areas", restyle(() => (state.style.outline = !state.style.outline)));
    keys.bind(["p"], "heat map: uncertainty, probability of each class, none", restyle(() => this.nextHeat()));
    keys.bind(["k"], "where the gate shut the class that is shown alone; else where it left one at most", () => this.gate());
    keys.bind(["u"], "hatch what has no class", restyle(() => (state.style.hatch = !state.style.hatch)));
    keys.bind(["d"], "hatch what could not be read, as the slide is damaged there", () => this.unread());
    keys.bind(["g"], "next uncertain region", () => this.nextRegion(1));
    keys.bind(["G"], "the one before", () => this.nextRegion(-1), "Shift+g");
    keys.bind(["v"], "compare maps: one, swipe, side by side", () => this.nextMode());
    keys.bind(["x"], "swap maps A and B", () => this.swap());
    keys.bind(["["], "", () => this.chooseNext(-1));
    keys.bind(["]"], "", () => this.chooseNext(1));
    keys.shown.push(["[ ]", "previous, next slide"]);
    keys.bind(["m"], "measure between two points", () => this.tools.take("measure"));
    keys.bind(["e"], "correct: draw around a region, then press its class (0: none)", () => this.tools.take("lasso"));
    keys.bind(["0"], "", () => this.digit(0));
    keys.bind(["ctrl+z"], "take the last correction back", () => this.attempt(() => this.undo()), "Ctrl+z");
    keys.bind(["Escape"], "end measuring or drawing", () => this.tools.escape(), "Esc");
    keys.bind(["l"], "copy a link to this view", () => this.copyLink());
    keys.bind(["s"], "save the view as PNG", () => this.savePicture());
    keys.bind(["+", "="], "", () => this.zoom(1.5));
    keys.bind(["-"], "", () => this.zoom(1 / 1.5));
    keys.bind(["f", "Home"], "the whole slide", () => stage.home(), "f");
    keys.shown.push(["+ −", "zoom"], ["arrows", "move"]);
    /** @type {Array<[string, number, number]>} */
    const arrows = [["ArrowLeft", -1, 0], ["ArrowRight", 1, 0], ["ArrowUp", 0, -1], ["ArrowDown", 0, 1]];
    for (const [key, x, y] of arrows) keys.bind([key], "", () => this.pan(x, y));
  }

  /** A class's key: shows or hides it, or is the class of a region that was drawn. @param {number} digit */
  digit(digit) {
    const one = this.state.classes()[digit - 1];
    if (this.tools.isClosed) {
      if (digit === 0 || one !== undefined) this.attempt(() => this.correct(one?.name));
      return;
    }
    if (one === undefined) return;
    const own = this.state.styleOf(one.name);
    own.shown = !own.shown;
    this.restyled();
  }

  /** @param {number} change */
  opacity(change) {
    this.state.isHidden = false;
    this.state.opacity = Math.round(10 * Math.min(1, Math.max(0, this.state.opacity + change))) / 10;
  }

  nextHeat() {
    const { style, first } = this.state;
    if (!first.probabilities) return;
    const names = first.classes.map(({ name }) => name);
    const { heat } = style;
    if (heat === null) style.heat = { kind: "uncertainty", name: "" };
    else {
      const next = heat.kind === "uncertainty" ? 0 : names.indexOf(heat.name) + 1;
      style.heat = next < names.length && heat.kind === "probability" || heat.kind === "uncertainty" ? { kind: "probability", name: names[next] } : null;
    }
  }

  gate() {
    const { first } = this.state;
    if (!first.records.gate) {
      return this.say(first.gate === null ? "this map was made without a gate" : "this map does not record where the gate shut classes");
    }
    this.state.toggleGate();
    this.restyled();
  }

  unread() {
    const { first, style } = this.state;
    if (!first.records.unread) return this.say("this map does not record what could not be read");
    if (!first.holes) return this.say("all of this slide that was asked for could be read");
    style.unread = !style.unread;
    this.restyled();
  }

  nextMode() {
    const { state } = this;
    if (state.second === null) return this.say("there is one map of this slide; give two to compare them");
    state.mode = state.mode === "single" ? "swipe" : state.mode === "swipe" ? "side" : "single";
    this.rearranged();
  }

  swap() {
    const { state } = this;
    if (state.second === null) return;
    [state.first, state.second] = [state.second, state.first];
    this.rearranged();
  }

  /** @param {number} factor */
  zoom(factor) {
    const view = this.stage.view();
    if (view !== null) this.stage.moveTo(view, view.scale * factor);
  }

  /** @param {number} factor as of a microscope's objective */
  magnify(factor) {
    const view = this.stage.view();
    if (view !== null) this.stage.moveTo(view, (this.state.case.mpp[0] * factor) / 10);
  }

  /** @param {number} x @param {number} y */
  pan(x, y) {
    const [view, field] = [this.stage.view(), this.stage.field()];
    if (view === null || field === null) return;
    const step = PAN_SHARE * Math.min(field.width, field.height);
    this.stage.moveTo({ x: view.x + x * step, y: view.y + y * step }, view.scale);
  }

  /** @param {number} step */
  nextRegion(step) {
    this.attempt(async () => {
      const { first } = this.state;
      if (!first.probabilities) return this.say("this map was written without probabilities");
      let found = this.regions.get(first.id);
      if (found === undefined) {
        found = /** @type {Field[]} */ ((await get(`/m/${first.id}/uncertain`)).regions);
        this.regions.set(first.id, found);
      }
      if (!found.length) return this.say("nothing is uncertain here");
      this.region = this.region < 0 && step < 0 ? found.length - 1 : (this.region + step + found.length) % found.length;
      const region = /** @type {Field & { mean: number }} */ (found[this.region]);
      this.stage.region = region;
      const stage = byId("stage", HTMLElement);
      const scale = Math.min(stage.clientWidth / region.width, stage.clientHeight / region.height) / 2;
      this.stage.moveTo({ x: region.x + region.width / 2, y: region.y + region.height / 2 }, scale);
      this.stage.redraw();
      this.say(`uncertain region ${this.region + 1} of ${found.length}: mean uncertainty ${region.mean.toFixed(2)}`);
    });
  }

  toolChanged() {
    const { tools, state } = this;
    this.stage?.redraw();
    /** @type {Array<[Tool, string]>} */
    const buttons = [["measure", "tool-m"], ["lasso", "tool-e"]];
    for (const [tool, id] of buttons) document.getElementById(id)?.setAttribute("aria-pressed", String(tools.tool === tool));
    byId("stage", HTMLElement).classList.toggle("with-tool", tools.tool !== "move");
    const prompt = byId("prompt", HTMLElement);
    prompt.hidden = tools.tool === "move";
    const ends = tools.ends.length === 2 ? tools.measure() : null;
    if (ends !== null) this.say(`distance: ${length(distance(ends, state.case.mpp))}`);
    if (tools.tool === "measure") {
      prompt.textContent = tools.ends.length === 1 ? "Click the other end. Esc drops it." : "Measure: click one end. Esc ends.";
    } else if (tools.isClosed) {
      const classes = state.classes().map(({ name }, index) => {
        const key = index < 9 ? element("kbd", {}, String(index + 1)) : null;
        return element("button", { type: "button", dir: "auto", title: name, onclick: () => this.attempt(() => this.correct(name)) }, key, name);
      });
      const size = `${area(enclosed(tools.lasso, state.case.mpp))} mm². What is it? `;
      const count = element("span");
      prompt.replaceChildren(count, size, ...classes, " ", element("kbd", {}, "0"), " none of these ", element("kbd", {}, "Esc"), " drops it");
      this.attempt(() => this.previewLasso(count));
    } else {
      prompt.textContent = "Correct: draw around a region. Esc ends.";
    }
  }

  /** Says in how many patches a training learns of what was drawn. @param {HTMLElement} count */
  async previewLasso(count) {
    const drawn = this.tools.lasso;
    const { patches, labels } = await post(`/m/${this.state.first.id}/corrections/preview`, { points: this.lassoPoints() });
    if (patches === null || this.tools.lasso !== drawn || !this.tools.isClosed) return;
    const few = labels === patches ? "" : `, ${patches - labels} of them too little covered for its label`;
    count.textContent = `${patches} ${patches === 1 ? "patch" : "patches"}${few}, `;
  }

  lassoPoints() {
    return this.tools.lasso.map(({ x, y }) => [Number(x.toFixed(1)), Number(y.toFixed(1))]);
  }

  /** Sends the region that was drawn. @param {string | undefined} name of its class; undefined is none */
  async correct(name) {
    const { first } = this.state;
    const index = first.classes.find((one) => one.name === name)?.index ?? 0;
    if (name !== undefined && index === 0) return this.say(`${isolated(first.name)} has no class ${isolated(name)}`);
    this.stage.corrections = await post(`/m/${first.id}/corrections`, { points: this.lassoPoints(), class: index });
    this.tools.dropLasso();
    this.sayCorrections("saved");
  }

  async undo() {
    this.stage.corrections = await post(`/m/${this.state.first.id}/corrections/undo`, {});
    this.sayCorrections("taken back");
  }

  async readCorrections() {
    this.stage.corrections = await get(`/m/${this.state.first.id}/corrections`);
    this.stage.redraw();
  }

  /** @param {string} what */
  sayCorrections(what) {
    this.stage.redraw();
    const { corrections } = this.stage;
    if (corrections !== null) this.say(`${what}: ${corrections.count} in ${corrections.file}`);
  }

  copyLink() {
    const hash = this.state.toHash(this.stage.view());
    history.replaceState(null, "", hash);
    navigator.clipboard.writeText(location.href).then(
      () => this.say("link copied"),
      () => this.say("the address of this page restores the view; copy it"),
    );
  }

  savePicture() {
    snapshot(this.stage.panes, this.state).toBlob((blob) => {
      if (blob === null) return;
      const link = element("a", { href: URL.createObjectURL(blob), download: `${this.state.case.name}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      this.say(`saved as ${link.download}`);
    });
  }

  /** @param {string} text @param {boolean} [isError] */
  say(text, isError = false) {
    const message = byId("message", HTMLElement);
    message.textContent = text;
    message.classList.toggle("error", isError);
  }

  /** @param {() => Promise<void>} action */
  attempt(action) {
    action().catch((error) => this.say(error instanceof Error ? error.message : String(error), true));
  }
}

try {
  const { cases } = await get("/cases");
  await new View(cases).start();
  document.body.dataset.ready = "yes";
  performance.mark("ready");
} catch (error) {
  byId("stage", HTMLElement).append(element("p", { class: "failed" }, error instanceof Error ? error.message : String(error)));
  throw error;
}
