/** What a trained network draws from the same noise, beside the theory. */

import { stream } from "./api.js";
import { $ } from "./dom.js";
import { report, work } from "./work.js";

/** @param {object} setup from the server */
export function network(setup) {
  let loaded = null;

  async function show(query, machine) {
    if (!setup.network) {
      $("network-text").textContent = setup.network_hint;
      return;
    }
    if (query === loaded) return;
    loaded = query;
    $("network").classList.add("stale");
    $("network-text").textContent = "The network is drawing …";
    const onLine = ({ progress }) => report("network", progress);
    const failed = (error) => {
      if (error.name !== "AbortError") $("network-text").textContent = error.message;
      throw error;
    };
    const result = await work(
      "network",
      (signal) => stream(`api/network?${query}`, signal, onLine).catch(failed),
      () => show(query, machine),
    );
    if (loaded !== query) return;
    $("network").hidden = !result;
    if (result) open(result, machine);
    else loaded = null;
  }

  return { show };
}

function open({ picture, theory, difference, r, r2, steps, name }, machine) {
  $("network").classList.remove("stale");
  $("network-text").textContent = "";
  $("network-picture").src = picture;
  $("network-theory").src = theory;
  $("network-difference").src = difference;
  $("network-name").textContent = `${name}, ${steps} steps`;
  $("theory-name").textContent = `theory: ${machine}`;
  $("network-r").textContent = r.toFixed(2);
  $("network-meaning").textContent = `${meaning(r)} (r is the correlation of the two pictures’ pixels, 1 where they are the same; r² = ${r2.toFixed(2)}.)`;
}

function meaning(r) {
  if (r >= 0.9) return "From this noise the theory draws nearly what the network draws.";
  if (r >= 0.7) return "From this noise the theory draws much of what the network draws.";
  if (r >= 0.4) return "From this noise the theory draws some of what the network draws.";
  return "From this noise the theory and the network draw different pictures.";
}
