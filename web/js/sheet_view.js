// A sheet of named images: one opens large with its name, two open with a slider between them.

import { element, picture } from "./elements.js";
import { address } from "./host.js";
import { makeSlider } from "./slider.js";
import { say } from "./words.js";

const HEIGHT = 220;

/** @typedef {{ source: string, name: string }} Named */

/** @returns {import("./panel.js").View} */
export function makeSheetView() {
  const grid = element("div", { className: "tessera-sheet", tabIndex: -1 });
  const note = element("p", { className: "tessera-note", textContent: say("The images appear after a run.") });
  const body = element("div", { className: "tessera-view" }, grid, note);

  /** @param {Output} output */
  function show(output) {
    const names = output.names ?? [];
    const images = (output.sheet ?? []).map((file, index) => ({ source: address(file), name: names[index] ?? "" }));
    note.hidden = images.length > 0;
    grid.replaceChildren(
      ...images.map((image, index) => {
        const cell = element(
          "button",
          { type: "button", className: "tessera-cell", title: `${image.name}: ${say("click to open it large")}` },
          picture(image.source, image.name),
          element("span", { textContent: image.name }),
        );
        cell.addEventListener("click", () => openLarge(images, index));
        return cell;
      }),
    );
  }
  return { body, height: () => HEIGHT, show };
}

/**
 * Open an image over the page; a second one may be chosen to compare it with.
 * @param {Named[]} images
 * @param {number} index
 */
export function openLarge(images, index) {
  const { stage, show } = makeSlider();
  const other = element("select", { title: say("compare with") });
  other.append(element("option", { value: "-1", textContent: say("compare with") }));
  images.forEach((image, number) => other.append(element("option", { value: String(number), textContent: image.name })));
  const name = element("strong");
  const before = element("button", { type: "button", textContent: "<", title: say("previous") });
  const next = element("button", { type: "button", textContent: ">", title: say("next") });
  const close = element("button", { type: "button", textContent: "x", title: say("close") });
  const bar = element("div", { className: "tessera-bar" }, before, name, next, other, close);
  const dialog = element("dialog", { className: "tessera-dialog" }, bar, stage);
  const draw = () => {
    name.textContent = images[index].name;
    show(images[index], images[Number(other.value)]);
  };
  /** @param {number} by */
  const turn = (by) => {
    index = (index + by + images.length) % images.length;
    draw();
  };
  before.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  other.addEventListener("change", draw);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way && event.target !== stage && event.target !== other) turn(way);
  });
  document.body.append(dialog);
  draw();
  dialog.showModal();
}
