// Inputs that have no effect beside the others' values are greyed.

import { onChange, valueOf } from "./host.js";
import { schedule } from "./schedule.js";

/**
 * By node: which inputs rest, given the values of the others.
 * @type {Record<string, (value: (name: string) => any) => Record<string, boolean>>}
 */
const RESTING = {
  TesseraSeamlessModel: (value) => all(["start_percent", "end_percent", "method"], value("tiling") === "off"),
  TesseraFluxNegative: (value) => all(["method", "start_percent", "end_percent"], value("strength") === 0),
  TesseraSaveImage: (value) => all(["quality"], String(value("format")).startsWith("png")),
  TesseraEnhancePrompt: (value) => all(["temperature"], String(value("model")).startsWith("rules")),
  TesseraImagePrompt: (value) => all(["face_version", "face_structure"], value("face_embedding") === "none"),
};
const SCHEDULERS = ["TesseraScheduler", "TesseraSchedulerKSampler"];

/**
 * The values at which an option is the scheduler's own; others stay open to be set back, as they would be refused.
 * @type {Record<string, any>}
 */
export const OWN = { solver_order: 0, solver_type: "auto", algorithm_type: "auto", eta: -1, original_inference_steps: 0 };

/**
 * @param {string[]} names
 * @param {boolean} resting
 */
function all(names, resting) {
  return Object.fromEntries(names.map((name) => [name, resting]));
}

/**
 * Grey the inputs of a node that rest, now and whenever a value changes.
 * @param {GraphNode} node
 */
export function greyOptions(node) {
  const kind = node.constructor.comfyClass ?? "";
  const rule = RESTING[kind];
  /** @param {Record<string, boolean>} resting */
  const apply = (resting) => {
    for (const widget of node.widgets ?? []) {
      const rests = resting[widget.name];
      if (rests !== undefined && Boolean(widget.disabled) !== rests) widget.disabled = rests;
    }
    node.graph?.setDirtyCanvas(true);
  };
  if (rule) watch(node, () => apply(rule((name) => valueOf(node, name))));
  if (SCHEDULERS.includes(kind)) watch(node, async () => apply(restingOptions(node, await schedule(node))));
}

/**
 * Call back now, after the node is read from a file, and after each change.
 * @param {GraphNode} node
 * @param {() => void} update
 */
export function watch(node, update) {
  onChange(node, update);
  const configure = node.onConfigure;
  node.onConfigure = function (saved) {
    configure?.call(this, saved);
    update();
  };
  queueMicrotask(update);
}

/**
 * @param {GraphNode} node
 * @param {import("./schedule.js").Schedule | null} answer
 */
function restingOptions(node, answer) {
  if (!answer) return {};
  const names = Object.keys(OWN).map((name) => [
    name,
    !answer.options.includes(name) && valueOf(node, name) === OWN[name],
  ]);
  return Object.fromEntries(names);
}
