// Try it: one image at a time along the road, as the events of the stream arrive.

import { ApiError, classifyStream } from "../api.js";
import { byId, say } from "../dom.js";
import * as format from "../format.js";
import { model, onModel } from "../models.js";
import { clearNotice, explain, notice } from "../notice.js";
import { events } from "../sse.js";
import { MEASURES } from "./card.js";
import { startIntake } from "./intake.js";
import { forget, mapsOf, mapsOn, startMaps } from "./maps.js";
import * as result from "./result.js";
import { Road } from "./road.js";
import { markSample, startSamples } from "./samples.js";
import { showScope } from "./scope.js";

const PLACEHOLDER = "page/no-preview.svg";

let road = null;
let image = null;
let running = new AbortController();

export function startTry() {
  result.invite();
  const slot = byId("try-notice");
  startSamples(take, (error, retry) => explain(slot, error, retry));
  startIntake(take, (sentence) => notice(slot, sentence));
  startMaps();
  byId("run-all-exits").addEventListener("click", ({ target }) => {
    target.setAttribute("aria-pressed", !runAllExits());
    if (image) classify();
  });
  onModel((model) => {
    running.abort();
    road = new Road(model);
    mapsOn(road, model.maps);
    say(byId("rule"), rule(model));
    showScope(model);
    if (image) classify();
  });
}

const COMBINES = { running: "running ensemble", single: "single exit" };

// When images leave, in a sentence.
function rule({ policy: { mode, measure, combine, max_exit: deepest, reject_below: least }, policy_revision: revision }) {
  const rules = {
    early_exit: `An image leaves at the first exit whose ${MEASURES[measure]} (${COMBINES[combine]}) reaches its threshold.`,
    ensemble: `Every image goes to exit ${deepest}; the exits answer together.`,
    exit: `Every image goes to exit ${deepest}, which answers alone.`,
  };
  const unsure = least === null ? "" : ` Below a probability of ${format.share(least)} the answer is "unsure".`;
  return `${rules[mode]}${unsure} Policy revision ${revision}.`;
}

const runAllExits = () => byId("run-all-exits").getAttribute("aria-pressed") === "true";

function take(file, name, sample = null) {
  image = file;
  markSample(sample);
  preview(file, name);
  byId("drop-hint").hidden = true;
  forget();
  // Below a sample or a button on a phone the answer would be out of sight.
  byId("result").scrollIntoView({ block: "nearest" });
  classify();
}

// The preview, or a placeholder where the browser cannot show the file.
function preview(file, name) {
  const picture = byId("picture");
  const address = URL.createObjectURL(file);
  URL.revokeObjectURL(picture.src);
  byId("no-preview").hidden = true;
  picture.onerror = () => {
    URL.revokeObjectURL(address);
    picture.onerror = null;
    picture.src = PLACEHOLDER;
    byId("no-preview").hidden = false;
    road?.replace(PLACEHOLDER);
  };
  picture.src = address;
  picture.alt = name;
  picture.hidden = false;
}

async function classify() {
  const slot = byId("try-notice");
  running.abort();
  running = new AbortController();
  const { signal } = running;
  clearNotice(slot);
  if (!model()) return notice(slot, "No model is loaded.");
  result.wait();
  road.start(byId("picture").src);
  try {
    const response = await classifyStream(model().name, image, { runAllExits: runAllExits(), signal });
    await follow(response, signal);
  } catch (error) {
    if (signal.aborted) return undefined;
    result.fail();
    // A connection that breaks midway is no ApiError.
    explain(slot, error instanceof ApiError ? error : new ApiError("offline", "The connection broke."), classify);
  }
  return undefined;
}

async function follow(response, signal) {
  let answer = null;
  let left = null;
  const later = [];
  for await (const { event, data } of events(response.body)) {
    if (signal.aborted) return;
    if (event === "exit") {
      road.reach(data, left);
      if (left !== null) later.push(data);
      if (data.left) left = data.exit;
    } else if (event === "answer") {
      answer = data;
      left = data.predictions[0].exit;
      if (!runAllExits()) road.finish(left);
      mapsOf(model().name, image, data.predictions[0].top_k[0].label);
    } else if (event === "error") throw new ApiError("refused", data.error, { code: data.code });
    if (answer) result.tell(answer, model(), later);
  }
  if (!answer) throw new ApiError("offline", "The connection broke before the answer came.");
}
