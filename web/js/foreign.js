// Words of other packs in nodes that ComfyUI has put in the place of theirs.

/**
 * nodes/replacements.py has the same table for graphs that are run without the editor.
 * @type {Record<string, string>}
 */
const TILINGS = { enable: "both", x_only: "horizontal", y_only: "vertical", disable: "off" };
const NODES = ["TesseraSeamlessModel", "TesseraSeamlessVAE"];

/**
 * Show our word where a replaced node's value is taken over.
 * @param {GraphNode} node
 */
export function translateForeign(node) {
  if (!NODES.includes(node.constructor.comfyClass ?? "")) return;
  const widget = node.widgets?.find((each) => each.name === "tiling");
  if (!widget) return;
  const own = widget.callback;
  widget.callback = function (value, ...rest) {
    const native = TILINGS[value] ?? value;
    if (native !== value) widget.value = native;
    own?.call(this, native, ...rest);
  };
}
