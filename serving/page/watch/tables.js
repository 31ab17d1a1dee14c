// The tables: exits, stages, models.

import { byId, h, key } from "../dom.js";
import * as format from "../format.js";
import { mean, quantile, rate, shares } from "./history.js";
import { total } from "./parse.js";

const DURATION = "offramp_request_duration_seconds";
const NONE = "–";

const or = (words, value) => (value == null ? NONE : words(value));
const seconds = (value) => or((time) => format.ms(1000 * time), value);

/** Fill the table `id`; the first cell of each row is its head. */
export function table(id, columns, rows) {
  byId(id).replaceChildren(
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(([head, ...cells]) =>
      h("tr", {}, h("th", { scope: "row" }, head), cells.map((cell) => h("td", {}, cell))))),
  );
}

/** A row for each exit: its share, and how long requests took that went that deep. */
export function exitsTable(window, model) {
  const share = window && shares(window, model.name, model.exits.length);
  table("exits-table", ["Exit", "Share", "p50", "p95", "p99", "Accuracy"],
    model.exits.map(({ exit, accuracy }) => {
      const wanted = { model: model.name, exit: String(exit) };
      const times = [0.5, 0.95, 0.99].map((q) => seconds(window && quantile(window, DURATION, q, wanted)));
      return [[key(exit), `Exit ${exit}`], or(format.percent, share?.[exit - 1]), ...times, format.accuracy(accuracy)];
    }));
}

/** A row for each stage: its batches, their mean size and time, and the images queued. */
export function stagesTable(window, now, model) {
  table("stages-table", ["Stage", "Batches / s", "Mean batch size", "Mean batch time", "Queued"],
    model.exits.map(({ exit: stage }) => {
      const wanted = { model: model.name, stage: String(stage) };
      return [[key(stage), `Stage ${stage}`],
        or(format.amount, window && rate(window, "offramp_stage_duration_seconds_count", wanted)),
        or(format.amount, window && mean(window, "offramp_stage_batch_size", wanted)),
        seconds(window && mean(window, "offramp_stage_duration_seconds", wanted)),
        format.count(queued(now.metrics, model.name, stage))];
    }));
}

/** Images queued for `stage`, or for any stage. */
export const queued = (metrics, model, stage) =>
  total(metrics, "offramp_queue_depth", { model, ...(stage && { stage: String(stage) }) });

/** A row for each model loaded. */
export function modelsTable(models, metrics) {
  table("models-table", ["Model", "Version", "Precision", "Provider", "Classes", "Exits", "Policy", "Revision"],
    models.map((model) => [model.name, model.version, model.precision, format.words(model.provider),
      format.count(model.classes), format.count(model.exits.length), rule(model),
      format.count(total(metrics, "offramp_policy_revision", { model: model.name }) || model.policy_revision)]));
}

// A policy in a line: one threshold if all exits share it, else one for each exit, in order.
function rule({ policy: { mode, thresholds, max_exit: deepest, certificate }, certificate_verified: verified }) {
  if (mode !== "early_exit") return mode === "ensemble" ? `ensemble to exit ${deepest}` : `exit ${deepest} alone`;
  const used = thresholds.slice(0, deepest - 1).map(format.threshold);
  const shared = new Set(used).size === 1 ? used.slice(0, 1) : used;
  return `${shared.join(", ") || "exit 1"}${certificate && verified ? ", certified" : ""}`;
}
