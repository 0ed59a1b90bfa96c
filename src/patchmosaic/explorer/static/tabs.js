/** Tabs as ARIA describes them: arrow keys move between them. */

import { $ } from "./dom.js";

const NAMES = ["pixel", "dial", "network", "draw"];

/** @param {(name: string) => void} onOpen called when somebody opens a tab */
export function tabs(onOpen) {
  for (const name of NAMES) {
    $(`tab-${name}`).addEventListener("click", () => onOpen(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const to = target(event.key, NAMES.indexOf(name));
      if (to === undefined) return;
      event.preventDefault();
      $(`tab-${to}`).focus();
      onOpen(to);
    });
  }
}

export function showTab(chosen) {
  for (const name of NAMES) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === chosen));
    $(`tab-${name}`).tabIndex = name === chosen ? 0 : -1;
    $(`view-${name}`).hidden = name !== chosen;
  }
}

export const known = (name) => NAMES.includes(name);

function target(key, i) {
  const last = NAMES.length - 1;
  const places = { ArrowRight: i === last ? 0 : i + 1, ArrowLeft: i === 0 ? last : i - 1, Home: 0, End: last };
  return NAMES[places[key]];
}
