// The pictures that come with the page; examples/draw_samples.py and draw_groceries.py draw them.

import { request } from "../api.js";
import { byId } from "../dom.js";

const buttons = () => byId("samples").querySelectorAll("button");

/** `take(blob, name, button)` gets the sample that is chosen, `fail(error, retry)` what went wrong. */
export function startSamples(take, fail) {
  for (const button of buttons()) {
    const { src, alt } = button.querySelector("img");
    const choose = async () => {
      try {
        take(await (await request(src)).blob(), alt, button);
      } catch (error) {
        fail(error, choose);
      }
    };
    button.addEventListener("click", choose);
  }
}

/** Show the samples whose class is one of `labels`, which may be none. */
export function fitSamples(labels) {
  const known = new Set(labels);
  for (const button of buttons()) button.closest("li").hidden = !known.has(button.dataset.label);
  const block = byId("samples-block");
  block.hidden = [...buttons()].every((button) => button.closest("li").hidden);
  block.dataset.known = true;
}

/** Mark `button` as the picture shown, and no other. */
export function markSample(button) {
  for (const other of buttons()) other.setAttribute("aria-pressed", other === button);
}
