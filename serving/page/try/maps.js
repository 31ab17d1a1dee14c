// Class-activation maps: asked for when somebody wants to see them, once per image and class.

import { readMaps } from "../api.js";
import { byId, say } from "../dom.js";
import { words } from "../format.js";
import { explain } from "../notice.js";

let road = null;
let subject = null;

const wanted = () => byId("maps").getAttribute("aria-pressed") === "true";

export function startMaps() {
  byId("maps").addEventListener("click", ({ target }) => {
    target.setAttribute("aria-pressed", !wanted());
    show();
  });
}

/** The maps belong to the cards of `newRoad`, of a model that offers them or not. */
export function mapsOn(newRoad, offered) {
  road = newRoad;
  byId("maps").dataset.offered = offered;
  if (!offered) byId("maps").setAttribute("aria-pressed", "false");
  forget();
}

/** Another image, or none that has an answer: no map is known. */
export function forget() {
  subject = null;
  for (const { heat } of road?.cards ?? []) heat.clear();
  show();
}

/** `image` was answered with the class `label` by the model called `model`. */
export function mapsOf(model, image, label) {
  if (subject?.label === label) return;
  if (subject) forget();
  subject = { model, image, label, asked: false };
  show();
}

async function show() {
  const open = wanted();
  for (const { heat } of road?.cards ?? []) heat.show(open, byId("picture").src);
  byId("maps-of").hidden = !open;
  say(byId("maps-of"), subject ? `Where each exit finds evidence for ${words(subject.label)}.` : "Where each exit finds evidence for the answer.");
  if (!open || !subject || subject.asked) return;
  const asking = subject;
  asking.asked = true;
  try {
    const { exits } = await readMaps(asking.model, asking.image, asking.label);
    if (asking === subject) for (const map of exits) road.cards[map.exit - 1].heat.draw(map);
  } catch (error) {
    asking.asked = false;
    if (asking === subject) explain(byId("try-notice"), error, show);
  }
}
