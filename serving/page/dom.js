// Making elements. Strings become text nodes, never markup: labels and names come from bundles.

const SVG = "http://www.w3.org/2000/svg";
const HUES = 6;

export const byId = (id) => document.getElementById(id);

export const h = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const s = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** The number of the colour of exit `exit`; past six they repeat. */
export const hue = (exit) => ((exit - 1) % HUES) + 1;

/** A dot of an exit's colour, for legends and tables. */
export const key = (exit) => h("i", { class: "key", "data-hue": hue(exit) });

/** Set the text of `node` only if it differs, so that live regions speak once. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// `on…` are listeners, `vars` custom properties, true and false attributes with or without.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") {
      for (const [key, amount] of Object.entries(value)) node.style.setProperty(`--${key}`, amount);
    } else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}
