/** The settings at the left: they write into the view and ask for runs. */

import { $, make } from "./dom.js";
import { complain } from "./work.js";

/**
 * @param {object} setup from the server
 * @param {object} view changed in place
 * @param {() => void} run called when the settings call for another run
 */
export function controls(setup, view, run) {
  build(setup);
  const narrow = matchMedia("(max-width: 720px)");
  const fold = () => ($("settings").open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();

  function sync() {
    const machine = machineOf(setup, view);
    const radio = $(`machine-${view.machine}`);
    if (radio) radio.checked = true;
    for (const name of ["locality", "padding", "label", "steps", "seed"]) $(name).value = view[name];
    $("second").value = view.second || machine?.beside;
    $("machine-long").textContent = machine?.long ?? "";
    $("locality-field").hidden = !machine?.local;
    $("padding-field").hidden = !machine?.padding;
    $("label-field").hidden = setup.data.classes.length === 0;
    $("locality-hint").textContent = setup.localities.find((one) => one.name === view.locality)?.title ?? "";
    $("from-picture").hidden = view.start === "";
    $("from-picture").textContent = `From your picture at t = ${Number(view.level).toFixed(2)}`;
    const sees = machine?.local ? [$("locality").selectedOptions[0]?.text] : [];
    $("settings-summary").textContent = [machine?.short, ...sees, `seed ${view.seed}`].filter(Boolean).join(" · ");
  }

  function change(name, value) {
    view[name] = value;
    sync();
    run();
  }

  for (const radio of $("machines").querySelectorAll("input")) {
    radio.addEventListener("change", () => change("machine", radio.value));
  }
  for (const name of ["locality", "padding", "label"]) {
    $(name).addEventListener("change", () => change(name, $(name).value));
  }
  for (const name of ["steps", "seed"]) {
    $(name).addEventListener("change", () => valid(name) && change(name, String(Number($(name).value))));
  }
  $("next-seed").addEventListener("click", () => {
    const seed = Number(view.seed) + 1;
    change("seed", String(seed > Number($("seed").max) ? 0 : seed));
  });
  $("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (valid("steps") && valid("seed")) run();
  });
  return { sync, change };
}

export const machineOf = (setup, view) => setup.machines.find((one) => one.name === view.machine);

function build(setup) {
  for (const { name, short, long } of setup.machines) {
    const radio = make("input", { type: "radio", name: "machine", id: `machine-${name}`, value: name });
    $("machines").append(radio, make("label", { for: radio.id, title: long }, short));
    $("second").append(make("option", { value: name }, short));
  }
  for (const { name } of setup.localities) $("locality").append(make("option", { value: name }, name));
  for (const size of setup.windows) $("locality").append(make("option", { value: size }, `${size} × ${size}`));
  for (const { label, name } of setup.data.classes) $("label").append(make("option", { value: label }, name));
  $("steps").max = setup.max_steps;
}

/** Whether a number may be sent; if not, says what it must be. */
function valid(name) {
  const field = $(name);
  const good = field.value !== "" && field.checkValidity();
  field.setAttribute("aria-invalid", String(!good));
  if (!good) complain(new Error(`${field.labels[0].textContent} must be a whole number from ${field.min} to ${field.max}.`));
  return good;
}
