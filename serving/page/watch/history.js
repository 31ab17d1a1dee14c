// What /metrics said over the last five minutes, kept in memory, and what follows from it.

import { parse, total, values } from "./parse.js";

export const SPAN = 300;
export const EVERY = 2;

/** Snapshots in the order they came; `at` is in seconds. */
export class History {
  #kept = [];

  add(text, at) {
    this.#kept.push({ at, metrics: parse(text) });
    while (this.#kept[0].at < at - SPAN - EVERY) this.#kept.shift();
  }

  get now() {
    return this.#kept.at(-1);
  }

  /** The first and last snapshot of the last `seconds`, or null if there is but one. */
  window(seconds = SPAN, end = this.#kept.length - 1) {
    const last = this.#kept[end];
    if (!last) return null;
    const first = this.#kept.findIndex(({ at }) => at >= last.at - seconds - EVERY / 2);
    return first < end ? { from: this.#kept[first], to: last } : null;
  }

  /** `derive(window)` of a window of `seconds` before each snapshot, as [seconds ago, value] or null. */
  series(seconds, derive) {
    return this.#kept.map(({ at }, end) => {
      const window = this.window(seconds, end);
      const value = window && derive(window);
      return value == null ? null : [at - this.now.at, value];
    });
  }
}

/** By how much a counter rose; after a restart of the server it counts from 0. */
export function rise({ from, to }, name, wanted) {
  const [before, after] = [from, to].map(({ metrics }) => total(metrics, name, wanted));
  return after < before ? after : after - before;
}

/** Rise by the second. */
export const rate = (window, name, wanted) => rise(window, name, wanted) / (window.to.at - window.from.at);

/** Mean of a histogram's observations in the window, or null without any. */
export function mean(window, name, wanted) {
  const count = rise(window, `${name}_count`, wanted);
  return count > 0 ? rise(window, `${name}_sum`, wanted) / count : null;
}

/** The `q` quantile of a histogram in the window, by linear interpolation within a bucket; or null. */
export function quantile(window, name, q, wanted) {
  const bounds = values(window.to.metrics, `${name}_bucket`, "le", wanted)
    .map((le) => ({ le, bound: le === "+Inf" ? Infinity : Number(le) }))
    .sort((a, b) => a.bound - b.bound)
    .map(({ le, bound }) => ({ bound, count: rise(window, `${name}_bucket`, { ...wanted, le }) }));
  const all = bounds.at(-1)?.count ?? 0;
  if (!all) return null;
  const rank = q * all;
  const place = bounds.findIndex(({ count }) => count >= rank);
  const { bound: low, count: below } = bounds[place - 1] ?? { bound: 0, count: 0 };
  const { bound: high, count } = bounds[place];
  if (high === Infinity) return low;
  return low + (high - low) * ((rank - below) / (count - below || 1));
}

/** The share of images that left at each of `exits` exits in the window, or null if none did. */
export function shares(window, model, exits) {
  const counts = Array.from({ length: exits }, (_, k) =>
    rise(window, "offramp_exits_total", { model, exit: String(k + 1) }));
  const all = counts.reduce((sum, count) => sum + count, 0);
  return all ? counts.map((count) => count / all) : null;
}
