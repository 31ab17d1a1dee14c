// The trade-off curve: accuracy against mean compute for one shared threshold, and below it, on the
// same axis, exit shares. The policy in force is a dot, the draft a ring, each with a bar of its own
// exit shares: its thresholds may differ by exit, so that the areas of the curve are not its shares.

import { byId, h, hue, key, s, say } from "../dom.js";
import { bottomAxis, leftAxis, path, scale, stack, ticks } from "../charts/frame.js";
import * as format from "../format.js";

const LEFT = 52;
const TOP = 16;
const BOTTOM = 26;
const BETWEEN = 22;
const SHARES = 0.26;
const BAR = 14;

/** Draw `tradeoff` with `unit` "macs" or "ms"; `now` and `draft` are previews, `edited` if they differ. */
export function drawCurve(svg, { tradeoff, unit, now, draft, edited, pick }) {
  const { clientWidth: width, clientHeight: height } = svg;
  const cost = unit === "ms" ? "mean_ms" : "mean_macs";
  const words = unit === "ms" ? format.ms : format.macs;
  const tick = unit === "ms" ? (value) => `${format.tick(value)} ms` : format.macsTick;
  const costs = tradeoff[unit];
  const right = width - 14;
  const bottom = height - BOTTOM;
  const floor = TOP + (bottom - TOP) * (1 - SHARES) - BETWEEN / 2;

  const [cheap, dear] = [costs[0], costs.at(-1)];
  const margin = (dear - cheap) * 0.04;
  const x = scale([cheap - margin, dear + margin], [LEFT, right]);
  const seen = [...tradeoff.points, now, draft].map(({ accuracy }) => accuracy);
  const heights = [...seen, ...tradeoff.exit_accuracy, tradeoff.full_depth_accuracy];
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const limits = (side) => tradeoff.points.map((point) => [
    x(point[cost]), Math.min(Math.max(y(tradeoff.full_depth_accuracy - point.drop_interval[side]), TOP), floor),
  ]);
  const spare = Math.max((high - low) * 0.08, 0.25);
  const y = scale([low - spare, high + spare], [floor, TOP]);
  const share = scale([0, 1], [bottom, floor + BETWEEN]);
  const points = tradeoff.points.map((point) => [x(point[cost]), y(point.accuracy)]);
  const rows = tradeoff.points.map((point) => ({ x: x(point[cost]), shares: point.exit_shares }));
  const full = tradeoff.full_depth_accuracy;

  svg.replaceChildren(
    ...leftAxis(ticks(low, high, 4), y, LEFT, right, (value) => `${+value.toFixed(2)} %`).flat(),
    s("line", { class: "reference", x1: LEFT, x2: right, y1: y(full), y2: y(full) }),
    s("path", { class: "wash", d: `${path([...limits(0), ...limits(1).reverse()])}Z` }),
    s("path", { class: "line", d: path(points) }),
    ...costs.map((value, k) => exitMark(x(value), y(tradeoff.exit_accuracy[k]), k + 1)),
    ...leftAxis([0, 1], share, LEFT, right, format.percent).flat(),
    ...stack(rows, share, hue),
    ...bottomAxis(ticks(cheap, dear, Math.min(width / 110, 6)), x, LEFT, right, bottom, tick),
    ...[[edited ? draft : null, "ring"], [now, "dot"]].filter(([preview]) => preview)
      .flatMap(([preview, kind]) => policyMark(x(preview[cost]), y(preview.accuracy), kind, floor)
        .concat(sharesBar(x(preview[cost]), preview.exit_shares, kind, share))),
  );
  svg.onclick = (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    const nearest = points.reduce((best, [px], i) => (Math.abs(px - at) < Math.abs(points[best][0] - at) ? i : best), 0);
    pick(tradeoff.points[nearest].threshold);
  };
  say(byId("curve-text"),
    `Accuracy from ${format.accuracy(tradeoff.points[0].accuracy)} at ${words(tradeoff.points[0][cost])} to ` +
    `${format.accuracy(tradeoff.points.at(-1).accuracy)} at ${words(tradeoff.points.at(-1)[cost])}. The policy in force: ` +
    `${format.accuracy(now.accuracy)} at ${words(now[cost])}.`);
}

/** What the marks mean, and on what the curve was measured. */
export function drawLegend(tradeoff, edited) {
  const entry = (kind, text) => h("li", {}, h("i", { class: `key ${kind}` }), text);
  byId("curve-legend").replaceChildren(
    entry("rule", "one threshold for all exits"),
    entry("wash", "95 % interval of its drop"),
    entry("dot", "in force"),
    ...(edited ? [entry("ring", "draft")] : []),
    entry("dash", "full depth"),
    ...tradeoff.macs.map((_, k) => h("li", {}, key(k + 1), `exit ${k + 1}`)),
  );
  say(byId("curve-source"),
    `Measured on ${format.count(tradeoff.samples)} ${tradeoff.split.replaceAll("_", "-")} samples. ` +
    "Diamonds are single exits. Below, the share of images that leave at each: areas for the curve, bars for the policy. " +
    "Select a place on the curve to take its threshold.");
}

const exitMark = (x, y, exit) =>
  s("g", { "data-hue": hue(exit) },
    s("path", { class: "diamond", d: `M${x} ${y - 7}l7 7l-7 7l-7 -7Z` }),
    s("text", { class: "strong", x, y: y + 21, "text-anchor": "middle" }, exit));

const policyMark = (x, y, kind, floor) => [
  s("line", { class: `drop-line ${kind}`, x1: x, x2: x, y1: TOP, y2: floor }),
  s("circle", { class: `policy ${kind}`, cx: x, cy: y, r: kind === "dot" ? 6 : 8 }),
];

// A policy's exit shares at its cost, stacked as the areas are.
function sharesBar(x, shares, kind, scaled) {
  const left = x - BAR / 2;
  let below = 0;
  const pieces = shares.map((amount, k) => {
    const [foot, top] = [scaled(below), scaled(below + amount)];
    below += amount;
    return s("rect", { "data-hue": hue(k + 1), x: left, y: top, width: BAR, height: foot - top });
  });
  const frame = s("rect", { class: "frame", x: left, y: scaled(1), width: BAR, height: scaled(0) - scaled(1) });
  return s("g", { class: `shares-bar ${kind}` }, pieces, frame);
}
