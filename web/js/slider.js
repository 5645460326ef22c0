// Two images on top of each other with a slider between them.

import { element, picture } from "./elements.js";
import { say } from "./words.js";

const STEP = 2;

/**
 * Make a slider that follows the pointer, as the comparers of ComfyUI and rgthree do; the arrow keys move it, too.
 */
export function makeSlider() {
  const stage = element("div", { className: "tessera-stage", tabIndex: 0 });
  stage.title = say("Move the pointer, or press the arrow keys.");
  stage.setAttribute("role", "slider");
  stage.setAttribute("aria-label", say("Move the pointer, or press the arrow keys."));
  let place = 50;

  /** @param {number} percent */
  function move(percent) {
    place = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--place", `${place}%`);
    stage.setAttribute("aria-valuenow", String(Math.round(place)));
  }
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    move((100 * (event.clientX - box.left)) / box.width);
  });
  stage.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (way === undefined) return;
    event.stopPropagation();
    move(place + way);
  });
  move(place);

  /**
   * @param {{ source: string, name: string } | undefined} left
   * @param {{ source: string, name: string } | undefined} right
   */
  function show(left, right) {
    stage.replaceChildren();
    for (const [side, shown] of /** @type {const} */ ([["right", right], ["left", left]])) {
      if (!shown) continue;
      const image = picture(shown.source, shown.name);
      image.classList.add(`tessera-${side}`);
      stage.append(image, element("span", { className: `tessera-name tessera-name-${side}`, textContent: shown.name }));
    }
    stage.classList.toggle("tessera-both", Boolean(left && right));
    if (left && right) stage.append(element("div", { className: "tessera-handle" }));
  }
  return { stage, show };
}
