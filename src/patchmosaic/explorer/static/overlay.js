/** The outline of a pixel and its window over a picture: solid inside, dashed in a small margin beyond. */

import { makeSvg } from "./dom.js";

const MARGIN = 1 / 32; // of the picture, as .overlay's inset in style.css
let clips = 0;

/**
 * @param {number} height of the picture in pixels
 * @param {number} width
 */
export function overlay(height, width) {
  const inside = `inside-${clips++}`;
  const [beyond, within, pixel] = ["beyond", "within", "pixel"].map((kind) => makeSvg("rect", { class: kind }));
  within.setAttribute("clip-path", `url(#${inside})`);
  const box = [-width * MARGIN, -height * MARGIN, width * (1 + 2 * MARGIN), height * (1 + 2 * MARGIN)];
  const svg = makeSvg(
    "svg",
    { class: "overlay", viewBox: box.join(" "), preserveAspectRatio: "none", "aria-hidden": "true" },
    makeSvg("clipPath", { id: inside }, makeSvg("rect", place([0, 0, height, width]))),
    beyond, within, pixel,
  );
  svg.style.visibility = "hidden";
  return { svg, show: (window, row, col) => show(window, row, col) };

  function show(window, row, col) {
    const [top, left, down, across] = window;
    const fits = top >= 0 && left >= 0 && top + down <= height && left + across <= width;
    svg.style.visibility = "visible";
    beyond.style.display = fits ? "none" : "";
    within.style.clipPath = fits ? "none" : "";
    set(beyond, window);
    set(within, window);
    set(pixel, [row, col, 1, 1]);
  }
}

const place = ([top, left, height, width]) => ({ x: left, y: top, height, width });

function set(rect, box) {
  for (const [name, value] of Object.entries(place(box))) rect.setAttribute(name, value);
}
