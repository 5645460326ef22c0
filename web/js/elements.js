// HTML elements of the views.

const SHEET = new URL("./tessera.css", import.meta.url).href;

/** Load the style sheet, once. */
export function loadStyle() {
  if (document.querySelector(`link[href="${SHEET}"]`)) return;
  document.head.append(element("link", { rel: "stylesheet", href: SHEET }));
}

/**
 * Make an element with properties and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Keep pointer and wheel events from the canvas around a view; Ctrl + wheel still zooms the canvas.
 *
 * The editor leaves the wheel to what is marked so and has the focus, so the view takes it from under the pointer,
 * except while somebody types.
 * @param {HTMLElement} view
 */
export function keepEvents(view) {
  for (const kind of ["pointerdown", "pointermove", "pointerup", "dblclick"]) {
    view.addEventListener(kind, (event) => event.stopPropagation());
  }
  view.dataset.captureWheel = "true";
  view.addEventListener("wheel", (event) => event.ctrlKey || event.stopPropagation(), { passive: true });
  view.addEventListener("pointerenter", () => {
    const typing = document.activeElement?.matches("input, textarea, select, [contenteditable]");
    const target = view.querySelector("[tabindex]");
    if (!typing && target instanceof HTMLElement) target.focus({ preventScroll: true });
  });
}

/**
 * An image that says so where its file is gone: the server forgets previews when it restarts.
 * @param {string} source
 * @param {string} name
 */
export function picture(source, name) {
  const image = element("img", { src: source, alt: name, draggable: false });
  image.addEventListener("error", () => image.classList.add("tessera-gone"));
  return image;
}
