// Three views, chosen by the address's hash; arrow keys move along the tabs.

import { byId } from "./dom.js";

const VIEWS = ["try", "tune", "watch"];
const TITLES = { try: "Try it", tune: "Tune it", watch: "Watch it" };

const chosen = () => {
  const name = location.hash.slice(1);
  return VIEWS.includes(name) ? name : VIEWS[0];
};

/** Show the view of the hash, now and whenever it changes; `shown(name)` is called each time. */
export function startTabs(shown) {
  const show = () => {
    const current = chosen();
    for (const name of VIEWS) {
      const tab = byId(`tab-${name}`);
      tab.setAttribute("aria-selected", name === current);
      tab.tabIndex = name === current ? 0 : -1;
      byId(name).hidden = name !== current;
    }
    document.title = `${TITLES[current]} · Offramp`;
    shown(current);
  };

  for (const [place, name] of VIEWS.entries()) {
    byId(`tab-${name}`).addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(name);
    });
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const target = { Home: 0, End: VIEWS.length - 1 }[event.key] ?? place + step;
      if (event.key === " ") go(name);
      else if (Number.isInteger(target)) go(VIEWS[(target + VIEWS.length) % VIEWS.length]);
      else return;
      event.preventDefault();
    });
  }
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId(chosen()).focus();
  });
  addEventListener("hashchange", show);
  show();
}

function go(name) {
  // Not location.hash: that would scroll to the panel.
  history.pushState(null, "", `#${name}`);
  dispatchEvent(new HashChangeEvent("hashchange"));
  byId(`tab-${name}`).focus();
}
