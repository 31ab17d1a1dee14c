// What is certified about the answers that are not "unsure", and that a draft loses it.

import { byId, h } from "../dom.js";
import * as format from "../format.js";

/** Show the precision certificate of the policy in force, if it has one: whether the server verified it from
 *  the bundle's table; `edited` if the draft loses it. */
export function showPrecision({ precision_certificate: certificate }, verified, edited) {
  const slot = byId("precision");
  if (!certificate) return slot.replaceChildren();
  if (edited) {
    return slot.replaceChildren(
      h("div", { class: "certificate", "data-lost": true },
        h("p", { class: "figure" }, "These changes lose the certified precision"),
        h("p", { class: "small" }, "The draft's precision is an estimate.")));
  }
  const { min_precision: least, confidence, bound, answered, samples, chosen_on: chosen } = certificate;
  slot.replaceChildren(
    h("div", { class: "certificate" },
      h("p", { class: "figure" }, verified ? "Precision certified" : "Precision not verified here"),
      h("p", { class: "small" },
        `With ${format.percent(confidence)} confidence at least ${+(100 * least).toFixed(4)} % of its answers are right. ` +
        `Bound: ${format.accuracy(100 * bound)}.`),
      h("p", { class: "small quiet" },
        `Chosen on ${format.count(chosen)} samples, certified on ${format.count(answered)} answers to ${format.count(samples)} others.`)));
}
