"""What the pack's JavaScript adds to opening the largest example in ComfyUI's editor: 1.05 is the budget.

`python benchmarks/editor.py URL` needs a running ComfyUI with the pack, Playwright and Chromium. The example is opened
in turn in two pages, one of which gets no JavaScript of the pack.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "example_workflows"
TIMES, BUDGET = 15, 1.05
READY = """() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 20
  && window.app.extensionManager && !window.app.extensionManager.spinner"""
OPEN = """async text => {
  const drawing = JSON.parse(text), start = performance.now();
  await app.loadGraphData(drawing, true, true, 'largest');
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


def main(address: str) -> None:
    """Print the ratio of the shortest times, which other programs disturb least."""
    from playwright.sync_api import sync_playwright

    text = max((path.read_text("utf-8") for path in EXAMPLES.glob("*.json")), key=len)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        pages = {kind: browser.new_page() for kind in ("with", "without")}
        pages["without"].route("**/js/tessera.js", lambda route: route.abort())
        for page in pages.values():
            page.goto(address)
            page.wait_for_function(READY)
            page.wait_for_timeout(3000)
            page.evaluate(OPEN, text)
        times: dict[str, list[float]] = {kind: [] for kind in pages}
        for _ in range(TIMES):
            for kind, page in pages.items():
                page.bring_to_front()
                times[kind].append(page.evaluate(OPEN, text))
        browser.close()
    with_it, without = (min(each) for each in times.values())
    print(f"largest example: {with_it:.0f} ms with the pack's JavaScript, {without:.0f} ms without")
    print(f"ratio {with_it / without:.3f} (budget {BUDGET})")


if __name__ == "__main__":
    main(sys.argv[1])
