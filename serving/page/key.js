// The API key for admin routes: asked for once the server wants one, kept for this tab only.

import { h } from "./dom.js";

const NAME = "offramp-api-key";

export function authorization() {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

let slot = null;

/** Ask for the key in the element `place`; `retry` is called once there is one. */
export function askForKey(message, retry, place) {
  forgetQuestion();
  slot = place;
  const field = h("input", { type: "password", id: "api-key", autocomplete: "off", spellcheck: "false" });
  const use = () => {
    if (!field.value) return field.focus();
    sessionStorage.setItem(NAME, field.value);
    forgetQuestion();
    return retry();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    use();
  });
  slot.replaceChildren(
    h("div", { class: "ask" },
      h("p", { role: "alert" }, message),
      h("label", { class: "field" }, "API key", field),
      h("button", { type: "button", onclick: use }, "Use this key")),
  );
  field.focus();
}

export function forgetQuestion() {
  slot?.replaceChildren();
  slot = null;
}
