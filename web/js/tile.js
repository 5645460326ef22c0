// Where repeats of a texture lie.

/**
 * @typedef {object} Layout
 * @property {boolean} across whether repeats lie side by side
 * @property {boolean} down whether they lie below each other
 * @property {boolean} drop whether each column is shifted by half a height
 * @property {boolean} brick whether each row is shifted by half a width
 */

/**
 * The layout of a choice of `repeat` or `tiling`.
 * @param {string} name
 * @returns {Layout}
 */
export function layoutOf(name) {
  const none = name === "off";
  return {
    across: !none && name !== "vertical",
    down: !none && name !== "horizontal",
    drop: name === "half_drop",
    brick: name === "brick",
  };
}

/**
 * The corners of the repeats that a view shows.
 * @param {Layout} layout
 * @param {[number, number]} tile width and height of a repeat in px of the view
 * @param {[number, number]} origin corner of the first
 * @param {[number, number]} size of the view
 * @returns {[number, number][]}
 */
export function corners(layout, tile, origin, size) {
  /** @type {[number, number][]} */
  const found = [];
  const [width, height] = tile;
  const columns = layout.across ? places(origin[0] - width, width, size[0]) : [0];
  const rows = layout.down ? places(origin[1] - height, height, size[1]) : [0];
  for (const column of columns) {
    for (const row of rows) {
      const x = origin[0] + column * width + (layout.brick && row % 2 ? width / 2 : 0);
      const y = origin[1] + row * height + (layout.drop && column % 2 ? height / 2 : 0);
      if (x < size[0] && y < size[1] && x + width > 0 && y + height > 0) found.push([x, y]);
    }
  }
  return found;
}

/**
 * The numbers of the repeats that may be in view along an axis, one more on either side for shifted ones.
 * @param {number} start
 * @param {number} step
 * @param {number} length
 */
function places(start, step, length) {
  const first = Math.floor(-start / step) - 2;
  const last = Math.ceil((length - start) / step) + 1;
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/**
 * The zoom and origin that show `columns` x `rows` whole repeats in the middle of a view.
 * @param {[number, number]} image
 * @param {[number, number]} count
 * @param {[number, number]} size
 * @returns {{ zoom: number, origin: [number, number] }}
 */
export function fit(image, count, size) {
  const whole = [image[0] * count[0], image[1] * count[1]];
  const zoom = Math.min(size[0] / whole[0], size[1] / whole[1]);
  return { zoom, origin: [(size[0] - whole[0] * zoom) / 2, (size[1] - whole[1] * zoom) / 2] };
}
