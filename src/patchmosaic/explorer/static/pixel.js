/** The training patches that one pixel believes in, for two machines. */

import { $, count, imageText, make, makeSvg, percent, pixels, windowText } from "./dom.js";
import { overlay } from "./overlay.js";

/** @param {[number, number, number]} shape of the data */
export function pixelView([, height, width]) {
  /** @param {string} state the noisy picture that both machines look at */
  function show(row, col, state, { first, second }) {
    $("pixel-hint").hidden = true;
    $("beliefs").hidden = false;
    $("beliefs").classList.remove("stale");
    $("where").textContent = `row ${row + 1}, column ${col + 1}`;
    $("first-name").textContent = first.machine;
    for (const [place, belief] of Object.entries({ first, second })) {
      $(`${place}-text`).textContent = summary(belief);
      $(`${place}-sees`).replaceChildren(seen(belief, state));
      $(`belief-${place}`).replaceChildren(...belief.sources.map((source) => card(source, belief)), others(belief));
    }
  }

  function seen({ box: [top, left, down, across], seen }, state) {
    const picture = seen
      ? { href: seen, x: left, y: top, width: across, height: down }
      : { href: state, width, height };
    return makeSvg(
      "svg",
      { viewBox: [left, top, across, down].join(" "), role: "img", "aria-label": "What the pixel sees" },
      makeSvg("image", picture),
    );
  }

  function card(source, { window, wraps }) {
    const outline = overlay(height, width);
    outline.show(source.box, source.row, source.col, wraps);
    const name = imageText(source.image, source.class);
    return make(
      "div",
      { class: "source", "data-image": source.image, "data-weight": source.weight },
      bar(source.weight),
      make("div", { class: "thumb" }, pixels(source.picture, `Training image ${name}`), outline.svg),
      make(
        "div",
        { class: "name" },
        make("p", {}, ...name.split(", ").map((line) => make("span", {}, line))),
        ...(window === null ? [] : [pixels(source.patch, "Its patch")]),
      ),
    );
  }

  return { show, wait: () => $("beliefs").classList.add("stale") };
}

function summary({ window, effective, patches }) {
  return `sees ${windowText(window)}; believes in ${count(effective)} of ${count(patches)} patches`;
}

function others({ covered, patches, sources }) {
  const many = patches - sources.length;
  return make(
    "div",
    { class: "others" },
    bar(Math.max(0, 1 - covered)),
    make("div", { class: "thumb" }, many > 0 ? `+ ${count(many)}` : "none"),
    make("div", { class: "name" }, make("p", {}, "others")),
  );
}

function bar(share) {
  const column = make("div", { class: "bar" });
  column.style.height = `${100 * share}%`;
  return make("div", { class: "bar-box" }, make("div", { class: "bars" }, make("span", { class: "weight" }, percent(share)), column));
}
