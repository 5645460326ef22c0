"""The examples in ComfyUI's editor, in both of its renderers.

pytest -m browser                     on `tessera serve`, all examples run
pytest -m "browser and not long"      the same, of which a few run
COMFYUI_PATH=<checkout> pytest -m browser     on a real ComfyUI as well
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from browser.editor import RENDERERS, ROOT, Editor, without_meta
from tessera.app.registry import object_info
from tessera.host.graph.workflow import read, to_prompt

pytestmark = pytest.mark.browser

EXAMPLES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
A_FEW = {"seamless_texture", "frieze"}


def cases(in_short: Callable[[str, str], bool]) -> pytest.MarkDecorator:
    """Every example in both renderers; those that are not `in_short` are left to the long form."""
    found = [
        pytest.param(
            renderer, name, id=f"{renderer}-{name}", marks=[] if in_short(renderer, name) else [pytest.mark.long]
        )
        for renderer in RENDERERS
        for name in EXAMPLES
    ]
    return pytest.mark.parametrize(("editor", "name"), found, indirect=["editor"], scope="session")


def example(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


@cases(lambda renderer, name: renderer == "canvas" or name in A_FEW)
def test_an_example_opens_whole_and_is_sent_as_we_convert_it(editor: Editor, name: str) -> None:
    editor.open_template(name)
    nodes = {node["id"]: node for node in editor.nodes()}
    stored = {node["id"]: node for node in example(name)["nodes"]}
    assert nodes.keys() == stored.keys()
    assert not [node["type"] for node in nodes.values() if not node["known"] or node["red"]]
    for node_id, node in stored.items():
        # The file may be older than the newest inputs, which are the last ones; null is no value.
        pairs = zip(node.get("widgets_values") or [], nodes[node_id]["widgets_values"] or [], strict=False)
        assert not [(before, after) for before, after in pairs if before not in (None, after)], node["type"]
    ours = to_prompt(read(ROOT / "example_workflows" / f"{name}.json"), object_info())
    assert without_meta(editor.prompt()) == without_meta(ours)


@cases(lambda renderer, name: name in A_FEW)
def test_an_example_runs_to_its_end(editor: Editor, name: str) -> None:
    editor.open_template(name)
    entry = editor.run()
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert any(shown.get("images") for shown in entry["outputs"].values())
    editor.page.wait_for_function("(ids) => ids.every((id) => window.app.nodeOutputs[id])", arg=list(entry["outputs"]))
    assert not [node["type"] for node in editor.nodes() if node["red"]]
    assert not editor.misplaced()


def test_a_saved_image_opens_as_its_graph(editor: Editor) -> None:
    editor.open_template("seamless_texture")
    entry = editor.run()
    saved = next(
        each for shown in entry["outputs"].values() for each in shown.get("images", []) if each["type"] == "output"
    )
    editor.open_template("frieze")
    before = len(editor.nodes())
    editor.page.evaluate(
        """async (file) => {
            const answer = await fetch('/view?' + new URLSearchParams(file));
            await window.app.handleFile(new File([await answer.blob()], file.filename, {type: 'image/png'}));
        }""",
        saved,
    )
    assert len(editor.nodes()) == len(example("seamless_texture")["nodes"]) != before


def test_wrong_settings_are_said_on_their_node_before_the_run(editor: Editor) -> None:
    editor.open_template("seamless_texture")
    node_id = next(node["id"] for node in editor.nodes() if node["type"] == "TesseraSeamlessModel")
    editor.page.evaluate(
        """(id) => {
            const widgets = window.app.graph.getNodeById(id).widgets;
            widgets.find((each) => each.name === 'start_percent').value = 0.8;
            widgets.find((each) => each.name === 'end_percent').value = 0.2;
        }""",
        node_id,
    )
    editor.page.evaluate("() => window.app.queuePrompt(0, 1)")
    editor.page.wait_for_function("(id) => window.app.lastNodeErrors?.[id]", arg=node_id)
    (error, *_) = editor.page.evaluate("(id) => window.app.lastNodeErrors[id].errors", node_id)
    assert "0.8" in error["details"]
    # The editor reports a prompt that is refused on the console.
    editor.page.wait_for_timeout(500)
    editor.wrong[:] = [each for each in editor.wrong if "400" not in each and "PromptExecutionError" not in each]


def test_a_node_that_fails_is_marked_with_one_line(editor: Editor) -> None:
    editor.open_template("seamless_texture")
    node_id = next(node["id"] for node in editor.nodes() if node["type"] == "EmptyLatentImage")
    editor.page.evaluate(
        "(id) => { window.app.graph.getNodeById(id).widgets.find((each) => each.name === 'width').value = 136 }",
        node_id,
    )
    entry = editor.run()
    assert entry["status"]["status_str"] == "error"
    editor.page.wait_for_function("() => window.app.lastExecutionError")
    error = editor.page.evaluate("() => window.app.lastExecutionError")
    assert error["node_type"] == "KSampler"
    assert "136" in error["exception_message"]
    assert "\n" not in error["exception_message"].strip()


def test_help_pages_open_with_their_images(editor: Editor) -> None:
    """Also that of a core node. What is missing among what they show is an error of the fixture."""
    editor.open_template("seamless_texture")
    for kind, words in (("TesseraSeamlessModel", "torus"), ("KSampler", "sampler_name")):
        editor.page.evaluate(
            """(kind) => {
                const found = window.app.graph.nodes.find((node) => node.type === kind);
                window.app.canvas.deselectAll();
                window.app.canvas.selectNode(found);
            }""",
            kind,
        )
        editor.page.locator("[data-testid=info-button]").click()
        editor.page.locator(".node-help-content").get_by_text(words).first.wait_for(timeout=30_000)
    editor.page.wait_for_load_state("networkidle")


def test_panels_of_files_and_models_open(editor: Editor) -> None:
    for name in ("assets", "model-library", "workflows"):
        editor.page.evaluate(
            "(id) => window.app.extensionManager.command.execute(`Workspace.ToggleSidebarTab.${id}`)", name
        )
        editor.page.wait_for_load_state("networkidle")
    editor.page.evaluate("() => window.app.extensionManager.command.execute('Workspace.ToggleSidebarTab.workflows')")
