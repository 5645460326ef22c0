// Tessera in ComfyUI's editor: every node shows its results in itself, in both renderers.

import { makeCompareView } from "./compare_view.js";
import { loadStyle } from "./elements.js";
import { translateForeign } from "./foreign.js";
import { app, give, locator } from "./host.js";
import { greyOptions } from "./options.js";
import { addPanel } from "./panel.js";
import { makePlotView } from "./plot_view.js";
import { makeRepeatView } from "./repeat_view.js";
import { follow, fromHistory } from "./results.js";
import { makeSeamView } from "./seam_view.js";
import { makeSheetView } from "./sheet_view.js";
import { loadWords } from "./words.js";

/** @type {Record<string, ((node: GraphNode) => import("./panel.js").View) | undefined>} */
const VIEWS = {
  TesseraSeamCheck: makeSeamView,
  TesseraCompareImages: makeCompareView,
  TesseraSchedulerCompare: makeSheetView,
  TesseraSampleSteps: makeSheetView,
  TesseraScheduler: makePlotView,
  TesseraSeamlessModel: makeRepeatView,
};
/** Nodes whose images the view shows: the editor's own preview would show them once more. */
const SHOWN_HERE = ["TesseraSeamCheck", "TesseraScheduler", "TesseraSchedulerCompare"];
const TEXTS = ["report", "files", "prompt"];
/** Nodes without a panel before a run, which show something after it. */
const LATE = ["TesseraImagePrompt", "TesseraReferenceMap", "TesseraSaveImage", "TesseraNormalToHeight"];

/** @type {WeakMap<GraphNode, (output: Output) => void>} */
const shows = new WeakMap();
/** Nodes that show results. @type {WeakSet<GraphNode>} */
const waiting = new WeakSet();

/** @param {Record<string, Output>} outputs */
function showAll(outputs) {
  const nodes = app.graph?.nodes ?? [];
  for (const node of nodes) {
    const output = outputs[locator(node)];
    if (output) shows.get(node)?.(output);
  }
}

/** Show what the server remembers of nodes that the editor has no output of, as after a reload of the page. */
async function restore() {
  /** @param {GraphNode} node */
  const lacks = (node) => waiting.has(node) && !app.nodeOutputs[locator(node)];
  if (!app.rootGraph.nodes.some(lacks)) return;
  for (const [node, output] of await fromHistory()) {
    if (lacks(node)) give(node, output);
  }
}

app.registerExtension({
  name: "Tessera",
  async setup() {
    loadStyle();
    await loadWords();
  },
  /** @param {GraphNode} node */
  nodeCreated(node) {
    const kind = node.constructor.comfyClass ?? "";
    if (!kind.startsWith("Tessera")) return;
    const make = VIEWS[kind];
    const reports = Boolean(node.constructor.nodeData?.output_name?.some((name) => TEXTS.includes(name)));
    if (SHOWN_HERE.includes(kind)) {
      node.hideOutputImages = true;
      node.onDrawBackground = () => {};
    }
    const show = lazily(() => addPanel(node, make?.(node) ?? null, reports), Boolean(make) || reports);
    shows.set(node, show);
    if (make || reports || LATE.includes(kind)) waiting.add(node);
    follow(node, show);
    greyOptions(node);
    translateForeign(node);
  },
  /** @param {Record<string, Output>} outputs */
  onNodeOutputsUpdated: showAll,
  afterConfigureGraph() {
    // The graph is there first.
    setTimeout(restore);
  },
});

/**
 * Make a panel now, or when there is the first text to show.
 * @param {() => (output: Output) => void} make
 * @param {boolean} now
 * @returns {(output: Output) => void}
 */
function lazily(make, now) {
  let show = now ? make() : null;
  return (output) => {
    if (!show && !output.text) return;
    show ??= make();
    show(output);
  };
}
