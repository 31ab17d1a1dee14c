// The gears under a latency target: the current one, and the last shifts.

import { readGears } from "../api.js";
import { byId, h, say } from "../dom.js";
import { values } from "./parse.js";

const SHOWN = 5;
const REASONS = { wait: "long wait", p99: "p99 over the target", calm: "calm" };

/** Show the gears of `model` if the server has any for it, by `metrics`. */
export async function showGears(model, metrics) {
  const card = byId("gears-card");
  card.hidden = !values(metrics, "offramp_gear", "model").includes(model);
  if (card.hidden) return;
  const { sentence, status } = await readGears(model);
  say(byId("gears"), sentence);
  byId("shifts").replaceChildren(...(status?.shifts ?? []).slice(0, SHOWN).map(({ at, before, after, reason }) =>
    h("li", {}, `${new Date(at).toLocaleTimeString()}: gear ${before} to ${after}, ${REASONS[reason]}`)));
}
