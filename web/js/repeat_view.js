// Seamless Model: while a sampler with this model runs, its preview repeated 3 x 3.

import { element } from "./elements.js";
import { allNodes, api, nodeOf, valueOf } from "./host.js";
import { resize } from "./panel.js";
import { corners, layoutOf } from "./tile.js";
import { say } from "./words.js";

const BAR = 28;
const HEIGHT = 220;
const COUNT = 3;
const SETTING = "repeat_preview";

/** @type {WeakMap<GraphNode, (image: ImageBitmap) => void>} */
const draws = new WeakMap();
let listening = false;

/**
 * @param {GraphNode} node
 * @returns {import("./panel.js").View}
 */
export function makeRepeatView(node) {
  listen();
  const box = element("input", { type: "checkbox" });
  const label = element("label", { className: "tessera-bar" }, box, say("Show latents repeated 3 x 3"));
  label.title = say("Needs a preview method: Settings > Comfy > Execution > Live preview method.");
  const canvas = element("canvas", { className: "tessera-canvas", hidden: true });
  const body = element("div", { className: "tessera-view" }, label, canvas);
  const height = () => (canvas.hidden ? BAR : BAR + HEIGHT);

  function apply() {
    const on = Boolean(node.properties[SETTING]);
    box.checked = on;
    if (canvas.hidden !== on) return;
    canvas.hidden = !on;
    const panel = body.closest(".tessera-panel");
    if (panel instanceof HTMLElement) {
      const change = on ? HEIGHT : -HEIGHT;
      resize(node, panel, () => Number.parseInt(panel.style.minHeight, 10) + change);
    }
  }
  box.addEventListener("change", () => {
    node.properties[SETTING] = box.checked;
    apply();
  });
  const configure = node.onConfigure;
  node.onConfigure = function (saved) {
    configure?.call(this, saved);
    apply();
  };
  draws.set(node, (image) => {
    if (!canvas.hidden) drawRepeats(canvas, image, String(valueOf(node, "tiling")));
  });
  return { body, height, show: () => {} };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} image
 * @param {string} tiling
 */
function drawRepeats(canvas, image, tiling) {
  const context = canvas.getContext("2d");
  if (!context) return;
  canvas.width = COUNT * image.width;
  canvas.height = COUNT * image.height;
  const layout = layoutOf(tiling);
  /** @type {[number, number]} */
  const origin = [layout.across ? 0 : image.width, layout.down ? 0 : image.height];
  const size = /** @type {[number, number]} */ ([canvas.width, canvas.height]);
  for (const [x, y] of corners(layout, [image.width, image.height], origin, size)) context.drawImage(image, x, y);
}

/** Hear previews, and hand each to the Seamless Models above the node that samples. */
function listen() {
  if (listening) return;
  listening = true;
  api.addEventListener("b_preview_with_metadata", async (event) => {
    const { blob, nodeId, displayNodeId } = /** @type {CustomEvent} */ (event).detail;
    const sampler = nodeOf(displayNodeId ?? nodeId);
    const watching = [...allNodes()].filter((node) => draws.has(node) && node.properties[SETTING]);
    if (!sampler || !watching.length) return;
    const above = ancestors(sampler);
    const image = await createImageBitmap(blob);
    for (const node of watching) if (above.has(node)) draws.get(node)?.(image);
  });
}

/**
 * The nodes that a node depends on, with itself.
 * @param {GraphNode} node
 * @param {Set<GraphNode>} [found]
 */
function ancestors(node, found = new Set()) {
  if (found.has(node)) return found;
  found.add(node);
  node.inputs?.forEach((_, slot) => {
    const above = node.getInputNode(slot);
    if (above) ancestors(above, found);
  });
  return found;
}
