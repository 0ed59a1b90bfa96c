/** The view: what a link holds. Values are text, as in the address; empty is none. */

export const DEFAULTS = {
  machine: "bbels", locality: "auto", padding: "zeros", label: "", seed: "0", steps: "20", start: "", level: "0.5",
  second: "", step: "", row: "", col: "", tab: "pixel",
};
const OF_RUN = ["machine", "locality", "padding", "label", "seed", "steps", "start", "level"];

/** The defaults as the server knows them. */
export function readDefaults(sent = {}) {
  const view = { ...DEFAULTS };
  for (const name of Object.keys(view)) if (sent[name] != null) view[name] = String(sent[name]);
  return view;
}

export function readAddress(search, defaults) {
  const given = new URLSearchParams(search);
  const view = { ...defaults };
  for (const name of Object.keys(view)) if (given.has(name)) view[name] = given.get(name);
  return view;
}

/** Only what differs from the defaults. */
export function query(view, defaults, names = Object.keys(view)) {
  const found = new URLSearchParams();
  for (const name of names) if (view[name] !== defaults[name]) found.set(name, view[name]);
  return found.toString();
}

export const runQuery = (view, defaults) => query(view, defaults, OF_RUN);

export function writeAddress(view, defaults) {
  const text = query(view, defaults);
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}
