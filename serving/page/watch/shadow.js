// The shadow checks: how often each exit agrees with full depth, and the last raises of thresholds.

import { readShadow } from "../api.js";
import { byId, h, key, say } from "../dom.js";
import * as format from "../format.js";
import { values } from "./parse.js";

const SHOWN = 5;

/** Show the checks of `model` if the server has any for it, by `metrics`. */
export async function showShadow(model, metrics) {
  const card = byId("shadow-card");
  card.hidden = !values(metrics, "offramp_agreement_promised", "model").includes(model);
  if (card.hidden) return;
  const { sentence, status } = await readShadow(model);
  say(byId("shadow"), sentence);
  byId("shadow-exits").replaceChildren(...(status?.exits ?? []).map(line));
  byId("raises").replaceChildren(...(status?.raises ?? []).slice(0, SHOWN).map((raise) =>
    h("li", {}, `${new Date(raise.at).toLocaleTimeString()}: ${raise.sentence}`)));
}

function line({ exit, promised, span }) {
  const found = span ? `${format.accuracy(100 * span.low)} to ${format.accuracy(100 * span.high)} of its images` : "no images yet";
  return h("li", {}, key(exit), `Exit ${exit} agrees with full depth on ${found}; at least ${format.accuracy(100 * promised)} promised`);
}
