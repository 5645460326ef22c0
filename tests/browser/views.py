"""What the views in the nodes show, as seen in the page."""

from __future__ import annotations

import json
from typing import Any

from browser.editor import ROOT, Editor

VIEW = """(id) => {
  const panel = window.app.graph.getNodeById(id)?.widgets.find((each) => each.name === 'tessera')?.element;
  const canvas = panel?.querySelector('canvas');
  const pixels = canvas?.width ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
  let drawn = 0;
  for (let at = 3; at < pixels.length; at += 4) drawn += pixels[at] > 0;
  const view = panel?.querySelector('.tessera-view');
  return {
    drawn, mode: view?.dataset.mode, zoom: Number(view?.dataset.zoom), steps: view?.dataset.steps,
    badge: panel?.querySelector('.tessera-badge')?.textContent,
    report: panel?.querySelector('.tessera-first')?.textContent,
    unfolded: panel?.querySelector('.tessera-rest')?.hidden === false,
    shown: Boolean(panel?.isConnected),
  };
}"""
LOOK_AT = """(id) => {
  const node = window.app.graph.getNodeById(id), view = window.app.canvas.ds;
  view.scale = 1;
  view.offset = [300 - node.pos[0], 200 - node.pos[1]];
  window.app.canvas.setDirty(true, true);
}"""


def open_example(opened: Editor, name: str) -> None:
    """Open an example's file, as if it were dropped on the canvas."""
    opened.load(json.loads((ROOT / "example_workflows" / f"{name}.json").read_text("utf-8")), name)


def find(opened: Editor, kind: str) -> Any:
    return next(node["id"] for node in opened.nodes() if node["type"] == kind)


def view(opened: Editor, node_id: Any) -> dict[str, Any]:
    return opened.page.evaluate(VIEW, node_id)


def until(opened: Editor, node_id: Any, condition: str) -> dict[str, Any]:
    """Wait until a view is as a JavaScript condition on `v` says."""
    opened.page.wait_for_function(f"(id) => {{ const v = ({VIEW})(id); return {condition}; }}", arg=node_id)
    return view(opened, node_id)
