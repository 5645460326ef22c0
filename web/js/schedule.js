// What the server says of a scheduler's widgets before a run.

import { api, valueOf } from "./host.js";

/**
 * @typedef {object} Schedule
 * @property {string[]} families
 * @property {string[]} options that apply to the scheduler
 * @property {number[]} [sigmas]
 * @property {string} [summary]
 * @property {string} [error]
 */

const INPUTS = [
  "scheduler",
  "steps",
  "denoise",
  "spacing",
  "final_sigma",
  "solver_order",
  "solver_type",
  "algorithm_type",
  "eta",
  "original_inference_steps",
];
const MOST_KEPT = 64;

/** @type {Map<string, Promise<Schedule | null>>} */
const kept = new Map();

/**
 * The model family that a node plots for: chosen in it, or told by the names in the loader that it is linked to.
 * @param {GraphNode} node
 */
export function familyOf(node) {
  return node.properties.family ?? guess(node);
}

/**
 * @param {GraphNode} node
 * @param {number} depth
 * @returns {string}
 */
function guess(node, depth = 0) {
  const names = (node.widgets ?? []).map((widget) => String(widget.value).toLowerCase()).join(" ");
  if (depth && /flux/.test(names)) return "Flux";
  if (depth && /sd3|stable-diffusion-3/.test(names)) return "SD3";
  const slot = node.inputs?.findIndex((input) => input.name === "model") ?? -1;
  const above = slot >= 0 && depth < 32 ? node.getInputNode(slot) : null;
  return above ? guess(above, depth + 1) : "Stable Diffusion";
}

/**
 * Ask the server what the widgets of a node give; null where it has no answer.
 * @param {GraphNode} node
 * @returns {Promise<Schedule | null>}
 */
export function schedule(node) {
  const query = new URLSearchParams({ family: familyOf(node) });
  for (const name of INPUTS) {
    const value = valueOf(node, name);
    if (value !== undefined) query.set(name, String(value));
  }
  const key = String(query);
  if (kept.size > MOST_KEPT) kept.clear();
  if (!kept.has(key)) kept.set(key, ask(key));
  return /** @type {Promise<Schedule | null>} */ (kept.get(key));
}

/** @param {string} query */
async function ask(query) {
  try {
    const answer = await api.fetchApi(`/tessera/schedule?${query}`);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}
