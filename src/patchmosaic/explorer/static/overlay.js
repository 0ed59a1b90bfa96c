/**
 * The outline of a pixel and its window over a picture: solid inside, dashed in a small margin beyond; a window that
 * wraps around goes on at the other side.
 */

import { makeSvg } from "./dom.js";

const MARGIN = 1 / 32; // of the picture, as .overlay's inset in style.css
let clips = 0;

/**
 * @param {number} height of the picture in pixels
 * @param {number} width
 */
export function overlay(height, width) {
  const inside = `inside-${clips++}`;
  const [beyond, pixel] = ["beyond", "pixel"].map((kind) => makeSvg("rect", { class: kind }));
  const within = makeSvg("g", { class: "within" });
  within.setAttribute("clip-path", `url(#${inside})`);
  const box = [-width * MARGIN, -height * MARGIN, width * (1 + 2 * MARGIN), height * (1 + 2 * MARGIN)];
  const svg = makeSvg(
    "svg",
    { class: "overlay", viewBox: box.join(" "), preserveAspectRatio: "none", "aria-hidden": "true" },
    makeSvg("clipPath", { id: inside }, makeSvg("rect", place([0, 0, height, width]))),
    beyond, within, pixel,
  );
  svg.style.visibility = "hidden";
  return { svg, show };

  function show(window, row, col, wraps) {
    const [top, left, down, across] = window;
    const fits = top >= 0 && left >= 0 && top + down <= height && left + across <= width;
    svg.style.visibility = "visible";
    beyond.style.display = fits || wraps ? "none" : "";
    within.style.clipPath = fits ? "none" : "";
    set(beyond, window);
    const boxes = wraps
      ? spans(top, down, height).flatMap(([y, tall]) => spans(left, across, width).map(([x, wide]) => [y, x, tall, wide]))
      : [window];
    within.replaceChildren(...boxes.map((box) => makeSvg("rect", place(box))));
    set(pixel, [row, col, 1, 1]);
  }
}

/** Where a window shows: all that there is, or from its start, shifted by the picture's size where it goes beyond. */
function spans(start, length, size) {
  if (length >= size) return [[0, size]];
  return [0, size, -size].map((by) => start + by).filter((from) => -length < from && from < size).map((from) => [from, length]);
}

const place = ([top, left, height, width]) => ({ x: left, y: top, height, width });

function set(rect, box) {
  for (const [name, value] of Object.entries(place(box))) rect.setAttribute(name, value);
}
