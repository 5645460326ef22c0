// Compare Images: a slider between two images or batches.

import { element } from "./elements.js";
import { address } from "./host.js";
import { makeSlider } from "./slider.js";
import { say } from "./words.js";

const HEIGHT = 260;

/** @returns {import("./panel.js").View} */
export function makeCompareView() {
  const { stage, show: slide } = makeSlider();
  const bar = element("div", { className: "tessera-bar", hidden: true });
  const note = element("p", { className: "tessera-note", textContent: say("The two images appear after a run.") });
  const body = element("div", { className: "tessera-view" }, bar, stage, note);
  /** @type {Record<string, ResultFile[]>} */
  let batches = { A: [], B: [] };
  /** @type {Record<string, number>} */
  let at = { A: 0, B: 0 };

  function draw() {
    /** @param {string} side */
    const chosen = (side) => {
      const file = batches[side][at[side]];
      return file && { source: address(file), name: batches[side].length > 1 ? `${side} ${at[side] + 1}` : side };
    };
    slide(chosen("A"), chosen("B"));
  }

  /** @param {string} side */
  function stepper(side) {
    const button = element("button", { type: "button", title: say("The next image of the batch.") });
    const label = () => (button.textContent = `${side} ${at[side] + 1}/${batches[side].length}`);
    button.addEventListener("click", () => {
      at[side] = (at[side] + 1) % batches[side].length;
      label();
      draw();
    });
    label();
    return button;
  }

  /** @param {Output} output */
  function show(output) {
    batches = { A: output.a_images ?? [], B: output.b_images ?? [] };
    at = { A: 0, B: 0 };
    const many = ["A", "B"].filter((side) => batches[side].length > 1);
    bar.replaceChildren(...many.map(stepper));
    bar.hidden = !many.length;
    note.hidden = Boolean(batches.A.length);
    draw();
  }
  return { body, height: () => HEIGHT, show };
}
