/** The locality dial: what the same noise becomes as pixels see more. */

import { stream } from "./api.js";
import { $, make, percent, pixels, plural } from "./dom.js";
import { work } from "./work.js";

/** @param {(locality: string) => void} choose */
export function dial(choose) {
  let loaded = null;
  let latest = 0;

  /** Draws the strip unless it is there already. */
  async function show(query, locality) {
    if (query !== loaded) await draw(query);
    mark(locality);
  }

  async function draw(query) {
    const mine = ++latest;
    loaded = query;
    $("dial").replaceChildren();
    $("dial-text").textContent = "drawing …";
    const result = await work("dial", (signal) => stream(`api/dial?${query}`, signal, ({ picture, progress }) => {
      if (picture) $("dial").append(card(picture));
      if (progress) $("dial-text").textContent = progress.waiting ? "waiting for others" : `drawing ${progress.done} of ${progress.total}`;
    }), () => draw(query));
    if (mine !== latest) return;
    $("dial-text").textContent = result ? "" : "The strip could not be drawn to its end.";
    if (!result) loaded = null;
  }

  function card({ locality, title, picture, sources, largest }) {
    const button = make(
      "button",
      { type: "button", class: "card", "data-locality": locality },
      pixels(picture, `Drawn with ${title}`),
      make("strong", {}, title),
      ...(sources === null ? [] : [
        make("span", {}, plural(sources, "training image")),
        make("span", {}, `largest: ${percent(largest)}`),
      ]),
    );
    button.addEventListener("click", () => choose(locality));
    return button;
  }

  return { show, draw };
}

function mark(locality) {
  for (const button of $("dial").children) {
    button.setAttribute("aria-pressed", String(button.dataset.locality === locality));
  }
}
