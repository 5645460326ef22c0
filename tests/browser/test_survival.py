"""What nodes show survives copy and paste, undo, bypass, saving and reload, and no workflow file holds it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser.editor import READY, Editor
from browser.views import LOOK_AT, find, open_example
from tessera.tools.measure import FORGET

pytestmark = pytest.mark.browser

SHOWN = """(id) => {
  const node = window.app.graph.getNodeById(id);
  const panel = node?.widgets?.find((each) => each.name === 'tessera')?.element;
  const drawn = document.querySelector(`[data-node-id="${id}"]`);
  const inside = [...(panel?.querySelectorAll('img') ?? [])];
  const around = drawn ? [...drawn.querySelectorAll('img')] : node?.imgs ?? [];
  const names = (all) => all.map((each) => new URL(each.src).searchParams.get('filename')).filter(Boolean);
  const canvas = panel?.querySelector('canvas');
  const pixels = canvas?.width ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
  return {
    painted: pixels.some((each) => each > 0),
    badge: panel?.querySelector('.tessera-badge')?.textContent,
    report: panel?.querySelector('.tessera-full .tessera-first')?.textContent,
    curve: panel?.querySelector('.tessera-curve')?.getAttribute('d'),
    images: names(inside),
    own: names(around.filter((each) => !inside.includes(each))),
    hidden: Boolean(panel) && !panel.isConnected,
  };
}"""
"""By what views are made of; `own` are the images that the editor itself shows of a node."""

KINDS = {
    "seam": ("seamless_texture", "TesseraSeamCheck", {"painted", "badge", "report"}),
    "report": ("seamless_texture", "TesseraSeamlessModel", {"report"}),
    "compare": ("flux_negative", "TesseraCompareImages", {"images"}),
    "sheet": ("sampling_steps", "TesseraSampleSteps", {"images"}),
    "schedulers": ("scheduler_switch", "TesseraSchedulerCompare", {"images", "report"}),
    "plot": ("scheduler_switch", "TesseraScheduler", {"curve", "report"}),
    "reference": ("image_prompt_halves", "TesseraImagePrompt", {"own"}),
    "map": ("image_prompt_halves", "TesseraReferenceMap", {"own"}),
    "style": ("style_preset", "TesseraStylePreset", {"own", "report"}),
}
"""Each kind of view: an example, a node of it, and what the node shows after a run."""
IN_SHORT = "seam"
TRACKER = "window.app.extensionManager.workflow.activeWorkflow.changeTracker"
kinds = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == IN_SHORT else [pytest.mark.long]) for kind in KINDS]
)


def wait_until_shown(opened: Editor, node_id: Any, parts: set[str]) -> dict[str, Any]:
    """Wait for all parts of a view; what they show."""
    complete = (
        f"([id, parts]) => {{ const s = ({SHOWN})(id); return !s.hidden && parts.every((p) => s[p]?.length ?? s[p]); }}"
    )
    opened.page.evaluate(LOOK_AT, node_id)
    opened.page.wait_for_function(complete, arg=[node_id, sorted(parts)])
    shown = opened.page.evaluate(SHOWN, node_id)
    return {part: shown[part] for part in sorted(parts)}


def run(opened: Editor, kind: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Run the example of a kind; its node's id, what that shows, and the outputs of all nodes."""
    example, node_type, parts = KINDS[kind]
    open_example(opened, example)
    opened.close_templates()
    node_id = find(opened, node_type)
    opened.page.evaluate(FORGET)
    entry = opened.run()
    assert entry["status"]["status_str"] == "success"
    return node_id, wait_until_shown(opened, node_id, parts), entry["outputs"]


def words_of(outputs: dict[str, Any]) -> set[str]:
    """The names of all files in the outputs of nodes, and the first lines of their texts."""
    parts = [each for shown in outputs.values() for part in shown.values() for each in part]
    files = [each["filename"] for each in parts if isinstance(each, dict) and "filename" in each]
    texts = [text for shown in outputs.values() for text in shown.get("text", ())]
    return {*files, *(text.split("\n")[0] for text in texts if text)}


@kinds
def test_results_survive_copy_undo_bypass_and_saving_and_no_file_holds_them(editor: Editor, kind: str) -> None:
    node_id, before, outputs = run(editor, kind)
    page, parts = editor.page, KINDS[kind][2]
    file = json.dumps(page.evaluate("() => window.app.graph.serialize()"))
    found = [word for word in ("tessera_shown", "ComfyUI_temp", "data:image", *words_of(outputs)) if word in file]
    assert not found
    page.evaluate(f"() => {TRACKER}.checkState()")
    page.evaluate(
        """(id) => {
          window.app.canvas.selectItems([window.app.graph.getNodeById(id)]);
          window.app.canvas.copyToClipboard();
          window.app.canvas.pasteFromClipboard();
        }""",
        node_id,
    )
    copy = page.evaluate("() => Math.max(...window.app.graph.nodes.map((node) => Number(node.id)))")
    assert wait_until_shown(editor, copy, parts) == before
    assert "tessera_shown" not in json.dumps(page.evaluate("() => window.app.graph.serialize()"))
    page.evaluate(f"async () => {{ {TRACKER}.checkState(); await {TRACKER}.undo(); }}")
    page.wait_for_function("(id) => !window.app.graph.getNodeById(id)", arg=copy)
    assert wait_until_shown(editor, node_id, parts) == before
    page.evaluate("(id) => { window.app.graph.getNodeById(id).mode = 4 }", node_id)
    assert wait_until_shown(editor, node_id, parts) == before
    editor.load(json.loads(file), "saved and opened again")
    assert wait_until_shown(editor, node_id, parts) == before


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_there_after_a_reload_of_the_page(editor: Editor, kind: str) -> None:
    node_id, before, _ = run(editor, kind)
    _, node_type, parts = KINDS[kind]
    editor.page.evaluate(f"() => {TRACKER}.checkState()")
    # The editor keeps what is open some time after a change.
    editor.page.wait_for_timeout(3000)
    editor.page.reload(wait_until="domcontentloaded")
    editor.page.wait_for_function(READY)
    there = "([id, kind]) => window.app.graph.getNodeById(id)?.type === kind"
    editor.page.wait_for_function(there, arg=[node_id, node_type])
    assert wait_until_shown(editor, node_id, parts) == before
