// The part of a node that shows its results: a view, and the report, folded to its first line.

import { element, keepEvents } from "./elements.js";
import { locator } from "./host.js";
import { say } from "./words.js";

const LINE = 28;
const TALLEST_REPORT = 240;

/**
 * @typedef {object} View
 * @property {HTMLElement} body
 * @property {() => number} height least height in px
 * @property {(output: Output) => void} show
 */

/**
 * Add a panel to a node.
 * @param {GraphNode} node
 * @param {View | null} view
 * @param {boolean} reports whether the node has a report to wait for
 * @returns {(output: Output) => void} show an output
 */
export function addPanel(node, view, reports) {
  const report = makeReport(() => resize(node, panel, least));
  const panel = element("div", { className: "tessera-panel" });
  if (view) panel.append(view.body);
  panel.append(report.body);
  keepEvents(panel);
  report.body.hidden = !reports;
  const least = () => (view?.height() ?? 0) + report.height();
  const widget = node.addDOMWidget("tessera", "tessera", panel, {
    serialize: false,
    hideOnZoom: false,
    margin: 4,
    getMinHeight: () => least() + 8,
    getMaxHeight: view ? undefined : () => least() + 8,
  });
  widget.serialize = false;
  resize(node, panel, least);
  takePlace(node, panel);
  return (output) => {
    if (output.text) {
      report.show(output.text.join("\n"));
      if (report.body.hidden) {
        report.body.hidden = false;
        resize(node, panel, least);
      }
    }
    view?.show(output);
  };
}

/**
 * Take the place of the panel of the node that this one replaces, after an undo: Vue nodes keep the element of the old.
 * @param {GraphNode} node
 * @param {HTMLElement} panel
 */
function takePlace(node, panel) {
  const configure = node.onConfigure;
  node.onConfigure = function (saved) {
    configure?.call(this, saved);
    if (!node.graph) return;
    panel.dataset.node = locator(node);
    setTimeout(() => {
      if (panel.isConnected) return;
      document.querySelector(`.tessera-panel[data-node="${panel.dataset.node}"]`)?.replaceWith(panel);
    });
  };
}

/**
 * Make room for what is shown, and give back what is no longer needed.
 * @param {GraphNode} node
 * @param {HTMLElement} panel
 * @param {() => number} least
 */
export function resize(node, panel, least) {
  const before = Number.parseInt(panel.style.minHeight || "0", 10);
  const after = least();
  panel.style.minHeight = `${after}px`;
  const height = node.size[1] + after - before;
  node.setSize([node.size[0], Math.max(node.computeSize()[1], before ? height : 0)]);
  node.graph?.setDirtyCanvas(true, true);
}

/**
 * @param {() => void} resized
 */
function makeReport(resized) {
  const first = element("span", { className: "tessera-first", textContent: say("The report appears after a run.") });
  const fold = element("span", { className: "tessera-fold" });
  const line = element("button", { className: "tessera-line", type: "button" }, fold, first);
  const rest = element("pre", { className: "tessera-rest", hidden: true });
  const body = element("div", { className: "tessera-report" }, line, rest);
  let text = "";
  line.setAttribute("aria-expanded", "false");
  line.addEventListener("click", () => {
    if (!text) return;
    rest.hidden = !rest.hidden;
    line.setAttribute("aria-expanded", String(!rest.hidden));
    resized();
  });
  const height = () => {
    if (body.hidden) return 0;
    return rest.hidden ? LINE : LINE + Math.min(TALLEST_REPORT, 16 + 15 * text.split("\n").reduce(lines, 0));
  };
  /** @param {string} said */
  const show = (said) => {
    text = said;
    body.classList.toggle("tessera-full", Boolean(said));
    first.textContent = said.split("\n")[0] || say("Nothing to report.");
    line.title = said;
    rest.textContent = said;
    if (!rest.hidden) resized();
  };
  return { body, height, show };
}

/**
 * How many lines a paragraph takes at the usual width of a node.
 * @param {number} sum
 * @param {string} paragraph
 */
function lines(sum, paragraph) {
  return sum + Math.max(1, Math.ceil(paragraph.length / 46));
}
