// The answer in a sentence and three figures: what it is, where it left, what that saved.

import { byId, h, hue } from "../dom.js";
import * as format from "../format.js";

const show = (...children) => byId("result").replaceChildren(...children);

/** Before the first image. */
export const invite = () =>
  show(h("p", { class: "answer quiet" }, "Easy images leave early"),
    h("p", { class: "quiet" }, "Give an image and see which exit it takes, what each exit says, and what leaving early saves."));

/** While nothing has come back. */
export const wait = () => show(h("p", { class: "answer quiet" }, "On its way …"));

/** The answer did not come. */
export const fail = () => show(h("p", { class: "answer quiet" }, "No answer"));

/** `answer` of the stream, and what exits beyond said: `later`, their events so far. */
export function tell(answer, model, later) {
  const [prediction] = answer.predictions;
  const { exit, exits } = prediction;
  const spent = model.exits[exit - 1].macs;
  const full = model.exits.at(-1).macs;
  show(
    h("div", { class: "said", "data-hue": hue(exit) },
      h("p", { class: "answer" }, format.answer(prediction.label)),
      h("p", {}, h("span", { class: "badge" }, `Exit ${exit} of ${exits}`), ` ${afterwards(prediction, later)}`),
      likeliest(prediction)),
    h("dl", { class: "figures" },
      figure("Probability", format.percent(prediction.top_k[0].probability)),
      figure("In the network", format.ms(answer.timing_ms.compute), saved(answer, later)),
      figure("MACs saved", format.percent(1 - spent / full), `${format.macs(spent)} of ${format.macs(full)}`)),
    spending(model, exit),
  );
}

// What an answer without a label would have been.
const likeliest = ({ label, top_k: [first] }) =>
  label === null ? h("p", { class: "quiet" }, `Most likely ${format.words(first.label)}, but too improbable for this policy.`) : null;

const figure = (name, value, more = "") =>
  h("div", {}, h("dt", { class: "quiet small" }, name), h("dd", { class: "big" }, value), h("dd", { class: "quiet small" }, more || "\u00a0"));

function afterwards({ label, exit, exits }, later) {
  if (exit === exits) return "It went all the way.";
  if (!later.length) return "Later exits were not needed.";
  const others = later.filter((event) => event.label !== label);
  if (!others.length) return "Every later exit agrees.";
  return others.map((event) => `Exit ${event.exit} would have said ${format.answer(event.label)}.`).join(" ");
}

function saved(answer, later) {
  const last = later.at(-1);
  return last ? `${format.ms(last.elapsed_ms)} to exit ${last.exit}` : `${format.ms(answer.timing_ms.total)} in all`;
}

// Full depth as one bar: a piece for each stage, filled as far as the image went.
function spending(model, exit) {
  const full = model.exits.at(-1).macs;
  const pieces = model.exits.map(({ exit: k, macs }, place) => {
    const share = (macs - (model.exits[place - 1]?.macs ?? 0)) / full;
    return h("i", { "data-hue": hue(k), "data-spent": k <= exit, vars: { share } });
  });
  return h("div", { class: "spending", "aria-hidden": "true" }, pieces);
}
