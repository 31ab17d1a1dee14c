// What one exit looks at: its class-activation map over the picture as the network gets it.

import { h } from "../dom.js";

// From no evidence to the peak; the last parts of 255 are how much of the picture is covered.
const COLOURS = [[0, 0, 4, 40], [87, 16, 110, 90], [188, 55, 84, 140], [249, 142, 9, 175], [252, 255, 164, 195]];
const PLACES = [
  ["upper left", "top", "upper right"],
  ["left", "centre", "right"],
  ["lower left", "bottom", "lower right"],
];
const STRONG = 0.5;

export class Heat {
  constructor(exit, { height, width, resize }) {
    this.exit = exit;
    this.picture = h("img", { alt: "", hidden: true });
    this.canvas = h("canvas", { width: 1, height: 1 });
    this.element = h("div", { class: "heat", role: "img", hidden: true, "data-resize": resize, vars: { ratio: width / height } },
      this.picture, this.canvas);
    this.clear();
  }

  /** Open or close the place for the map, over the picture at `address` if there is one. */
  show(open, address) {
    this.element.hidden = !open;
    if (!open || !address || this.picture.src === address) return;
    this.picture.src = address;
    this.picture.hidden = false;
  }

  clear() {
    this.canvas.width = 1;
    this.element.setAttribute("aria-label", `Map of exit ${this.exit}: not drawn yet`);
  }

  /** Draw a map of POST /v1/classify/maps. */
  draw(map) {
    Object.assign(this.canvas, { width: map.width, height: map.height });
    const pixels = new ImageData(map.width, map.height);
    map.values.forEach((value, place) => pixels.data.set(colour(value), 4 * place));
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
    this.element.setAttribute("aria-label", `Exit ${this.exit} ${sentence(map)}`);
  }
}

function colour(value) {
  const at = value * (COLOURS.length - 1);
  const below = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[below].map((part, k) => part + (at - below) * (COLOURS[below + 1][k] - part));
}

// Where the middle of the stronger half lies.
function sentence({ height, width, values }) {
  const third = (coordinate) => Math.min(Math.floor(3 * coordinate), 2);
  let [sum, down, across, cells] = [0, 0, 0, 0];
  values.forEach((value, place) => {
    if (value < STRONG) return;
    cells += 1;
    sum += value;
    down += (value * (Math.floor(place / width) + 0.5)) / height;
    across += (value * ((place % width) + 0.5)) / width;
  });
  if (!cells) return "finds nothing there that speaks for it";
  if (cells === values.length) return "looks at all of it";
  return `looks mostly at the ${PLACES[third(down / sum)][third(across / sum)]}`;
}
