// Scheduler: the noise levels as a plot that follows the widgets before anything runs.

import { element } from "./elements.js";
import { watch } from "./options.js";
import { familyOf, schedule } from "./schedule.js";
import { say } from "./words.js";

const HEIGHT = 190;
const WAIT = 120;
const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, TALL, MARGIN] = [320, 120, 12];

/**
 * @param {GraphNode} node
 * @returns {import("./panel.js").View}
 */
export function makePlotView(node) {
  const family = element("select", { title: say("The model family whose noise levels are drawn before a run.") });
  const said = element("span", { className: "tessera-said" });
  const plot = document.createElementNS(SPACE, "svg");
  plot.setAttribute("viewBox", `0 0 ${WIDTH} ${TALL}`);
  plot.setAttribute("preserveAspectRatio", "none");
  const hint = element("p", { className: "tessera-hint" });
  const bar = element("div", { className: "tessera-bar" }, family, said);
  const body = element("div", { className: "tessera-view" }, bar, plot, hint);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let asked = 0;

  async function update() {
    const number = ++asked;
    if (!node.graph) return;
    const answer = await schedule(node);
    // Another graph may have taken the place of the node's meanwhile.
    if (number !== asked || !answer || !node.graph) return;
    family.replaceChildren(...answer.families.map((name) => element("option", { value: name, textContent: name })));
    family.value = familyOf(node);
    const [first, ...hints] = (answer.summary ?? "").split("\n");
    hint.textContent = answer.error ?? hints.join(" ");
    hint.classList.toggle("tessera-wrong", Boolean(answer.error));
    draw(answer.sigmas ?? [], first);
  }

  /**
   * @param {number[]} sigmas
   * @param {string} summary
   */
  function draw(sigmas, summary) {
    const steps = Math.max(0, sigmas.length - 1);
    const ends = sigmas.length ? ` | sigma ${brief(sigmas[0])} - ${brief(sigmas[steps])}` : "";
    said.textContent = `${say("Steps")} ${steps}${ends}`;
    said.title = summary;
    body.dataset.steps = String(steps);
    drawCurve(plot, sigmas);
  }

  family.addEventListener("change", () => {
    node.properties.family = family.value;
    update();
  });
  watch(node, () => {
    clearTimeout(timer);
    timer = setTimeout(update, WAIT);
  });
  return {
    body,
    height: () => HEIGHT,
    show: (output) => {
      // The levels of the run are those of the model itself.
      if (output.sigmas) draw(output.sigmas, output.text?.[0] ?? "");
    },
  };
}

/** @param {number} value */
function brief(value) {
  return String(Number(value.toPrecision(3)));
}

/**
 * Heights of levels, 0 to 1: logarithmic where they span more than a factor of 10, zero below the lowest.
 * @param {number[]} sigmas
 */
export function heights(sigmas) {
  const positive = sigmas.filter((sigma) => sigma > 0);
  if (!positive.length) return sigmas.map(() => 0);
  const [low, high] = [Math.min(...positive), Math.max(...positive)];
  if (high < 10 * low) return sigmas.map((sigma) => sigma / high);
  const bottom = Math.log(low) - Math.log(high / low) / 8;
  return sigmas.map((sigma) => (sigma > 0 ? (Math.log(sigma) - bottom) / (Math.log(high) - bottom) : 0));
}

/**
 * @param {SVGSVGElement} plot
 * @param {number[]} sigmas
 */
function drawCurve(plot, sigmas) {
  const points = heights(sigmas).map((height, index) => {
    const x = MARGIN + ((WIDTH - 2 * MARGIN) * index) / Math.max(1, sigmas.length - 1);
    return `${x.toFixed(1)} ${(TALL - MARGIN - (TALL - 2 * MARGIN) * height).toFixed(1)}`;
  });
  // Lines of no length are round at any stretch of the plot.
  plot.replaceChildren(path(`M${points.join("L")}`, "curve"), path(points.map((point) => `M${point}h0`).join(""), "marks"));
  if (!points.length) plot.replaceChildren();
}

/**
 * @param {string} drawn
 * @param {string} kind
 */
function path(drawn, kind) {
  const made = document.createElementNS(SPACE, "path");
  made.setAttribute("d", drawn);
  made.setAttribute("class", `tessera-${kind}`);
  return made;
}
