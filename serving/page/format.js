// Numbers as people read them.

const fixed = (digits) => {
  const format = new Intl.NumberFormat("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return (value) => format.format(value).replace("-", "−");
};

const [whole, one, two, three] = [0, 1, 2, 3].map(fixed);

/** A label of a data set, such as "aquarium_fish", as words. */
export const words = (label) => label.replaceAll("_", " ");

/** An answer's label; it has none if the network is unsure. */
export const answer = (label) => (label === null ? "unsure" : words(label));

export const count = whole;
export const threshold = (value) => (value > 1 ? "never" : three(value));

/** A confidence or a measure, between 0 and 1. */
export const share = (value) => three(Math.min(value, 1));

/** Percent from a share between 0 and 1. */
export const percent = (share) => `${share > 0 && share < 0.1 ? one(100 * share) : whole(100 * share)} %`;

/** An accuracy, in percent already. */
export const accuracy = (value) => `${two(value)} %`;

/** A difference in points, with its sign. */
export const points = (value) => `${value > 0 ? "+" : ""}${two(value)}`;

export const ms = (value) => `${value >= 100 ? whole(value) : value >= 10 ? one(value) : two(value)} ms`;

/** Multiply-accumulates, in thousands, millions or billions. */
export function macs(value) {
  if (value >= 1e9) return `${two(value / 1e9)} G`;
  if (value >= 1e6) return `${one(value / 1e6)} M`;
  return value >= 1e3 ? `${one(value / 1e3)} k` : whole(value);
}

/** Multiply-accumulates at an axis. */
export const macsTick = (value) => macs(value).replace(/\.0+ /, " ");

/** A tick of an axis: no more digits than it needs. */
export const tick = (value) => String(+value.toFixed(3));

/** A rate or a mean, with as many digits as its size deserves. */
export const amount = (value) => (value >= 100 ? whole(value) : value >= 10 ? one(value) : two(value));
