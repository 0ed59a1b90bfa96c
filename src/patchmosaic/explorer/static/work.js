/** Work under way, of one kind or another: the latest of a kind replaces its predecessor. */

import { Unreachable } from "./api.js";
import { $ } from "./dom.js";

const controllers = new Map();
const working = new Set();
const progresses = new Map();
let again = () => {};

/**
 * Aborts the work of this kind that is under way and begins anew.
 * @param {string} kind
 * @param {(signal: AbortSignal) => Promise<any>} action
 * @param {() => void} retry offered where the server does not answer
 * @returns what the action returns; undefined where it failed, which is shown, or was replaced
 */
export async function work(kind, action, retry) {
  controllers.get(kind)?.abort();
  const controller = new AbortController();
  controllers.set(kind, controller);
  expect(kind);
  try {
    return await action(controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) complain(error, retry);
    return undefined;
  } finally {
    if (!controller.signal.aborted) finish(kind);
  }
}

/** Work of this kind will begin soon. */
export function expect(kind) {
  working.add(kind);
  document.body.dataset.busy = "true";
}

function finish(kind) {
  working.delete(kind);
  document.body.dataset.busy = String(working.size > 0);
  report(kind, null);
}

export function report(kind, progress) {
  progresses.delete(kind);
  if (progress) progresses.set(kind, progress);
  const shown = [...progresses.values()].pop();
  $("progress-box").classList.toggle("idle", !shown);
  if (!shown) return;
  if (shown.waiting) $("progress").removeAttribute("value");
  else $("progress").value = shown.total ? shown.done / shown.total : 0;
  $("progress-text").textContent = words(shown);
}

function words({ done, total, what, waiting, seconds_left: left }) {
  if (waiting) return "waiting for others";
  if (total === 1) return what;
  const time = left == null ? "" : `, ${left < 90 ? `${Math.ceil(left)} s` : `${Math.round(left / 60)} min`} left`;
  return `${what} ${done} of ${total}${time}`;
}

export function say(text) {
  $("status").textContent = text;
  $("status").classList.remove("error");
  $("again").hidden = true;
}

/** Shows what went wrong; a button tries again where the server has vanished. */
export function complain(error, retry = null) {
  say(error.message);
  $("status").classList.add("error");
  again = retry;
  $("again").hidden = !(retry && error instanceof Unreachable);
}

$("again").addEventListener("click", () => {
  say("");
  again();
});
