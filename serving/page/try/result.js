// The answer in a sentence and three figures: its class, its exit, and what that saved.

import { byId, h, hue } from "../dom.js";
import * as format from "../format.js";

const show = (...children) => byId("result").replaceChildren(...children);

/** Before the first image. */
export const invite = () =>
  show(h("p", { class: "answer quiet" }, "Easy images leave early"),
    h("p", { class: "quiet" }, "Choose an image to see at which exit it leaves, what each exit predicts, and what leaving early saves."));

/** While nothing has come back. */
export const wait = () => show(h("p", { class: "answer quiet" }, "Classifying …"));

/** The answer did not come. */
export const fail = () => show(h("p", { class: "answer quiet" }, "No answer"));

/** `answer` of the stream; `later` are the events of exits after it so far. */
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
      figure("Compute time", format.ms(answer.timing_ms.compute), compared(answer, later)),
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
  if (exit === exits) return "It ran through every stage.";
  if (!later.length) return "Later exits were not run.";
  const others = later.filter((event) => event.label !== label);
  if (!others.length) return "Every later exit agrees.";
  return others.map((event) => `Exit ${event.exit} predicts ${format.answer(event.label)}.`).join(" ");
}

// What to compare the time in stages with: that of a deeper exit, or the whole request.
function compared(answer, later) {
  const last = later.at(-1);
  return last ? `${format.ms(last.compute_ms)} to exit ${last.exit}` : `${format.ms(answer.timing_ms.total)} in total`;
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
