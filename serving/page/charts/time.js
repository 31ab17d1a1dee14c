// Charts of the last minutes: lines, and areas of shares.

import { hue, s } from "../dom.js";
import { bottomAxis, leftAxis, path, roof, scale, stack, ticks } from "./frame.js";

const LEFT = 52;
const TOP = 8;
const BOTTOM = 24;

const minutes = (seconds) => (seconds === 0 ? "now" : `−${-seconds / 60} min`);

function place(svg, span, peak, words, steps) {
  const { clientWidth: width, clientHeight: height } = svg;
  const x = scale([-span, 0], [LEFT, width - 8]);
  const y = scale([0, peak], [height - BOTTOM, TOP]);
  const step = width < 420 ? span / 2 : 60;
  const marks = Array.from({ length: span / step + 1 }, (_, i) => -span + step * i);
  svg.replaceChildren(
    ...leftAxis(steps, y, LEFT, width - 8, words).flat(),
    ...bottomAxis(marks, x, LEFT, width - 8, height - BOTTOM, minutes),
  );
  return { x, y, width, height };
}

function blank(svg, { width, height }, text) {
  svg.append(s("text", { class: "empty", x: (width + LEFT) / 2, y: (height - BOTTOM) / 2 }, text));
}

/** `series` of {points: [[seconds, value] or null …], exit or class}; seconds are at most 0. */
export function drawLines(svg, { span, series, words, empty, least = 0 }) {
  const values = series.flatMap(({ points }) => points.filter(Boolean).map(([, value]) => value));
  const peak = roof(Math.max(least, ...values));
  const frame = place(svg, span, peak, words, ticks(0, peak, 3));
  for (const { points, exit, kind = "" } of series) {
    const d = path(points.map((point) => point && [frame.x(point[0]), frame.y(point[1])]));
    svg.append(s("path", { class: `line ${kind}`, "data-hue": exit && hue(exit), d }));
  }
  if (!values.length) blank(svg, frame, empty);
}

/** `rows` of [seconds, shares] or null, where there was nothing to share. */
export function drawShares(svg, { span, rows, words, empty }) {
  const frame = place(svg, span, 1, words, [0, 0.5, 1]);
  let run = [];
  for (const row of [...rows, null]) {
    if (row) run.push({ x: frame.x(row[0]), shares: row[1] });
    else {
      svg.append(...stack(run, frame.y, hue));
      run = [];
    }
  }
  if (!rows.some(Boolean)) blank(svg, frame, empty);
}
