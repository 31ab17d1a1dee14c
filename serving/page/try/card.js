// One exit's card: what it predicts, its confidence, whether the image left there, and what that cost.

import { h, hue, say } from "../dom.js";
import * as format from "../format.js";
import { Heat } from "./heat.js";

const ROWS = 5;
/** The policy's measures, as the page names them. */
export const MEASURES = { max_prob: "probability", margin: "margin", entropy: "entropy" };
const STATES = {
  waiting: "not reached yet",
  passed: "below threshold",
  crossed: "passed",
  left: "left here",
  beyond: "after the answer",
  skipped: "not run",
};

export class ExitCard {
  constructor({ exit, macs }, model) {
    this.exit = exit;
    this.policy = model.policy;
    this.macs = macs;
    this.state = h("p", { class: "state" });
    this.sure = h("p", { class: "sure small" });
    this.meter = h("div", { class: "meter", "aria-hidden": "true" }, h("i"), h("b"));
    this.rows = Array.from({ length: Math.min(ROWS, model.classes) }, row);
    this.cost = h("p", { class: "cost small quiet" });
    this.heat = new Heat(exit, model.input);
    this.element = h("div", { class: "exit", "data-hue": hue(exit) },
      h("div", { class: "sign" }, h("h3", {}, `Exit ${exit}`), this.state),
      this.meter, this.sure, this.heat.element,
      h("ol", { class: "classes" }, this.rows.map(({ element }) => element)),
      this.cost);
    this.wait();
  }

  wait() {
    this.#become("waiting");
    this.meter.style.setProperty("--sure", 0);
    this.meter.style.setProperty("--needed", this.#needed() ?? 2);
    say(this.sure, this.#needed() === null ? "no threshold here" : `leaves at ${format.threshold(this.#needed())}`);
    for (const { set } of this.rows) set(null);
    say(this.cost, `${format.macs(this.macs)} MACs`);
  }

  /** Show the event; `left` is the exit that the picture has left at before, or null. */
  show(event, left) {
    this.#become(left !== null ? "beyond" : event.left ? "left" : this.#needed() === null ? "crossed" : "passed");
    const needed = this.#needed();
    const { name, value } = event.measure;
    this.meter.style.setProperty("--sure", needed === null ? event.confidence : value);
    say(this.sure, needed === null
      ? `confidence ${format.share(event.confidence)}`
      : `${MEASURES[name]} ${format.share(value)}, leaves at ${format.threshold(needed)}`);
    this.rows.forEach(({ set }, place) => set(event.top_k[place] ?? null));
    say(this.cost, `${format.macs(event.macs)} MACs, ${format.ms(event.compute_ms)}`);
  }

  skip() {
    if (this.element.dataset.state === "waiting") this.#become("skipped");
  }

  // The threshold that counts here, or null where the policy asks none.
  #needed() {
    const { mode, thresholds, max_exit } = this.policy;
    return mode === "early_exit" && this.exit < max_exit ? thresholds[this.exit - 1] : null;
  }

  #become(state) {
    this.element.dataset.state = state;
    say(this.state, STATES[state]);
  }
}

function row() {
  const name = h("span", { class: "name" });
  const value = h("span", { class: "value" });
  const element = h("li", {}, name, value, h("i", { "aria-hidden": "true" }));
  const set = (candidate) => {
    say(name, candidate ? format.words(candidate.label) : "");
    say(value, candidate ? format.percent(candidate.probability) : "");
    element.style.setProperty("--share", candidate?.probability ?? 0);
  };
  return { element, set };
}
