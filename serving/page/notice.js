// One notice at a time in a slot above what it is about, and what can be done about it.

import { h, say } from "./dom.js";

const clocks = new WeakMap();

export function clearNotice(slot) {
  clearInterval(clocks.get(slot));
  // Who pressed its button would otherwise lose their place.
  if (slot.contains(document.activeElement)) slot.closest("[role=tabpanel]")?.focus();
  slot.replaceChildren();
}

/** Say `text` in `slot`; `actions` are [words, function] pairs. */
export function notice(slot, text, { kind = "warn", actions = [] } = {}) {
  clearNotice(slot);
  const buttons = actions.map(([words, act]) => h("button", { type: "button", onclick: act }, words));
  slot.replaceChildren(
    h("div", { class: "notice", "data-kind": kind, role: "alert" }, h("p", {}, text), buttons),
  );
  return buttons;
}

/** Say what `error` is; where trying again may help, offer `retry`, after the time the server named. */
export function explain(slot, error, retry) {
  if (error.kind === "busy") return countdown(slot, error, retry);
  const actions = ["offline", "unready"].includes(error.kind) ? [["Try again", retry]] : [];
  const kind = error.kind === "refused" ? "bad" : "warn";
  return notice(slot, error.message, { kind, actions });
}

function countdown(slot, error, retry) {
  const [button] = notice(slot, `Over capacity. ${error.message}`, { actions: [["Try again", retry]] });
  let left = Math.ceil(error.retryAfter);
  const tick = () => {
    button.disabled = left > 0;
    say(button, left > 0 ? `Try again in ${left} s` : "Try again");
    if (left-- <= 0) clearInterval(clocks.get(slot));
  };
  tick();
  clocks.set(slot, setInterval(tick, 1000));
}
