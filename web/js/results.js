// What nodes have shown, kept over undo, copy and paste, and reload, and never written into a workflow file.
//
// The editor keeps outputs by node over undo and change of tab. What is copied carries them to the pasted node. After a
// reload of the page they are read from the server's history, which lives as long as the images do.

import { api, app, give, locator, nodeOf } from "./host.js";

const CARRIED = "tessera_shown";
/** How many of the latest runs are searched for the results of a graph. */
const RUNS = 16;

/**
 * Follow the results of a node.
 * @param {GraphNode} node
 * @param {(output: Output) => void} show
 */
export function follow(node, show) {
  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.call(this, output);
    show(output);
  };
  const clone = node.clone;
  node.clone = function () {
    // Copies are clones that are written to the clipboard and put into no graph.
    const copy = clone.call(this);
    const shown = node.graph && app.nodeOutputs[locator(node)];
    if (copy && shown) copy.properties[CARRIED] = shown;
    return copy;
  };
  const configure = node.onConfigure;
  node.onConfigure = function (saved) {
    configure?.call(this, saved);
    const carried = node.properties[CARRIED];
    if (!node.graph) return;
    delete node.properties[CARRIED];
    const output = app.nodeOutputs[locator(node)];
    if (output) show(output);
    else if (carried) give(node, carried);
  };
}

/**
 * Read the results of the graph's latest runs from the server's history.
 * @returns {Promise<[GraphNode, Output][]>}
 */
export async function fromHistory() {
  const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
  if (!answer.ok) return [];
  const graphId = app.rootGraph.id;
  /** @type {Map<GraphNode, Output>} */
  const found = new Map();
  for (const run of Object.values(await answer.json())) {
    if (run.prompt?.[3]?.extra_pnginfo?.workflow?.id !== graphId) continue;
    for (const [id, output] of Object.entries(run.outputs ?? {})) {
      const node = nodeOf(id);
      if (node) found.set(node, output);
    }
  }
  return [...found];
}
