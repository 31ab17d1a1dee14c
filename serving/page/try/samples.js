// The pictures that come with the page; examples/draw_samples.py draws them.

import { request } from "../api.js";
import { byId, h } from "../dom.js";

const NAMES = ["rocket", "sunflower", "apple", "mountain", "fish", "castle", "cup", "train"];

/** List the samples; `take(blob, name, button)` gets the chosen one, `fail(error)` what went wrong. */
export function startSamples(take, fail) {
  byId("samples").append(...NAMES.map((name) => h("li", {}, sample(name, take, fail))));
}

/** Mark `button` as the picture shown, and no other. */
export function markSample(button) {
  for (const other of byId("samples").querySelectorAll("button")) {
    other.setAttribute("aria-pressed", other === button);
  }
}

function sample(name, take, fail) {
  const address = `page/samples/${name}.webp`;
  const choose = async () => {
    try {
      take(await (await request(address)).blob(), name, button);
    } catch (error) {
      fail(error, choose);
    }
  };
  const image = h("img", { src: address, alt: name, width: 64, height: 64, loading: "lazy" });
  const button = h("button", { type: "button", "aria-pressed": "false", onclick: choose }, image);
  return button;
}
