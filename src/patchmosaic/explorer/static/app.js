/** The explorer: the view, what is shown of it, and what happens when it changes. */

import { getBlob, getJson, stream } from "./api.js";
import { controls, machineOf } from "./controls.js";
import { dial } from "./dial.js";
import { $, debounced, imageText, make, plural } from "./dom.js";
import { drawing } from "./draw.js";
import { flow } from "./flow.js";
import { network } from "./network.js";
import { pixelView } from "./pixel.js";
import { known, showTab, tabs } from "./tabs.js";
import { query, readAddress, readDefaults, runQuery, writeAddress } from "./view.js";
import { expect, report, say, work } from "./work.js";

async function start() {
  const setup = await work("setup", () => getJson("api/setup"), start);
  if (setup) explore(setup);
}

function explore(setup) {
  const defaults = readDefaults(setup.defaults);
  const view = readAddress(location.search, defaults);
  const [channels, height, width] = setup.data.shape;
  /** @type {{query: string, result: object, maps: (object | undefined)[]} | null} */
  let shown = null;
  let underWay = null;

  const settings = controls(setup, view, run);
  const panels = flow(setup.data.shape, { step: goTo, pixel: lookAt, trace });
  const patches = pixelView(setup.data.shape);
  const strip = dial(chooseLocality);
  const trained = network(setup);
  const pad = drawing(setup, { finish: startFrom, noise: () => startFrom("", view.level), result: () => shown?.result.picture });

  const { name, count } = setup.data;
  const kind = channels === 1 ? "grey" : "colour";
  $("about").textContent = `${name}: ${plural(count, "training image")}, ${width} × ${height}, ${kind}`;
  document.title = `${name} – patchmosaic explorer`;
  if (!known(view.tab)) view.tab = defaults.tab;
  $("second").addEventListener("change", () => {
    const { value } = $("second");
    view.second = value === machineOf(setup, view)?.beside ? defaults.second : value;
    remember();
    patchesSoon();
  });
  tabs(openTab);
  if (view.start) pad.restore(view.start);
  showTab(view.tab);

  const last = () => shown.result.times.length - 1;
  const step = () => (view.step === "" ? last() : Number(view.step));
  const remember = () => writeAddress(view, defaults);

  async function run() {
    settings.sync();
    pad.sync(view);
    const asked = runQuery(sent(), defaults);
    if (asked === underWay) return;
    underWay = asked;
    panels.dim();
    patches.wait();
    say("");
    const began = performance.now();
    const result = await work(
      "run",
      (signal) => stream(`api/run?${asked}`, signal, ({ progress }) => report("run", progress)),
      run,
    );
    if (underWay === asked) underWay = null;
    if (!result) return;
    open(asked, result);
    say(`Drawn in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  }

  /** The view without what its machine does not have. */
  function sent() {
    const machine = machineOf(setup, view);
    return {
      ...view,
      locality: machine?.local === false ? defaults.locality : view.locality,
      padding: machine?.padding === false ? defaults.padding : view.padding,
      level: view.start ? view.level : defaults.level,
    };
  }

  function open(asked, result) {
    const before = shown?.result.times.length ?? result.times.length;
    shown = { query: asked, result, maps: result.maps ?? [] };
    if (before !== result.times.length || !inside(view.step, last())) view.step = "";
    if (!inside(view.row, height) || !inside(view.col, width)) {
      [view.row, view.col] = [height, width].map((size) => String(Math.floor(size / 2)));
    }
    panels.open(result);
    showOutcome(result);
    goTo(step());
    panels.showPixel(Number(view.row), Number(view.col));
    openTab(view.tab);
    document.body.dataset.ready = "true";
  }

  function showOutcome({ picture, nearest }) {
    $("outcome").hidden = false;
    $("outcome-picture").src = picture;
    $("outcome-nearest").src = nearest.picture;
    const name = imageText(nearest.image, nearest.class);
    $("outcome-caption").textContent = `Nearest: ${name}, distance ${nearest.distance.toFixed(2)}`;
  }

  function goTo(k) {
    view.step = k === last() ? "" : String(k);
    panels.showStep(k, shown.maps[k]);
    remember();
    patchesSoon();
  }

  function lookAt(row, col) {
    [view.row, view.col] = [String(row), String(col)];
    panels.showPixel(row, col);
    remember();
    patchesSoon();
  }

  function patchesSoon() {
    expect("pixel");
    askPatches();
  }
  const askPatches = debounced(80, showPatches);

  async function showPatches() {
    const { row, col } = view;
    const state = shown.result.states[step()];
    const found = await work(
      "pixel",
      (signal) => stream(`api/pixel?${whole()}`, signal, ({ progress }) => report("pixel", progress)),
      showPatches,
    );
    if (found) patches.show(Number(row), Number(col), state, found);
  }

  async function trace() {
    const [{ query: asked, maps }, k] = [shown, step()];
    const map = await work(
      "trace",
      (signal) => stream(`api/trace?${asked}&step=${k}`, signal, ({ progress }) => report("trace", progress)),
      trace,
    );
    if (!map) return;
    maps[k] = map;
    if (shown.maps === maps && step() === k) panels.showStep(k, map);
  }

  /** The view of the shown flow, as a query. */
  function whole() {
    const { second, step, row, col } = view;
    return `${shown.query}&${new URLSearchParams({ second, step, row, col })}`;
  }

  function openTab(tab) {
    view.tab = tab;
    showTab(tab);
    if (!shown) return;
    remember();
    if (tab === "dial") strip.show(dialQuery(), view.machine === "is" ? "whole" : view.locality);
    if (tab === "network") trained.show(shown.query, machineOf(setup, view).short);
  }

  const dialQuery = () => {
    const asked = new URLSearchParams(shown.query);
    asked.delete("locality");
    return asked.toString();
  };

  function chooseLocality(locality) {
    const listed = [...$("locality").options].some(({ value }) => value === locality);
    if (!listed) return settings.change("machine", "is");
    if (!machineOf(setup, view).local) view.machine = defaults.machine;
    return settings.change("locality", locality);
  }

  function startFrom(picture, level) {
    [view.start, view.level] = [picture, level];
    run();
  }

  $("run-dial").addEventListener("click", () => shown && strip.draw(dialQuery()));
  $("copy-link").addEventListener("click", () => copy(location.href, "Link copied.", "Link to this view"));
  $("show-command").addEventListener("click", async () => {
    if (!shown) return;
    const told = await work("command", () => getJson(`api/command?${whole()}`), () => $("show-command").click());
    if (told) showText("The same view from a shell", told.command);
  });
  $("copy-command").addEventListener("click", () => copy($("command").textContent, "Copied.", $("dialog-title").textContent));
  $("save-png").addEventListener("click", async () => {
    if (!shown) return;
    const blob = await work("export", () => getBlob(`api/export.png?${whole()}`), () => $("save-png").click());
    if (blob) download(blob, `patchmosaic-${name}-seed-${view.seed}.png`);
  });
  run();
}

const inside = (text, size) => text !== "" && Number.isInteger(Number(text)) && Number(text) >= 0 && Number(text) < size;

async function copy(text, done, title) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    showText(title, text); // pages that are not served from this machine may not write to the clipboard
    getSelection().selectAllChildren($("command"));
  }
}

function showText(title, text) {
  $("dialog-title").textContent = title;
  $("command").textContent = text;
  if (!$("dialog").open) $("dialog").showModal();
}

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

start();
