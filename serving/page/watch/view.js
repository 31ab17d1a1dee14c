// Watch it: /metrics every two seconds, as tiles, charts and tables, the tests for drift, the gears, and a canary.

import { readDrift, readMetrics } from "../api.js";
import { drawLines, drawShares } from "../charts/time.js";
import { drawWhenSized } from "../charts/frame.js";
import { byId, h, key, say } from "../dom.js";
import * as format from "../format.js";
import { all, link, lookAgain, model, onModel, refresh } from "../models.js";
import { clearNotice, explain } from "../notice.js";
import { EVERY, History, SPAN, quantile, rate, shares } from "./history.js";
import { showCanary, startCanary } from "./canary.js";
import { showGears } from "./gears.js";
import { exitsTable, modelsTable, queued, stagesTable } from "./tables.js";
import { showShadow } from "./shadow.js";

const DURATION = "offramp_request_duration_seconds";
const RATE_WINDOW = 10;
const SHARE_WINDOW = 20;
const history = new History();
const tiles = new Map();
let reachable = true;

const NAMES = [
  ["rate", "Requests per second"], ["p50", "p50 latency"], ["p99", "p99 latency"],
  ["queue", "Queue depth"], ["rejected", "Rejected per minute"],
];

export function startWatch() {
  for (const [id, name] of NAMES) {
    tiles.set(id, h("dd", { class: "big" }, "–"));
    byId("tiles").append(h("div", { class: "card" }, h("dt", { class: "quiet small" }, name), tiles.get(id)));
  }
  for (const id of ["rate-chart", "share-chart", "latency-chart", "queue-chart"]) drawWhenSized(byId(id), draw);
  onModel((model) => {
    const legend = (word) => model.exits.map(({ exit }) => h("li", {}, key(exit), `${word} ${exit}`));
    for (const list of document.querySelectorAll(".exits-legend")) list.replaceChildren(...legend("exit"));
    const all = h("li", {}, h("i", { class: "key rule" }), "all");
    document.querySelector(".stages-legend").replaceChildren(all, ...legend("stage"));
    showWatch();
  });
  startCanary();
  poll();
}

export function showWatch() {
  draw();
  showDrift();
}

async function poll() {
  // Polled whatever the view, so that the last minutes are there when it is opened.
  if (!document.hidden) await look();
  setTimeout(poll, EVERY * 1000);
}

async function look() {
  const slot = byId("watch-notice");
  try {
    history.add(await readMetrics(), performance.now() / 1000);
    if (!reachable) {
      clearNotice(slot);
      refresh();
    }
    reachable = true;
    if (all().length) link("live");
    lookAgain(history.now.metrics);
    draw();
    await showDrift();
  } catch (error) {
    if (reachable) explain(slot, error, look);
    reachable = false;
    link("offline");
  }
}

function draw() {
  if (!model() || !history.now || byId("watch").hidden) return;
  const { name } = model();
  const window = history.window();
  drawTiles(name);
  drawCharts(name);
  exitsTable(window, model());
  stagesTable(window, history.now, model());
  modelsTable(all(), history.now.metrics);
}

// Asked for only while the view is open: it is a sentence about now, without a chart.
async function showDrift() {
  if (!model() || byId("watch").hidden) return;
  const { name } = model();
  const line = byId("drift");
  try {
    const { sentence, status } = await readDrift(name);
    if (name !== model()?.name) return;
    say(line, sentence);
    if (history.now) {
      await showGears(name, history.now.metrics);
      await showCanary(name, history.now.metrics);
    }
    line.toggleAttribute("data-drifting", status?.signals.some(({ drifting }) => drifting) ?? false);
    if (history.now) await showShadow(name, history.now.metrics);
  } catch (error) {
    // The model may be unloaded by now. Whether the server answers is shown above, from /metrics.
    say(line, error.message);
  }
}

function drawTiles(name) {
  const recent = history.window(RATE_WINDOW);
  const whole = history.window();
  const time = (q) => {
    const value = whole && quantile(whole, DURATION, q, { model: name });
    return value == null ? "–" : format.ms(1000 * value);
  };
  say(tiles.get("rate"), recent ? format.amount(rate(recent, "offramp_requests_total", { model: name })) : "–");
  say(tiles.get("p50"), time(0.5));
  say(tiles.get("p99"), time(0.99));
  say(tiles.get("queue"), format.count(queued(history.now.metrics, name)));
  say(tiles.get("rejected"), recent ? format.amount(60 * rate(recent, "offramp_rejected_total")) : "–");
}

function drawCharts(name) {
  const exits = model().exits.map(({ exit }) => exit);
  const over = (seconds, derive) => history.series(seconds, derive);
  const frame = { span: SPAN, empty: "No requests in the last five minutes" };
  const requests = (outcome) => (window) => rate(window, "offramp_requests_total", { model: name, ...outcome });
  const failed = (window) => requests({})(window) - requests({ outcome: "ok" })(window);
  const failures = over(RATE_WINDOW, failed);
  drawLines(byId("rate-chart"), { ...frame, words: format.tick, series: [
    { points: over(RATE_WINDOW, requests({ outcome: "ok" })) },
    ...(failures.some((point) => point?.[1] > 0) ? [{ points: failures, kind: "errors" }] : []),
  ] });
  drawShares(byId("share-chart"), { ...frame, words: format.percent,
    rows: over(SHARE_WINDOW, (window) => shares(window, name, exits.length)) });
  drawLines(byId("latency-chart"), { ...frame, words: (value) => `${format.tick(value)} ms`, series: exits.map((exit) => ({
    exit,
    points: over(SHARE_WINDOW, (window) => {
      const value = quantile(window, DURATION, 0.95, { model: name, exit: String(exit) });
      return value === null ? null : 1000 * value;
    }),
  })) });
  drawLines(byId("queue-chart"), { ...frame, words: format.tick, least: 4, series: [
    { points: over(RATE_WINDOW, ({ to }) => queued(to.metrics, name)) },
    ...exits.map((exit) => ({ exit, points: over(RATE_WINDOW, ({ to }) => queued(to.metrics, name, exit)) })),
  ] });
}
