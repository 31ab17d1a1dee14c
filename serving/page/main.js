// The page's beginning: every view starts, then the models are asked for.

import { refresh } from "./models.js";
import { startTabs } from "./tabs.js";
import { startTry } from "./try/view.js";
import { showTune, startTune } from "./tune/view.js";
import { showWatch, startWatch } from "./watch/view.js";

startTry();
startTune();
startWatch();
startTabs((name) => {
  if (name === "tune") showTune();
  if (name === "watch") showWatch();
});
refresh();
