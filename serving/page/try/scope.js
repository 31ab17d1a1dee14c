// What the model can answer: its classes, its input size, and the samples of its classes.

import { readModel } from "../api.js";
import { byId, h, say } from "../dom.js";
import * as format from "../format.js";
import { model } from "../models.js";
import { explain } from "../notice.js";
import { fitSamples } from "./samples.js";

/** Show the scope of `summary`, a model of /v1/models. */
export async function showScope(summary) {
  say(byId("scope-text"), sentence(summary));
  try {
    const { name, labels } = await readModel(summary.name);
    // Another model may have been chosen meanwhile.
    if (name !== model()?.name) return;
    byId("class-list").replaceChildren(...labels.map((label) => h("li", {}, format.words(label))));
    fitSamples(labels);
  } catch (error) {
    explain(byId("try-notice"), error, () => showScope(summary));
  }
}

const RESIZES = { center_crop: "the middle of the image", stretch: "the image, stretched" };

function sentence({ classes, input: { width, height, resize }, policy: { reject_below: least } }) {
  const wrong = least === null ? "a wrong label" : "a wrong label or “unsure”";
  return `This model has ${format.count(classes)} classes; an image of anything else gets ${wrong}. ` +
    `Input: ${RESIZES[resize]}, ${width} x ${height} pixels.`;
}
