// What is certified about a policy, and that a change loses it.

import { byId, h } from "../dom.js";
import * as format from "../format.js";

/** Show the certificate of the policy in force, if it has one; `edited` if the draft differs. */
export function showCertificate(policy, edited) {
  const { certificate } = policy;
  const slot = byId("certificate");
  if (!certificate) return slot.replaceChildren();
  const { confidence, bound, permitted_drop: permitted, against, samples, chosen_on: chosen, target } = certificate;
  const promise = target === "agreement"
    ? `it answers otherwise than the ${against} for at most ${permitted} % of images`
    : `it is at most ${permitted} ${permitted === 1 ? "point" : "points"} less accurate than the ${against}`;
  return slot.replaceChildren(
    h("div", { class: "certificate", "data-lost": edited },
      h("p", { class: "figure" }, edited ? "These changes lose the certificate" : "Certified"),
      h("p", { class: "small" },
        `With ${format.percent(confidence)} confidence ${promise}. Bound: ${bound.toFixed(2)} points.`),
      h("p", { class: "small quiet" },
        `Chosen on ${format.count(chosen)} samples, certified on ${format.count(samples)} others.`)));
}
