/** A pad of the data's size: draw, or bring a picture, and let the machine finish it. */

import { post } from "./api.js";
import { $ } from "./dom.js";
import { complain, say, work } from "./work.js";

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * @param {object} setup from the server
 * @param {object} on
 * @param {(start: string, level: string) => void} on.finish with the picture as the server names it
 * @param {() => void} on.noise
 * @param {() => string | undefined} on.result the picture that is shown
 */
export function drawing(setup, on) {
  const [channels, height, width] = setup.data.shape;
  const empty = channels === 1 ? "#000000" : "#808080";
  const pad = $("pad");
  const paper = pad.getContext("2d", { willReadFrequently: true });
  let cursor = [Math.floor(height / 2), Math.floor(width / 2)];
  let from = null;

  pad.height = height;
  pad.width = width;
  $("pad-box").style.aspectRatio = `${width} / ${height}`;
  $("grey-field").hidden = channels !== 1;
  $("colour-field").hidden = channels === 1;
  $("brush-size").value = Math.max(1, Math.round(Math.min(height, width) / 14));
  clear();
  showBrush();
  moveCursor(0, 0);

  function clear() {
    paper.fillStyle = empty;
    paper.fillRect(0, 0, width, height);
  }

  function colour() {
    if ($("eraser").checked) return empty;
    const grey = $("brush").value;
    return channels === 1 ? `rgb(${grey} ${grey} ${grey})` : $("colour").value;
  }

  function showBrush() {
    $("brush-swatch").style.background = colour();
    $("brush-size-text").textContent = `${$("brush-size").value} px`;
  }

  function dot(row, col) {
    const size = Number($("brush-size").value);
    const corner = Math.floor((size - 1) / 2);
    paper.fillStyle = colour();
    paper.fillRect(col - corner, row - corner, size, size);
  }

  /** Paints from the last point to this one without gaps. */
  function stroke(event) {
    const { left, top, width: across, height: down } = pad.getBoundingClientRect();
    const to = [
      Math.floor(((event.clientY - top) / down) * height),
      Math.floor(((event.clientX - left) / across) * width),
    ];
    from ??= to;
    const length = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
    for (let i = 0; i <= length; i++) {
      dot(...from.map((start, axis) => Math.round(start + ((to[axis] - start) * i) / length)));
    }
    from = to;
  }

  function moveCursor(down, right) {
    cursor = [
      Math.min(Math.max(cursor[0] + down, 0), height - 1),
      Math.min(Math.max(cursor[1] + right, 0), width - 1),
    ];
    const { style } = $("pad-cursor");
    style.top = `${(100 * cursor[0]) / height}%`;
    style.left = `${(100 * cursor[1]) / width}%`;
    style.height = `${100 / height}%`;
    style.width = `${100 / width}%`;
  }

  /** The pad as C x H x W. */
  function content() {
    const { data } = paper.getImageData(0, 0, width, height);
    return Array.from({ length: channels }, (_, c) =>
      Array.from({ length: height }, (_, y) =>
        Array.from({ length: width }, (_, x) => data[4 * (y * width + x) + c])));
  }

  async function put(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    paper.drawImage(image, 0, 0, width, height);
  }

  async function bring(file) {
    if (!file) return;
    if (file.size > setup.max_upload) {
      const limit = (setup.max_upload / 2 ** 20).toFixed(0);
      complain(new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; the limit is ${limit} MB.`));
      return;
    }
    const found = await work("picture", () => post("api/picture", file), () => bring(file));
    if (!found) return;
    await put(found.picture);
    say(`${file.name} is on the pad.`);
  }

  async function finish() {
    const body = JSON.stringify({ pixels: content() });
    const found = await work("picture", () => post("api/drawn", body), finish);
    if (found) on.finish(found.start, $("level").value);
  }

  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    from = null;
    stroke(event);
  });
  pad.addEventListener("pointermove", (event) => pad.hasPointerCapture(event.pointerId) && stroke(event));
  pad.addEventListener("keydown", (event) => {
    if (ARROWS[event.key]) moveCursor(...ARROWS[event.key]);
    else if (event.key === " ") dot(...cursor);
    else return;
    event.preventDefault();
  });
  for (const name of ["brush", "colour", "brush-size", "eraser"]) $(name).addEventListener("input", showBrush);
  $("clear").addEventListener("click", clear);
  $("upload").addEventListener("change", () => bring($("upload").files[0]));
  $("view-draw").addEventListener("dragover", (event) => event.preventDefault());
  $("view-draw").addEventListener("drop", (event) => {
    event.preventDefault();
    bring(event.dataTransfer.files[0]);
  });
  $("use-result").addEventListener("click", () => on.result() && put(on.result()));
  $("level").addEventListener("input", showLevel);
  $("finish").addEventListener("click", finish);
  $("from-noise").addEventListener("click", on.noise);

  function showLevel() {
    $("level-text").textContent = Number($("level").value).toFixed(2);
  }

  /** Follows the view: the level, and whether a picture is the start; from a link, puts it on the pad. */
  function sync({ start, level }) {
    $("from-noise").hidden = start === "";
    $("level").value = level;
    showLevel();
  }

  const restore = (start) =>
    put(`data:image/png;base64,${start.replaceAll("-", "+").replaceAll("_", "/")}`).catch(() => {});

  return { sync, restore };
}
