"""ComfyUI's editor in a headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import process
from tessera.app.server.pack import TITLE
from tessera.tools.layout import outside, overlaps
from tessera.tools.measure import FIT, HEIGHTS

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Error, Page, Playwright, Response

ROOT = Path(__file__).parents[2]
RENDERERS = {"canvas": False, "nodes_2": True}
"""Which renderer draws Vue nodes."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
READY = """() => window.app?.extensionManager && !window.app.extensionManager.spinner && window.app.canvas
    && Object.keys(window.LiteGraph.registered_node_types).length > 20"""
LOADED = """([name, count]) => {
    const active = window.app.extensionManager.workflow.activeWorkflow;
    const fresh = !window.app.graph.extra?.stale;
    return fresh && active?.filename.startsWith(name) && window.app.graph.nodes.length === count;
}"""
STATE = """() => window.app.graph.serialize().nodes.map((node) => ({
    id: node.id, type: node.type, widgets_values: node.widgets_values ?? null,
    known: node.type in window.LiteGraph.registered_node_types,
    red: Boolean(window.app.graph.getNodeById(node.id).has_errors),
}))"""
OF_ITS_OWN = {"ComfyApp graph accessed before initialization"}
"""What the editor 1.49.6 reports of itself, whatever the server answers."""
GRAPH_IS_GONE = "Attempted to access LGraph reference"
"""What the editor raises while one graph takes the place of another, with no module of a pack in its stack."""
TEMPLATES = "[data-testid=template-workflows-content]"
SECONDS = 120
DRAWING = 500
"""Time for drawing, in ms."""


def chromium(playwright: Playwright) -> str | None:
    """The Chromium of the system, or else the one that Playwright installed; None where there is neither."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    own = playwright.chromium.executable_path
    return os.environ.get("CHROMIUM") or found or (own if Path(own).is_file() else None)


def without_meta(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt with the titles alone of what is said about its nodes."""
    return {node_id: {**node, "_meta": {"title": node["_meta"]["title"]}} for node_id, node in prompt.items()}


@dataclass
class Server:
    """Where the editor comes from.

    Attributes:
        pack: what the dialog of templates lists the examples under.
        ours: whether it is Tessera's own, of which more is asked.
    """

    address: str
    pack: str
    ours: bool

    def get(self, path: str) -> Any:
        """The JSON under a path."""
        with urllib.request.urlopen(self.address + path, timeout=60) as response:
            return json.load(response)

    def latest(self) -> dict[str, Any]:
        """The end of the history: each entry holds a whole workflow."""
        return self.get("/history?max_items=1")

    def wait(self, known: set[str]) -> dict[str, Any]:
        """Wait for a prompt that is not among those `known`; its entry in the history."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for prompt_id, entry in self.latest().items():
                if prompt_id not in known:
                    return entry
            time.sleep(0.1)
        raise AssertionError("the prompt has not ended")


@contextmanager
def tessera(folder: Path) -> Iterator[Server]:
    """`tessera serve`."""
    with process(folder) as address:
        yield Server(address, TITLE, ours=True)


@dataclass
class Editor:
    """The editor's page, and what went wrong in it."""

    page: Page
    server: Server
    wrong: list[str] = field(default_factory=list)
    nodes_2: bool = False

    def __post_init__(self) -> None:
        self.page.on("pageerror", self._broke)
        if self.server.ours:
            self.page.on("console", self._said)
            self.page.on("response", self._answered)

    def _broke(self, error: Error) -> None:
        stack = error.stack or ""
        if GRAPH_IS_GONE in str(error) and "/extensions/" not in stack:
            return
        self.wrong.append(f"page error: {error} {stack}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and message.text not in OF_ITS_OWN:
            self.wrong.append(message.text)

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status} {response.url}")

    def open(self, nodes_2: bool = False) -> None:
        """Open it, with either renderer."""
        self.page.goto(self.server.address, wait_until="domcontentloaded")
        self.page.wait_for_function(READY, timeout=SECONDS * 1000)
        self.nodes_2 = nodes_2
        self.page.evaluate("(on) => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", nodes_2)

    def open_template(self, name: str) -> None:
        """Open an example from the dialog of templates."""
        if not self.page.locator(TEMPLATES).is_visible():
            self.page.evaluate("() => void window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        # Nodes bear the pack's name, too.
        self.page.get_by_role("dialog").get_by_text(self.server.pack, exact=True).first.click()
        card = self.page.locator(f"[data-testid=template-workflow-{name}]")
        card.scroll_into_view_if_needed()
        self.page.evaluate("() => { window.app.graph.extra.stale = true }")
        card.click()
        count = len(json.loads((ROOT / "example_workflows" / f"{name}.json").read_text())["nodes"])
        self.page.wait_for_function(LOADED, arg=[name, count], timeout=SECONDS * 1000)

    def close_templates(self) -> None:
        """Close the dialog of templates, which the editor opens for who comes for the first time."""
        shown = self.page.locator(TEMPLATES)
        if shown.is_visible():
            self.page.keyboard.press("Escape")
            shown.wait_for(state="hidden")

    def load(self, document: dict[str, Any], name: str) -> None:
        """Open a workflow, as if its file were dropped on the canvas."""
        self.page.evaluate(
            "([text, name]) => window.app.loadGraphData(JSON.parse(text), true, true, name)",
            [json.dumps(document), name],
        )

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes of the graph as the editor would save them, and whether it knows them."""
        return self.page.evaluate(STATE)

    def prompt(self) -> dict[str, Any]:
        """The graph as the editor sends it."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def misplaced(self) -> list[int | tuple[int, int]]:
        """The pairs of nodes that lie on top of each other, and those that leave their group, as they are drawn now."""
        self.page.evaluate(FIT)
        self.page.wait_for_timeout(DRAWING)
        found = self.page.evaluate(HEIGHTS, self.nodes_2)
        heights = {int(number): {"after": height} for number, height in found.items()}
        drawing = self.page.evaluate("() => window.app.graph.serialize()")
        return [*overlaps(drawing, heights), *outside(drawing, heights)]

    def run(self) -> dict[str, Any]:
        """Press Run, and wait; what the history tells of it."""
        known = set(self.server.latest())
        self.page.evaluate("() => window.app.queuePrompt(0, 1)")
        return self.server.wait(known)
