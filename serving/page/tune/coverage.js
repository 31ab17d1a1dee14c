// Accuracy against coverage: what the draft answers at every reject_below, and how much of it is right.
// The policy in force is a dot, the draft a ring.

import { byId, h, s, say } from "../dom.js";
import { bottomAxis, leftAxis, path, scale, ticks } from "../charts/frame.js";
import * as format from "../format.js";

const LEFT = 52;
const TOP = 12;
const BOTTOM = 26;

/** Draw `draft` and the point of `now`, answers of /policy/coverage; the same unless `edited`. */
export function drawCoverage(svg, { now, draft, edited, pick }) {
  const { clientWidth: width, clientHeight: height } = svg;
  const [right, bottom] = [width - 14, height - BOTTOM];
  const answered = draft.points.filter(({ precision }) => precision !== null);
  const marks = [[edited ? draft.policy : null, "ring"], [now.policy, "dot"]].filter(([point]) => point?.precision != null);
  const least = Math.min(...[...answered, ...marks.map(([point]) => point)].map(({ precision }) => precision));
  const floor = Math.max(Math.floor(least - 2), 0);
  const x = scale([0, 100], [LEFT, right]);
  const y = scale([floor, 100], [bottom, TOP]);
  const within = (value) => Math.min(Math.max(y(value), TOP), bottom);
  const points = answered.map((point) => [x(point.coverage), y(point.precision)]);
  const limits = (side) => answered.map((point) => [x(point.coverage), within(point.precision_interval[side])]);

  svg.setAttribute("aria-busy", false);
  svg.replaceChildren(
    ...leftAxis(ticks(floor, 100, 4), y, LEFT, right, (value) => `${+value.toFixed(1)} %`).flat(),
    s("path", { class: "wash", d: `${path([...limits(0), ...limits(1).reverse()])}Z` }),
    s("path", { class: "line", d: path(points) }),
    ...bottomAxis(ticks(0, 100, Math.min(width / 110, 5)), x, LEFT, right, bottom, (value) => `${value} %`),
    ...marks.flatMap(([point, kind]) => [
      s("line", { class: `drop-line ${kind}`, x1: x(point.coverage), x2: x(point.coverage), y1: TOP, y2: bottom }),
      s("circle", { class: `policy ${kind}`, cx: x(point.coverage), cy: y(point.precision), r: kind === "dot" ? 6 : 8 }),
    ]),
  );
  svg.onclick = (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    const nearest = answered.reduce((best, point) =>
      Math.abs(x(point.coverage) - at) < Math.abs(x(best.coverage) - at) ? point : best);
    pick(nearest.reject_below);
  };
  byId("coverage-figures").replaceChildren(
    h("p", {}, `In force: ${words(now.policy)}`),
    ...(edited ? [h("p", {}, `Draft: ${words(draft.policy)}`)] : []),
  );
  say(byId("coverage-text"),
    `Of all images ${format.accuracy(answered.at(-1).precision)} are answered right; of the surest ` +
    `${format.percent(answered[0].coverage / 100)}, ${format.accuracy(answered[0].precision)}.`);
  const where = draft.estimate === "table" ? "held-out samples" : "samples that certify it";
  say(byId("coverage-source"),
    `${edited ? "The draft" : "The policy"} on ${format.count(draft.samples)} ${where}; the band is the 95 % interval. ` +
    "Images below the limit are answered as unsure. Select a place on the curve to take its limit.");
}

const words = ({ coverage, precision, precision_interval: [low, high] }) =>
  precision === null ? "answers no image." :
    `answers ${format.accuracy(coverage)} of images, ${format.accuracy(precision)} of them right ` +
    `(${format.accuracy(low)} to ${format.accuracy(high)}).`;
