// What the draft would do, beside what the policy in force does: accuracy, compute, exit shares.

import { byId, h, hue, say } from "../dom.js";
import * as format from "../format.js";

/** Show `now` and `then`, answers of /policy/preview; the same unless `edited`. */
export function showForecast(now, then, edited) {
  byId("forecast").replaceChildren(
    h("dl", { class: "figures" },
      figure("Accuracy", format.accuracy(then.accuracy), change(now, then, "accuracy", format.points, 1)),
      figure("Mean MACs", format.macs(then.mean_macs), relative(now.mean_macs, then.mean_macs)),
      figure("Mean time", then.mean_ms == null ? "–" : format.ms(then.mean_ms),
        then.mean_ms == null ? "not measured" : relative(now.mean_ms, then.mean_ms))),
    h("p", { class: "quiet small" }, drop(then.drop), interval(then.drop_interval),
      `, ${MEASURED[then.estimate](`${format.count(then.samples)} held-out samples`)}`),
    bars("Now", now.exit_shares),
    edited ? bars("Draft", then.exit_shares) : h("div"),
  );
}

/** The same in one sentence, for a screen reader, once the sliders rest. */
export function tellForecast(then) {
  const shares = then.exit_shares.map((share, k) => `exit ${k + 1} ${format.percent(share)}`).join(", ");
  say(byId("forecast-text"),
    `Accuracy ${format.accuracy(then.accuracy)}, mean compute ${format.macs(then.mean_macs)} MACs; ${shares}.`);
}

const drop = (value) =>
  Math.abs(value) < 0.005 ? "As accurate as full depth"
    : `${format.points(Math.abs(value)).replace("+", "")} points ${value > 0 ? "below" : "above"} full depth`;

const MEASURED = {
  table: (samples) => `on ${samples}`,
  certification: (samples) => `on the ${samples} that certify it`,
  cross_validated: (samples) => `cross-validated on ${samples}`,
};

/** The 95 % interval of a drop, [low, high]; nothing where it has no width. */
const interval = ([low, high]) =>
  low === high ? "" : ` (95 % interval ${format.points(low)} to ${format.points(high)})`;

const figure = (name, value, more) =>
  h("div", {}, h("dt", { class: "quiet small" }, name), h("dd", { class: "big" }, value), h("dd", { class: "small" }, more));

function change(now, then, field, words, better) {
  const difference = then[field] - now[field];
  if (Math.abs(difference) < 0.005) return mark("unchanged", 0);
  return mark(`${words(difference)} points`, Math.sign(difference) * better);
}

function relative(now, then) {
  const ratio = then / now - 1;
  if (Math.abs(ratio) < 0.001) return mark("unchanged", 0);
  return mark(`${ratio > 0 ? "+" : "−"}${format.percent(Math.abs(ratio))}`, -Math.sign(ratio));
}

const mark = (text, sign) => h("span", { class: sign > 0 ? "better" : sign < 0 ? "worse" : "quiet" }, text);

function bars(name, shares) {
  const words = shares.map((share, k) => `exit ${k + 1}: ${format.percent(share)}`).join(", ");
  return h("div", { class: "bars" }, h("span", { class: "quiet small" }, name),
    h("div", { class: "shares", role: "img", "aria-label": `${name}: ${words}` },
      shares.map((share, k) => h("i", { "data-hue": hue(k + 1), vars: { share } }))));
}
