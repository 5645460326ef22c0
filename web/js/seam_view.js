// Seam Check: the texture, its repeats, the seam in the middle, and the heat map; drag to pan, turn the wheel to zoom.

import { element, picture } from "./elements.js";
import { address } from "./host.js";
import { corners, fit, layoutOf } from "./tile.js";
import { say } from "./words.js";

const MODES = /** @type {const} */ (["texture", "repeated", "offset", "heat map"]);
const HEIGHT = 260;
/** Factor of the zoom for a turn of the wheel by one notch. */
const NOTCH = 1.2;
const ZOOMS = [1 / 32, 64];
/** Ratio from which a seam that is not visible is still worth a look. */
const CLOSE = 1.2;
const ALONE = layoutOf("off");

/** @returns {import("./panel.js").View} */
export function makeSeamView() {
  const canvas = element("canvas", { className: "tessera-canvas", tabIndex: 0 });
  const badge = element("span", { className: "tessera-badge", textContent: "-" });
  const count = element("button", { type: "button", hidden: true, title: say("The next image of the batch.") });
  const buttons = MODES.map((mode, index) =>
    element("button", { type: "button", textContent: say(mode), title: `${say(mode)} (${index + 1}, R)` }),
  );
  const bar = element("div", { className: "tessera-bar" }, ...buttons, count);
  const body = element("div", { className: "tessera-view" }, bar, canvas, badge);
  canvas.title = say("Drag to pan, turn the wheel to zoom, press R for the next view, double-click to fit.");

  /** @type {HTMLImageElement[]} */
  let textures = [];
  /** @type {HTMLImageElement[]} */
  let heats = [];
  /** @type {[number, number, string]} */
  let layout = [3, 3, "straight"];
  let mode = 1;
  let at = 0;
  let zoom = 1;
  /** @type {[number, number]} */
  let origin = [0, 0];
  let moved = false;

  const image = () => (MODES[mode] === "heat map" ? heats : textures)[at];
  const repeats = () => layoutOf(layout[2]);
  /** @returns {[number, number]} */
  const size = () => [canvas.clientWidth, canvas.clientHeight];

  function refit() {
    const shown = image();
    if (!shown?.naturalWidth || !canvas.clientWidth) return;
    moved = false;
    const { across, down } = repeats();
    /** @type {[number, number]} */
    const wanted = MODES[mode] === "repeated" ? [across ? layout[0] : 1, down ? layout[1] : 1] : [1, 1];
    ({ zoom, origin } = fit([shown.naturalWidth, shown.naturalHeight], wanted, size()));
    draw();
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = size();
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    const context = canvas.getContext("2d");
    const shown = image();
    if (!context || !shown?.naturalWidth) return;
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = zoom < 2;
    /** @type {[number, number]} */
    const tile = [shown.naturalWidth * zoom, shown.naturalHeight * zoom];
    const layoutNow = MODES[mode] === "repeated" || MODES[mode] === "offset" ? repeats() : ALONE;
    let start = origin;
    if (MODES[mode] === "offset") {
      context.beginPath();
      context.rect(...origin, ...tile);
      context.clip();
      start = [origin[0] + (layoutNow.across ? tile[0] / 2 : 0), origin[1] + (layoutNow.down ? tile[1] / 2 : 0)];
    }
    for (const [x, y] of corners(layoutNow, tile, start, [width, height])) context.drawImage(shown, x, y, ...tile);
  }

  /** @param {number} next */
  function choose(next) {
    mode = next;
    buttons.forEach((button, index) => button.classList.toggle("tessera-on", index === mode));
    body.dataset.mode = MODES[mode];
    refit();
  }

  buttons.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  count.addEventListener("click", () => {
    at = (at + 1) % textures.length;
    count.textContent = `${at + 1}/${textures.length}`;
    refit();
  });
  canvas.addEventListener("keydown", (event) => {
    const digit = MODES.findIndex((_, index) => event.key === String(index + 1));
    if (digit < 0 && event.key.toLowerCase() !== "r") return;
    event.stopPropagation();
    event.preventDefault();
    choose(digit < 0 ? (mode + 1) % MODES.length : digit);
  });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    // The canvas around it is zoomed: a px of the screen is not one of the view.
    const scale = canvas.clientWidth / canvas.getBoundingClientRect().width;
    origin = [origin[0] + event.movementX * scale, origin[1] + event.movementY * scale];
    moved = true;
    draw();
  });
  canvas.addEventListener("dblclick", refit);
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const scale = canvas.clientWidth / box.width;
    const point = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const next = Math.min(ZOOMS[1], Math.max(ZOOMS[0], zoom * (event.deltaY < 0 ? NOTCH : 1 / NOTCH)));
    origin = [point[0] - ((point[0] - origin[0]) * next) / zoom, point[1] - ((point[1] - origin[1]) * next) / zoom];
    zoom = next;
    moved = true;
    body.dataset.zoom = zoom.toFixed(3);
    draw();
  });
  new ResizeObserver(() => (moved ? draw() : refit())).observe(canvas);
  choose(mode);

  /** @param {Output} output */
  function show(output) {
    /** @param {ResultFile[]} files */
    const load = (files) => files.map((file, index) => picture(address(file), `${say("texture")} ${index + 1}`));
    textures = load(output.textures ?? []);
    heats = load(output.images ?? []);
    layout = output.layout ?? layout;
    at = 0;
    for (const each of [...textures, ...heats]) each.addEventListener("load", () => each === image() && refit());
    count.hidden = textures.length < 2;
    count.textContent = `1/${textures.length}`;
    showRatio(badge, output);
  }
  return { body, height: () => HEIGHT, show };
}

/**
 * @param {HTMLElement} badge
 * @param {Output} output
 */
function showRatio(badge, output) {
  const ratio = output.seam_ratio?.[0];
  const known = ratio !== undefined && ratio !== null;
  badge.textContent = known ? ratio.toFixed(2) : "-";
  badge.dataset.seam = output.seam_visible?.[0] ? "visible" : !known || ratio > CLOSE ? "close" : "none";
  badge.title = say("Seam ratio: the step across the edge over the median step inside; 1 means no visible seam.");
}
