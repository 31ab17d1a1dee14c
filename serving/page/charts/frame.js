// What every chart has: a place in pixels, scales, an axis below and one at the left.

import { s } from "../dom.js";

/** Call `draw` when `svg` gets a size or another one. */
export function drawWhenSized(svg, draw) {
  new ResizeObserver(() => svg.clientWidth && draw()).observe(svg);
}

/** A linear scale from `domain` to `range`. */
export function scale([from, to], [low, high]) {
  const size = to - from || 1;
  return (value) => low + ((value - from) / size) * (high - low);
}

/** About `wanted` round numbers from `low` to `high`. */
export function ticks(low, high, wanted = 4) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** The least round number that is not below `value`. */
export function roof(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((x) => x * power).find((x) => x >= value * 0.999);
}

/** Lines and words of an axis at the left: `values` at `y`, from `left` to `right`. */
export const leftAxis = (values, y, left, right, words) =>
  values.map((value) => [
    s("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    s("text", { x: left - 8, y: y(value), "text-anchor": "end", "dominant-baseline": "central" }, words(value)),
  ]);

/** Words of an axis below; `bottom` is its line. Words that would touch the last ones are left out. */
export function bottomAxis(values, x, left, right, bottom, words) {
  const nodes = [s("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom })];
  let free = -Infinity;
  for (const value of values) {
    const label = words(value);
    const half = label.length * 3.6;
    const at = Math.min(Math.max(x(value), left + half / 2), right - half);
    if (at - half < free) continue;
    free = at + half + 6;
    nodes.push(s("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, label));
  }
  return nodes;
}

/** The path through [x, y] pairs; null lifts the pen. */
export const path = (points) =>
  points.map((point, i) => (point ? `${points[i - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}` : "")).join("");

/** Closed areas, one for each exit, stacked from `rows` of {x, shares}; `y` scales 0..1. */
export function stack(rows, y, hue) {
  const exits = rows[0]?.shares.length ?? 0;
  const sums = rows.map(({ shares }) => shares.reduce((all, share) => [...all, all.at(-1) + share], [0]));
  return Array.from({ length: exits }, (_, k) => {
    const upper = rows.map(({ x }, i) => [x, y(sums[i][k + 1])]);
    const lower = rows.map(({ x }, i) => [x, y(sums[i][k])]).reverse();
    return s("path", { class: "area", "data-hue": hue(k + 1), d: `${path([...upper, ...lower])}Z` });
  });
}
