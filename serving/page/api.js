// Talking to the server. Addresses are relative, so that the page works below any path.

import { authorization } from "./key.js";

/** What went wrong, in one sentence; `kind` says what the page can do about it. */
export class ApiError extends Error {
  constructor(kind, message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, code, retryAfter });
  }
}

const KINDS = { 401: "unauthorised", 403: "unauthorised", 412: "conflict", 429: "busy", 503: "unready" };

/** fetch that throws ApiError for whatever is no success. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server does not answer.");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const { error, code } = await response.json().catch(() => ({}));
  const kind = KINDS[response.status] ?? "refused";
  const retryAfter = Number(response.headers.get("Retry-After")) || 1;
  const message = error ?? `The server answered with status ${response.status}.`;
  return new ApiError(kind, message, { status: response.status, code, retryAfter });
}

const json = async (path, options) => (await request(path, options)).json();
const at = (model, rest) => `v1/models/${encodeURIComponent(model)}${rest}`;
const body = (policy) => ({
  headers: { "Content-Type": "application/json", ...authorization() },
  body: JSON.stringify(policy),
});

export const listModels = async () => (await json("v1/models")).models;

/** A model with its labels. */
export const readModel = (model) => json(at(model, ""));

export const readShadow = (model) => json(at(model, "/shadow"));

export const readDrift = (model) => json(at(model, "/drift"));

export const readGears = (model) => json(at(model, "/gears"));

export const readCanary = (model) => json(at(model, "/canary"));

export const promoteCanary = (model) =>
  json(at(model, "/canary/promote"), { method: "POST", headers: authorization() });

export const rollBackCanary = (model) =>
  json(at(model, "/canary"), { method: "DELETE", headers: authorization() });

export const readPolicy = (model) => json(at(model, "/policy"));

export const previewPolicy = (model, policy) =>
  json(at(model, "/policy/preview"), { method: "POST", ...body(policy) });

/** Accuracy against coverage of `policy`, over reject_below. */
export const previewCoverage = (model, policy) =>
  json(at(model, "/policy/coverage"), { method: "POST", ...body(policy) });

/** Put `policy` in force, if `revision` still is; `persist` writes it into the bundle. */
export function writePolicy(model, policy, revision, persist) {
  const { headers, ...rest } = body(policy);
  return json(at(model, `/policy${persist ? "?persist=true" : ""}`), {
    method: "PUT",
    headers: { ...headers, "If-Match": `"${revision}"` },
    ...rest,
  });
}

export const readTradeoff = (model, measure, combine) =>
  json(at(model, `/tradeoff?${new URLSearchParams({ measure, combine })}`));

export const readMetrics = async () => (await request("metrics")).text();

const picture = (image) => ({
  method: "POST",
  headers: { "Content-Type": image.type || "application/octet-stream" },
  body: image,
});

/** The stream of events for one image; `runAllExits` runs the exits after its answer too. */
export function classifyStream(model, image, { runAllExits = false, signal }) {
  const query = new URLSearchParams({ model, ...(runAllExits && { run_all_exits: "true" }) });
  return request(`v1/classify/stream?${query}`, { ...picture(image), signal });
}

/** Where each exit finds evidence for class `label` in one image. */
export const readMaps = (model, image, label) =>
  json(`v1/classify/maps?${new URLSearchParams({ model, class: label })}`, picture(image));
