// What is certified about a policy, and that a change loses it.

import { byId, h } from "../dom.js";
import * as format from "../format.js";

/** Show the certificate of the policy in force, if it has one: whether the server verified it from the
 *  bundle's table; `edited` if the draft differs. */
export function showCertificate(policy, verified, edited) {
  const { certificate } = policy;
  const slot = byId("certificate");
  // Its place is kept without one too, so that nothing jumps when one comes or goes.
  if (!certificate) {
    return slot.replaceChildren(
      h("div", { class: "certificate", "data-none": true },
        h("p", { class: "figure" }, "Not certified"),
        h("p", { class: "small" }, "Its accuracy is an estimate. offramp tune --confidence 0.95 looks for a policy that holds what it promises.")));
  }
  const { confidence, bound, permitted_drop: permitted, against, samples, chosen_on: chosen, target } = certificate;
  const promise = target === "agreement"
    ? `it answers otherwise than the ${against} for at most ${permitted} % of images`
    : `it is at most ${permitted} ${permitted === 1 ? "point" : "points"} less accurate than the ${against}`;
  return slot.replaceChildren(
    h("div", { class: "certificate", "data-lost": edited },
      h("p", { class: "figure" }, edited ? "These changes lose the certificate" : verified ? "Certified" : "Certificate not verified here"),
      h("p", { class: "small" },
        `With ${format.percent(confidence)} confidence ${promise}. Bound: ${bound.toFixed(2)} points.`),
      h("p", { class: "small quiet" },
        `Chosen on ${format.count(chosen)} samples, certified on ${format.count(samples)} others. ` +
        (verified ? "" : "It cannot be redone from this bundle's calibration table. ") +
        `It says nothing about the accuracy of the ${against} itself.`)));
}
