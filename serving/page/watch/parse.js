// Reading the Prometheus text format, as far as this server writes it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

const number = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));

/** A Map from a metric's name to its samples, [{labels, value}]. */
export function parse(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const [, name, inner, value] = match;
    const labels = {};
    for (const [, label, content] of (inner ?? "").matchAll(LABEL)) {
      labels[label] = content.replace(/\\[n"\\]/g, (escape) => ESCAPES[escape]);
    }
    if (!metrics.has(name)) metrics.set(name, []);
    metrics.get(name).push({ labels, value: number(value) });
  }
  return metrics;
}

/** The sum of the samples of `name` whose labels have all of `wanted`. */
export function total(metrics, name, wanted = {}) {
  let sum = 0;
  for (const { labels, value } of metrics.get(name) ?? []) {
    if (Object.entries(wanted).every(([label, content]) => labels[label] === content)) sum += value;
  }
  return sum;
}

/** The different values of the label `label` of `name`, where the other labels have all of `wanted`. */
export function values(metrics, name, label, wanted = {}) {
  const found = (metrics.get(name) ?? [])
    .filter(({ labels }) => Object.entries(wanted).every(([other, content]) => labels[other] === content))
    .map(({ labels }) => labels[label]);
  return [...new Set(found)];
}
