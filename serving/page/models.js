// Which models are loaded, which one the page is about, and whether the server answers.

import { listModels } from "./api.js";
import { byId, h, say } from "./dom.js";
import { clearNotice, notice } from "./notice.js";
import { total } from "./watch/parse.js";

const RETRY_MS = 2000;
const WORDS = { live: "live", loading: "connecting", offline: "offline" };

let models = [];
let chosen = null;
let known = "";
let again = 0;
const watchers = [];

/** The model that the page is about, as /v1/models tells of it; null while there is none. */
export const model = () => models.find(({ name }) => name === chosen) ?? null;
export const all = () => models;

/** Call `watcher(model)` now if there is a model, and whenever another is chosen or loaded. */
export function onModel(watcher) {
  watchers.push(watcher);
  if (model()) watcher(model());
}

/** Show in the header whether the server answers. */
export function link(state) {
  byId("link").dataset.state = state;
  say(byId("link"), WORDS[state]);
}

/** Ask again what is loaded if `metrics` tell of other models or policies than the page knows. */
export function lookAgain(metrics) {
  const revision = ({ name }) => total(metrics, "offramp_policy_revision", { model: name });
  const loaded = metrics.get("offramp_model_info")?.length ?? 0;
  if (models.length && (loaded !== models.length || models.some((one) => revision(one) !== one.policy_revision))) refresh();
}

/** Ask what is loaded, until something is. */
export async function refresh() {
  const slot = byId("page-notice");
  try {
    models = await listModels();
    link("live");
    if (models.length) clearNotice(slot);
    else notice(slot, "No model is loaded. The page retries automatically.");
  } catch (error) {
    link(error.kind === "offline" ? "offline" : "loading");
    notice(slot, `${error.message} The page retries automatically.`);
  }
  list();
  clearTimeout(again);
  if (!models.length) again = setTimeout(refresh, RETRY_MS);
}

byId("model").addEventListener("change", (event) => choose(event.target.value));

function list() {
  const select = byId("model");
  select.disabled = models.length < 2;
  if (models.length) {
    select.replaceChildren(...models.map(({ name }) => h("option", { value: name }, name)));
    choose(models.some(({ name }) => name === chosen) ? chosen : models[0].name);
  } else select.replaceChildren(h("option", {}, "none"));
}

function choose(name) {
  chosen = name;
  byId("model").value = name;
  const current = JSON.stringify(model());
  if (current === known) return;
  known = current;
  for (const watcher of watchers) watcher(model());
}
