/** Four pictures of one step of the flow, the slider over its steps, and the pixel that is looked at. */

import { $, count, imageText, make, windowText } from "./dom.js";
import { overlay } from "./overlay.js";

const PANELS = { state: "Noisy picture", prediction: "Clean prediction", sources: "Source map", belief: "Belief" };
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const PLAY_EVERY = 350; // milliseconds

/**
 * @param {[number, number, number]} shape of the data
 * @param {object} on
 * @param {(step: number) => void} on.step
 * @param {(row: number, col: number) => void} on.pixel
 * @param {() => void} on.trace asks for the maps of the shown step
 */
export function flow([, height, width], on) {
  let result = null;
  let step = 0;
  let pixel = null;
  let timer = null;

  const panels = Object.keys(PANELS).map((name) => {
    const element = $(`panel-${name}`);
    const outline = overlay(height, width);
    element.style.aspectRatio = `${width} / ${height}`;
    element.append(outline.svg);
    element.addEventListener("click", select);
    element.addEventListener("pointermove", (event) => event.buttons & 1 && select(event));
    element.addEventListener("keydown", move);
    return { name, element, image: element.querySelector("img"), outline };
  });
  const asks = ["sources", "belief"].map((name) => {
    const button = make("button", { type: "button", class: "trace", hidden: "" }, "Trace this step");
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      on.trace();
    });
    $(`panel-${name}`).after(button);
    return button;
  });
  $("step").addEventListener("input", () => {
    pause();
    on.step(Number($("step").value));
  });
  $("play").addEventListener("click", () => (timer ? pause() : play()));

  function select({ currentTarget, clientX, clientY }) {
    const { left, top, width: across, height: down } = currentTarget.getBoundingClientRect();
    choose(Math.floor(((clientY - top) / down) * height), Math.floor(((clientX - left) / across) * width));
  }

  function move(event) {
    const by = ARROWS[event.key];
    if (!by || !pixel) return;
    event.preventDefault();
    choose(pixel[0] + by[0], pixel[1] + by[1]);
  }

  function choose(row, col) {
    const to = [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(col, 0), width - 1)];
    if (result && to.join() !== pixel?.join()) on.pixel(...to);
  }

  function play() {
    const last = result.times.length - 1;
    if (step === last) on.step(0);
    timer = setInterval(() => {
      if (step < last) on.step(step + 1);
      if (step === last) pause();
    }, PLAY_EVERY);
    $("play").setAttribute("aria-label", "Pause");
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    $("play").setAttribute("aria-label", "Play");
  }

  /** Shows a new result from its beginning. */
  function open(shown) {
    pause();
    result = shown;
    $("step").max = result.times.length - 1;
    $("step").disabled = $("play").disabled = false;
    $("panels").classList.remove("stale");
  }

  /**
   * @param {number} k
   * @param {object | undefined} map of this step, where it is known
   */
  function showStep(k, map) {
    step = k;
    const sources = { state: result.states[k], prediction: result.predictions[k], ...map };
    for (const { name, image } of panels) {
      image.hidden = !sources[name];
      if (sources[name]) image.src = sources[name];
      image.alt = `${PANELS[name]} at t = ${result.times[k].toFixed(2)}`;
    }
    for (const button of asks) button.hidden = map !== undefined;
    $("sources-caption").replaceChildren(...(map ? sourcesCaption(map, height * width) : []));
    $("belief-caption").replaceChildren(...(map ? beliefCaption(map) : []));
    const words = [
      `step ${k + 1} of ${result.times.length}`,
      `t = ${result.times[k].toFixed(2)}`,
      `ᾱ = ${result.alpha_bars[k].toFixed(2)}`,
      result.windows[k] === null ? "sees the whole image" : `window ${windowText(result.windows[k])}`,
    ];
    $("step").value = k;
    $("step").setAttribute("aria-valuetext", words.join(", "));
    $("step-text").textContent = words.join(" · ");
    outline();
  }

  function showPixel(row, col) {
    pixel = [row, col];
    outline();
  }

  function outline() {
    if (!pixel) return;
    const window = result.windows[step];
    const [row, col] = pixel;
    const box = window === null
      ? [0, 0, height, width]
      : [row - (window - 1) / 2, col - (window - 1) / 2, window, window];
    for (const panel of panels) panel.outline.show(box, row, col, result.wraps);
  }

  const dim = () => $("panels").classList.add("stale");
  return { open, showStep, showPixel, dim };
}

function sourcesCaption({ named }, all) {
  const swatches = named.map(({ image, class: kind, colour, pixels }) => {
    const swatch = make("span", { class: "swatch", title: `${imageText(image, kind)}: ${pixels} of ${all} pixels in the end` });
    swatch.style.background = colour;
    return swatch;
  });
  return [
    make("span", { class: "swatches" }, ...swatches, "grey: others"),
    make("span", {}, "the paler, the less believed"),
  ];
}

function beliefCaption({ median, patches }) {
  return [
    make("span", { class: "legend" }, "1", make("span", { class: "ramp" }), count(patches)),
    make("span", {}, `median ${count(median)} of ${count(patches)} patches`),
  ];
}
