"""How large ComfyUI's editor draws nodes, in both renderers, before a run and after it.

Needs Playwright for Python and Chromium (`CHROMIUM` is its path), and a server with this pack that sends previews:
`python main.py --preview-method latent2rgb`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

READY = """() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 20
  && window.app.extensionManager && !window.app.extensionManager.spinner"""
QUEUE = """async () => {
  const queue = await (await fetch('/api/queue')).json();
  return queue.queue_running.length + queue.queue_pending.length;
}"""
FORGET = "() => fetch('/api/free', {method: 'POST', body: JSON.stringify({free_memory: true})})"
SMALL = """text => {
  const drawing = JSON.parse(text);
  for (const node of drawing.nodes) node.size[1] = 30;
  return drawing;
}"""
HEIGHTS = """vue => Object.fromEntries(app.graph.nodes.map(node => {
  if (!vue) return [node.id, Math.round(node.size[1])];
  const root = document.querySelector(`[data-node-id="${node.id}"]`);
  if (!root) return [node.id, Math.round(node.size[1])];
  const scale = app.canvas.ds.scale, top = root.getBoundingClientRect().top;
  const bottoms = [root, ...root.querySelectorAll('*')].map(part => part.getBoundingClientRect())
    .filter(box => box.height > 0 && box.width > 20).map(box => box.bottom);
  return [node.id, Math.round((Math.max(...bottoms) - top) / scale) - 30];
}))"""
FIT = """() => {
  const boxes = app.graph.groups.map(group => group._bounding);
  const right = Math.max(...boxes.map(([x, , width]) => x + width));
  const bottom = Math.max(...boxes.map(([, y, , height]) => y + height));
  const scale = Math.min((innerWidth - 120) / (right + 40), (innerHeight - 120) / (bottom + 80), 1);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [80 / scale, 80 / scale];
  app.canvas.setDirty(true, true);
}"""
"""Vue nodes exist in view alone."""
SECONDS = 300


def measure(address: str, paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, dict[str, int]]]]:
    """Yield for each example the largest heights of its nodes `before` and `after` a run, without title bars, in px."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 2400, "height": 1350})
        page.goto(address)
        page.wait_for_function(READY)
        page.wait_for_timeout(3000)
        for path in paths:
            node: dict[str, dict[str, int]] = {}
            for vue in (True, False):
                page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", vue)
                for moment, heights in zip(("before", "after"), _measured(page, path, vue), strict=True):
                    for number, height in heights.items():
                        sizes = node.setdefault(number, {})
                        sizes[moment] = max(sizes.get(moment, 0), height)
            yield path.stem, node
        browser.close()


def _measured(page: Any, path: Path, vue: bool) -> list[dict[str, int]]:
    # By a name of its own: the editor keeps the results of each name, and shows them on nodes with the same ids.
    page.evaluate(
        f"async ([text, name]) => app.loadGraphData(({SMALL})(text), true, true, name)",
        [path.read_text("utf-8"), f"{path.stem} {vue}"],
    )
    page.wait_for_timeout(1000)
    page.evaluate(FIT)
    page.wait_for_timeout(1500)
    before = page.evaluate(HEIGHTS, vue)
    # What is found in the cache shows no previews, and no images where the node is not an output.
    page.evaluate(FORGET)
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_timeout(1000)
    for _ in range(SECONDS):
        if not page.evaluate(QUEUE):
            break
        page.wait_for_timeout(1000)
    page.wait_for_timeout(2000)
    return [before, page.evaluate(HEIGHTS, vue)]


if __name__ == "__main__":
    import json
    import sys

    for name, sizes in measure(sys.argv[1], [Path(each) for each in sys.argv[2:]]):
        print(json.dumps({name: sizes}), flush=True)
