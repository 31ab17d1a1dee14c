// Tune it: drag, see what would happen, apply, undo.

import { previewCoverage, previewPolicy, readPolicy, readTradeoff, writePolicy } from "../api.js";
import { drawWhenSized } from "../charts/frame.js";
import { byId, say } from "../dom.js";
import { askForKey, forgetQuestion } from "../key.js";
import { model, onModel, refresh } from "../models.js";
import { clearNotice, explain, notice } from "../notice.js";
import { showCertificate } from "./certificate.js";
import { buildControls } from "./controls.js";
import { drawCoverage } from "./coverage.js";
import { drawCurve, drawLegend } from "./curve.js";
import { Draft } from "./draft.js";
import { showForecast, tellForecast } from "./forecast.js";
import { latest } from "./latest.js";
import { showPrecision } from "./precision.js";

const REST_MS = 600;

let draft = null;
let now = null;
let then = null;
let tradeoff = null;
let covered = { now: null, then: null };
let unit = "macs";
let show = () => {};
let rest = 0;

const slot = () => byId("tune-notice");
const fail = (error) => explain(slot(), error, load);

const preview = latest(
  (policy) => previewPolicy(model().name, policy),
  (answer) => {
    then = answer;
    drawAll();
    clearTimeout(rest);
    rest = setTimeout(() => tellForecast(then), REST_MS);
  },
  fail,
);

const coverage = latest(
  (policy) => previewCoverage(model().name, policy),
  (answer) => {
    covered.then = answer;
    drawAll();
  },
  fail,
);

const curve = latest(
  ({ measure, combine }) => readTradeoff(model().name, measure, combine),
  (answer) => {
    tradeoff = answer;
    drawAll();
  },
  fail,
);

export function startTune() {
  drawWhenSized(byId("curve"), drawAll);
  drawWhenSized(byId("coverage"), drawAll);
  byId("unit").addEventListener("change", ({ target }) => {
    unit = target.value;
    drawAll();
  });
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (draft?.dirty) write(draft.policy, (answer) => draft.applied(answer));
  });
  byId("undo").addEventListener("click", () => write(draft.before.at(-1), (answer) => draft.undone(answer)));
  byId("discard").addEventListener("click", () => change(draft.inForce));
  onModel(() => {
    if (draft?.name !== model().name) {
      draft = now = then = tradeoff = null;
      covered = { now: null, then: null };
    }
    if (!byId("tune").hidden) showTune();
  });
}

/** Take what is in force now, unless something is drafted. */
export function showTune() {
  if (model() && !draft?.dirty && draft?.revision !== model().policy_revision) load();
}

async function load() {
  const { name } = model();
  try {
    take(await readPolicy(name));
    clearNotice(slot());
  } catch (error) {
    fail(error);
  }
}

function take(answer) {
  if (draft) draft.load(answer);
  else {
    draft = Object.assign(new Draft(answer), { name: model().name });
    show = buildControls(answer.policy.thresholds.length + 1, change);
  }
  settle();
}

// After the policy in force has changed: everything is measured against it.
async function settle() {
  show(draft.policy);
  curve(draft.policy);
  try {
    now = await previewPolicy(draft.name, draft.inForce);
    preview(draft.policy);
    covered.now = await previewCoverage(draft.name, draft.inForce);
    coverage(draft.policy);
  } catch (error) {
    fail(error);
  }
}

function change({ at, value, ...fields }) {
  if (at !== undefined) fields.thresholds = draft.policy.thresholds.with(at, value);
  const { measure, combine } = draft.policy;
  draft.change(fields);
  show(draft.policy);
  if (measure !== draft.policy.measure || combine !== draft.policy.combine) curve(draft.policy);
  preview(draft.policy);
  coverage(draft.policy);
  drawState();
}

async function write(policy, done) {
  try {
    done(await writePolicy(draft.name, policy, draft.revision, byId("persist").checked));
    clearNotice(slot());
    forgetQuestion();
    settle();
    refresh();
  } catch (error) {
    if (error.kind === "conflict") conflict();
    else if (error.kind === "unauthorised") askForKey(error.message, () => write(policy, done), byId("key"));
    else explain(slot(), error, () => write(policy, done));
  }
}

async function conflict() {
  try {
    const newer = await readPolicy(draft.name);
    const resolve = (choice) => () => {
      choice();
      draft.before = [];
      clearNotice(slot());
      settle();
      byId("controls").querySelector("input:not(:disabled)").focus();
    };
    notice(slot(),
      `Nothing was overwritten: someone else put revision ${newer.revision} in force while you were editing revision ${draft.revision}.`,
      { actions: [
        [`Load revision ${newer.revision}`, resolve(() => draft.load(newer))],
        ["Keep my draft", resolve(() => draft.rebase(newer))],
      ] });
  } catch (error) {
    fail(error);
  }
}

function drawState() {
  byId("apply").disabled = byId("discard").disabled = !draft.dirty;
  byId("undo").disabled = draft.before.length === 0;
  say(byId("in-force"), `Revision ${draft.revision} is in force${draft.dirty ? "; your draft is not" : ""}.`);
  showCertificate(draft.inForce, draft.verified, draft.relabels);
  showPrecision(draft.inForce, draft.verified, draft.dirty);
}

function drawAll() {
  if (!draft || !now || !then) return;
  drawState();
  showForecast(now, then, draft.dirty);
  drawAnswered();
  if (!tradeoff) return;
  const measured = tradeoff.ms !== null;
  byId("unit").querySelector("[value=ms]").disabled = !measured;
  const svg = byId("curve");
  svg.setAttribute("aria-busy", false);
  drawLegend(tradeoff, draft.dirty);
  if (!svg.clientWidth) return;
  const pick = (value) => {
    if (draft.policy.mode === "early_exit") change({ thresholds: draft.policy.thresholds.map(() => value) });
  };
  drawCurve(svg, { tradeoff, unit: measured ? unit : "macs", now, draft: then, edited: draft.dirty, pick });
}

function drawAnswered() {
  const svg = byId("coverage");
  if (!covered.now || !covered.then || !svg.clientWidth) return;
  const pick = (value) => change({ reject_below: value || null });
  drawCoverage(svg, { now: covered.now, draft: covered.then, edited: draft.dirty, pick });
}
