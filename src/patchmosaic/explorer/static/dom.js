/** Small helpers around the document. */

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (false and null are left out) and children. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export const pixels = (src, alt) => make("img", { class: "pixels", src, alt, draggable: "false" });

/** 115008 -> 115,008; small numbers keep a digit. */
export function count(n) {
  return n < 10 && !Number.isInteger(n) ? n.toFixed(1) : Math.round(n).toLocaleString("en");
}

export function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0 %";
  return value && value < 0.1 ? "< 0.1 %" : `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

export const windowText = (window) => (window === null ? "the whole image" : `${window} × ${window}`);

/** "no. 391, class 5"; a class with a name is called by it. */
export function imageText(image, kind) {
  if (kind == null || kind === "") return `no. ${count(image)}`;
  return `no. ${count(image)}, ${/^\d+$/.test(kind) ? `class ${kind}` : kind}`;
}

/** Runs the last call only, once it has been quiet for a while. */
export function debounced(milliseconds, action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}
