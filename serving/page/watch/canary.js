// A canary beside the stable version: both sides, and the buttons that end it.

import { promoteCanary, readCanary, rollBackCanary } from "../api.js";
import { byId, h, say } from "../dom.js";
import * as format from "../format.js";
import { askForKey, forgetQuestion } from "../key.js";
import { model, refresh } from "../models.js";
import { clearNotice, explain } from "../notice.js";
import { values } from "./parse.js";
import { table } from "./tables.js";

const SHOWN = 3;
const COLUMNS = ["Side", "Version", "Requests", "Failed", "Mean", "p99", "p50 in stages", "p95 in stages", "Exit shares"];
const NONE = "–";

export function startCanary() {
  byId("promote").addEventListener("click", () => end(promoteCanary));
  byId("roll-back").addEventListener("click", () => end(rollBackCanary));
}

/** Show the canary of `model`, or how the last ones ended, if the server had any, by `metrics`. */
export async function showCanary(name, metrics) {
  const had = ["offramp_canary_share", "offramp_canary_ended_total"]
    .some((metric) => values(metrics, metric, "model").includes(name));
  if (!had) byId("canary-card").hidden = true;
  else show(await readCanary(name));
}

async function end(call) {
  const { name } = model();
  const slot = byId("canary-notice");
  try {
    show(await call(name));
    clearNotice(slot);
    forgetQuestion();
    refresh();
  } catch (error) {
    if (error.kind === "unauthorised") askForKey(error.message, () => end(call), byId("canary-key"));
    else explain(slot, error, () => end(call));
  }
}

function show({ sentence, running, ended }) {
  byId("canary-card").hidden = false;
  say(byId("canary"), sentence);
  byId("canary-running").hidden = !running;
  if (running) {
    table("canary-table", COLUMNS, [row("Stable", running.stable), row("Canary", running.canary)]);
    say(byId("canary-agreement"), agreement(running.disagreements));
  }
  byId("canaries").replaceChildren(...ended.slice(0, SHOWN).map(({ at, sentence: how, report }) =>
    h("li", {}, `${new Date(at).toLocaleTimeString()}: version ${report.canary.version}. ${how}`)));
}

const ms = (value) => (value == null ? NONE : format.ms(value));

function row(role, side) {
  const shares = side.requests ? side.exit_shares.map(format.percent).join(", ") : NONE;
  return [role, side.version, format.count(side.requests), format.count(side.errors),
    ms(side.mean_ms), ms(side.p99_ms), ms(side.stages_p50_ms), ms(side.stages_p95_ms), shares];
}

function agreement({ count, events, interval: [low, high] }) {
  if (!count) return "Agreement was not measured yet.";
  const [from, to, share] = [1 - high, 1 - low, 1 - events / count].map(format.percent);
  return `Agreement: ${share} of ${format.count(count)} mirrored images, interval ${from} to ${to}.`;
}
