// Seam Check: the texture, its repeats, the seam in the middle, and the heat map; drag to pan, turn the wheel to zoom.

import { element, picture } from "./elements.js";
import { address } from "./host.js";
import { fit, layoutOf } from "./tile.js";
import { say } from "./words.js";
import { paint, steer } from "./zoom.js";

const MODES = /** @type {const} */ (["texture", "repeated", "offset", "heat map"]);
const HEIGHT = 260;
/** Ratio from which a seam that is not visible is still worth a look. */
const CLOSE = 1.2;
const ALONE = layoutOf("off");

/** @returns {import("./panel.js").View} */
export function makeSeamView() {
  const canvas = element("canvas", { className: "tessera-canvas", tabIndex: 0 });
  const badge = element("span", { className: "tessera-badge", textContent: "-" });
  const next = element("button", { type: "button", hidden: true, title: say("The next image of the batch.") });
  const buttons = MODES.map((mode, index) =>
    element("button", { type: "button", textContent: say(mode), title: `${say(mode)} (${index + 1}, R)` }),
  );
  const bar = element("div", { className: "tessera-bar" }, ...buttons, next);
  const body = element("div", { className: "tessera-view" }, bar, canvas, badge);
  canvas.title = say("Drag to pan, turn the wheel to zoom, press R for the next view, double-click to fit.");

  /** @type {Record<"textures" | "images", HTMLImageElement[]>} */
  const shown = { textures: [], images: [] };
  /** @type {import("./zoom.js").Place} */
  const place = { zoom: 1, origin: [0, 0], moved: false };
  /** @type {[number, number, string]} */
  let layout = [3, 3, "straight"];
  let [mode, at] = [1, 0];

  const image = () => (MODES[mode] === "heat map" ? shown.images : shown.textures)[at];
  const repeats = () => (["repeated", "offset"].includes(MODES[mode]) ? layoutOf(layout[2]) : ALONE);

  function draw() {
    body.dataset.zoom = place.zoom.toFixed(3);
    paint(canvas, image(), place, repeats(), MODES[mode] === "offset");
  }

  function refit() {
    const { naturalWidth, naturalHeight } = image() ?? {};
    if (!naturalWidth || !naturalHeight || !canvas.clientWidth) return;
    const { across, down } = repeats();
    const many = MODES[mode] === "repeated";
    /** @type {[number, number]} */
    const wanted = [many && across ? layout[0] : 1, many && down ? layout[1] : 1];
    const fitted = fit([naturalWidth, naturalHeight], wanted, [canvas.clientWidth, canvas.clientHeight]);
    Object.assign(place, fitted, { moved: false });
    draw();
  }

  /** @param {number} chosen */
  function choose(chosen) {
    mode = chosen;
    buttons.forEach((button, index) => button.classList.toggle("tessera-on", index === mode));
    body.dataset.mode = MODES[mode];
    refit();
  }

  /** @param {number} chosen */
  function turnTo(chosen) {
    at = chosen;
    next.hidden = shown.textures.length < 2;
    next.textContent = `${at + 1}/${shown.textures.length}`;
    refit();
  }

  /** @param {Output} output */
  function show(output) {
    for (const kind of /** @type {const} */ (["textures", "images"])) {
      shown[kind] = (output[kind] ?? []).map((file, n) => picture(address(file), `${say("texture")} ${n + 1}`));
      for (const each of shown[kind]) each.addEventListener("load", () => each === image() && refit());
    }
    layout = output.layout ?? layout;
    turnTo(0);
    showRatio(badge, output);
  }

  buttons.forEach((button, index) => button.addEventListener("click", () => choose(index)));
  next.addEventListener("click", () => turnTo((at + 1) % shown.textures.length));
  canvas.addEventListener("dblclick", refit);
  canvas.addEventListener("keydown", (event) => {
    const chosen = event.key.toLowerCase() === "r" ? (mode + 1) % MODES.length : "1234".indexOf(event.key);
    if (chosen < 0 || event.ctrlKey || event.metaKey) return;
    event.stopPropagation();
    event.preventDefault();
    choose(chosen);
  });
  steer(canvas, place, draw);
  new ResizeObserver(() => (place.moved ? draw() : refit())).observe(canvas);
  choose(mode);
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
