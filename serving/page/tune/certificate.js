// What is certified about the policy in force, and that a draft loses it.

import { byId, h } from "../dom.js";
import * as format from "../format.js";

/** Show the certificate of the policy in force, if it has one: whether the server verified it from the
 *  bundle's table; `edited` if the draft loses it. */
export function showCertificate(policy, verified, edited) {
  const { certificate } = policy;
  const slot = byId("certificate");
  // Its place is kept without one too, so that nothing jumps when one comes or goes.
  if (!certificate) {
    return slot.replaceChildren(
      h("div", { class: "certificate", "data-none": true },
        h("p", { class: "figure" }, "Not certified"),
        h("p", { class: "small" }, "Its accuracy is an estimate. offramp tune --confidence 0.95 finds a policy with a certified accuracy.")));
  }
  if (edited) {
    return slot.replaceChildren(
      h("div", { class: "certificate", "data-lost": true },
        h("p", { class: "figure" }, "These changes lose the certificate"),
        h("p", { class: "small" }, "The draft's accuracy is an estimate. Discard the changes to keep the certificate.")));
  }
  const { confidence, bound, permitted_drop: permitted, against, samples, chosen_on: chosen, target } = certificate;
  const promise = target === "agreement"
    ? `it disagrees with the ${against} on at most ${permitted} % of images`
    : `it is at most ${permitted} ${permitted === 1 ? "point" : "points"} less accurate than the ${against}`;
  return slot.replaceChildren(
    h("div", { class: "certificate" },
      h("p", { class: "figure" }, verified ? "Certified" : "Certificate not verified here"),
      h("p", { class: "small" },
        `With ${format.percent(confidence)} confidence ${promise}. Bound: ${bound.toFixed(2)} points.`),
      h("p", { class: "small quiet" },
        `Chosen on ${format.count(chosen)} samples, certified on ${format.count(samples)} others. ` +
        (verified ? "" : "It cannot be verified from this bundle's calibration table. ") +
        `It says nothing about the accuracy of the ${against} itself.`)));
}
