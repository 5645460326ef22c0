// What this extension takes from the editor: nothing else imports from it.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

export { api, app };

/**
 * The address of a file that a node has shown.
 * @param {ResultFile} file
 */
export function address(file) {
  return api.apiURL(`/view?${new URLSearchParams({ ...file })}`);
}

/**
 * The key of a node in the editor's outputs: its id, after that of its subgraph.
 * @param {GraphNode} node
 */
export function locator(node) {
  const graph = node.graph;
  return !graph || graph === app.rootGraph ? String(node.id) : `${graph.id}:${node.id}`;
}

/**
 * Give a node an output of an earlier run as the server gives one of this run: Vue nodes of the editor 1.49 show images
 * of no other.
 * @param {GraphNode} node
 * @param {Output} output
 */
export function give(node, output) {
  const id = String(node.id);
  if (node.graph === app.rootGraph) {
    api.dispatchCustomEvent("executed", { node: id, display_node: id, prompt_id: "", output });
    return;
  }
  app.nodeOutputs[locator(node)] = output;
  node.onExecuted?.(output);
}

/**
 * The node that a server's id names: "12", or "12:5" inside subgraph 12.
 * @param {string} executionId
 * @returns {GraphNode | null}
 */
export function nodeOf(executionId) {
  /** @type {Graph | undefined} */
  let graph = app.rootGraph;
  /** @type {GraphNode | null} */
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(/^\d+$/.test(id) ? Number(id) : id) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/**
 * Every node of a graph and of the subgraphs in it.
 * @param {Graph} [graph]
 * @returns {Generator<GraphNode>}
 */
export function* allNodes(graph = app.rootGraph) {
  for (const node of graph.nodes) {
    yield node;
    if (node.subgraph) yield* allNodes(node.subgraph);
  }
}

/**
 * The value of a node's widget.
 * @param {GraphNode} node
 * @param {string} name
 */
export function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

/**
 * Call back after any widget of a node has changed, in both renderers.
 * @param {GraphNode} node
 * @param {() => void} changed
 */
export function onChange(node, changed) {
  const before = node.onWidgetChanged;
  node.onWidgetChanged = function (...rest) {
    before?.apply(this, rest);
    changed();
  };
  for (const widget of node.widgets ?? []) {
    const own = widget.callback;
    widget.callback = function (...rest) {
      own?.apply(this, rest);
      changed();
    };
  }
}
