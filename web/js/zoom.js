// A canvas that shows repeats of an image: drag to pan, turn the wheel to zoom.

import { corners } from "./tile.js";

/** Factor of the zoom for a turn of the wheel by one notch. */
const NOTCH = 1.2;
const [LEAST, MOST] = [1 / 32, 64];

/**
 * Where an image lies on a canvas.
 * @typedef {object} Place
 * @property {number} zoom px of the view in a px of the image
 * @property {[number, number]} origin corner of the first repeat in the view
 * @property {boolean} moved whether somebody has moved it
 */

/**
 * Pan and zoom by the pointer.
 * @param {HTMLCanvasElement} canvas
 * @param {Place} place which is changed
 * @param {() => void} redraw
 */
export function steer(canvas, place, redraw) {
  // The graph around it is zoomed: a px of the screen is not one of the view.
  const scale = () => canvas.clientWidth / canvas.getBoundingClientRect().width;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    const [x, y] = place.origin;
    place.origin = [x + event.movementX * scale(), y + event.movementY * scale()];
    place.moved = true;
    redraw();
  });
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoomAt(
      place,
      [(event.clientX - box.left) * scale(), (event.clientY - box.top) * scale()],
      event.deltaY < 0 ? NOTCH : 1 / NOTCH,
    );
    redraw();
  });
}

/**
 * Zoom so that what lies at a point stays there.
 * @param {Place} place which is changed
 * @param {[number, number]} point
 * @param {number} factor
 */
export function zoomAt(place, point, factor) {
  const zoom = Math.min(MOST, Math.max(LEAST, place.zoom * factor));
  const [x, y] = place.origin;
  const share = zoom / place.zoom;
  place.origin = [point[0] - (point[0] - x) * share, point[1] - (point[1] - y) * share];
  place.zoom = zoom;
  place.moved = true;
}

/**
 * Draw the repeats of an image.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement | undefined} image
 * @param {Place} place
 * @param {import("./tile.js").Layout} layout
 * @param {boolean} byHalf whether one repeat is shown, moved by half so that its edges meet in the middle
 */
export function paint(canvas, image, place, layout, byHalf) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  if (!context || !image?.naturalWidth) return;
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = place.zoom < 2;
  /** @type {[number, number]} */
  const tile = [image.naturalWidth * place.zoom, image.naturalHeight * place.zoom];
  let start = place.origin;
  if (byHalf) {
    context.beginPath();
    context.rect(...start, ...tile);
    context.clip();
    start = [start[0] + (layout.across ? tile[0] / 2 : 0), start[1] + (layout.down ? tile[1] / 2 : 0)];
  }
  for (const [x, y] of corners(layout, tile, start, [canvas.clientWidth, canvas.clientHeight])) {
    context.drawImage(image, x, y, ...tile);
  }
}
