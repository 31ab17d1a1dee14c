// The form's fields: mode, measure, combination, deepest exit, and the sliders of thresholds and reject_below.

import { byId, h, hue, say } from "../dom.js";
import * as format from "../format.js";

// A slider's right end means never: thresholds above 1 are out of reach.
const NEVER = 1.005;
const STEP = 0.005;

/** Build the fields for `exits` exits; `change(fields)` is called with what the user changed. */
export function buildControls(exits, change) {
  const before = Array.from({ length: exits - 1 }, (_, place) => place);
  const every = slider("all exits", null, (value) => change({ thresholds: before.map(() => value) }));
  const each = before.map((place) =>
    slider(`exit ${place + 1}`, hue(place + 1), (value) => change({ at: place, value })),
  );
  const legend = byId("sliders").querySelector("legend");
  byId("sliders").replaceChildren(legend, ...(exits > 2 ? [every.element] : []), ...each.map(({ element }) => element));
  const unsure = slider("confidence", null, (value) => change({ reject_below: value || null }), {
    label: "Confidence below which the answer is unsure", most: 1, written: (value) => (value ? format.share(value) : "never"),
  });
  byId("rejection").replaceChildren(byId("rejection").querySelector("legend"), unsure.element);
  byId("deepest").replaceChildren(
    ...Array.from({ length: exits }, (_, k) => h("option", { value: k + 1 }, `exit ${k + 1}`)),
  );
  byId("mode").onchange = ({ target }) => change({ mode: target.value });
  byId("measure").onchange = ({ target }) => change({ measure: target.value });
  byId("combine").onchange = ({ target }) => change({ combine: target.value });
  byId("deepest").onchange = ({ target }) => change({ max_exit: Number(target.value) });

  /** Show `policy` in the fields. */
  return (policy) => {
    const early = policy.mode === "early_exit";
    for (const option of byId("mode").querySelectorAll("input")) option.checked = option.value === policy.mode;
    byId("measure").value = policy.measure;
    byId("combine").value = policy.combine;
    byId("deepest").value = policy.max_exit;
    byId("measure").disabled = byId("combine").disabled = !early;
    const used = policy.thresholds.slice(0, policy.max_exit - 1);
    const shared = used.length > 0 && used.every((value) => value === used[0]);
    every.show(used.length ? Math.max(...used) : 0, early && used.length > 0, shared ? null : "mixed");
    each.forEach(({ show }, place) => show(policy.thresholds[place], early && place + 1 < policy.max_exit));
    unsure.show(policy.reject_below ?? 0, true);
  };
}

function slider(name, colour, moved, options = {}) {
  const { label = `Threshold of ${name}`, most = NEVER, written = format.threshold } = options;
  const value = h("output", {});
  const input = h("input", {
    type: "range", min: 0, max: most, step: STEP, "aria-label": label,
    oninput: () => moved(Number(input.value)),
  });
  const element = h("div", { class: "slider", "data-hue": colour }, h("span", {}, name), input, value);
  const show = (threshold, usable, words = null) => {
    // The slider rounds; while it is what moves, it must not be moved.
    if (Math.abs(Number(input.value) - threshold) > STEP / 2) input.value = Math.min(threshold, most);
    input.disabled = !usable;
    input.style.setProperty("--filled", Math.min(threshold / most, 1));
    const text = words ?? (usable ? written(threshold) : "–");
    say(value, text);
    input.setAttribute("aria-valuetext", text);
  };
  return { element, show };
}
