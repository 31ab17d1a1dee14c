// The road: one stage after the other, an off-ramp at each, and the picture that travels along.

import { byId, h, hue, s } from "../dom.js";
import { ExitCard } from "./card.js";

export class Road {
  /** An empty road with a card for every exit of `model`. */
  constructor(model) {
    this.cards = model.exits.map((exit) => new ExitCard(exit, model));
    this.traveller = h("img", { class: "traveller", alt: "", hidden: true });
    this.lane = h("div", { class: "lane", "aria-hidden": "true" }, this.traveller);
    const stops = this.cards.map((card) =>
      h("li", { class: "stop", "data-hue": hue(card.exit), vars: { k: card.exit } }, pieces(card.exit === model.exits.length), card.element),
    );
    byId("road").style.setProperty("--exits", stops.length);
    byId("road").replaceChildren(h("ol", { class: "way" }, stops), this.lane);
  }

  /** Put the picture at `address` at the beginning; every exit waits again. */
  start(address) {
    for (const card of this.cards) card.wait();
    this.traveller.src = address;
    this.traveller.hidden = false;
    this.#move(0, false);
    // Without this the picture would travel back instead of starting again.
    this.lane.classList.add("still");
    this.lane.getBoundingClientRect();
    this.lane.classList.remove("still");
  }

  /** Show the picture at `address` instead, wherever it is. */
  replace(address) {
    this.traveller.src = address;
  }

  /** Show the event of an exit; `left` is where the picture has left already, or null. */
  reach(event, left) {
    this.cards[event.exit - 1].show(event, left);
    if (left === null) this.#move(event.exit, event.left);
  }

  /** The picture has left: nothing is to come but, maybe, exits beyond. */
  finish(left) {
    for (const card of this.cards.slice(left)) card.skip();
  }

  #move(exit, left) {
    this.lane.style.setProperty("--at", exit);
    this.lane.toggleAttribute("data-started", exit > 0);
    this.lane.toggleAttribute("data-left", left);
  }
}

const path = (kind, d) => s("path", { class: kind, d, "vector-effect": "non-scaling-stroke" });

const piece = (kind, straight, ramp) =>
  s("svg", { class: `piece ${kind}`, viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    path("ramp", ramp), path("asphalt", straight), path("paint", straight));

// A stretch of road with its off-ramp, in both directions; the last one ends in the ramp. They reach
// a little over their edges, so that no seam shows.
const pieces = (last) => [
  piece("across", `M-1 27H${last ? 24 : 101}`, "M4 27C30 27 50 40 50 100"),
  piece("down", `M38 -1V${last ? 24 : 101}`, "M38 4C38 16 60 22 100 22"),
];
