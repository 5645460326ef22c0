"""Imported request bodies on a real ComfyUI: it takes every one, and draws the same images of some."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfyui.server import ComfyUI
from comfyui.test_comfyui import ONE_LEVEL, Graph, differences, on_host, saved
from request_bodies import Entry, entries, write_files
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo, inputs_of

pytestmark = pytest.mark.comfyui

CUT = {"prompt": "yellow dots on blue", "transparency": "foreground_only"}
# What only ComfyUI runs.
MODELS = [Entry("leonardo", "cut out by a model", CUT, ["--model", "texture-sd", "--background-model", "BiRefNet"])]
EACH = [pytest.param(entry, id=entry.id) for entry in [*entries(), *MODELS]]
RUN = {
    "scenario-texture": ["guidance below one"],
    "scenario-ip-adapter": ["two images, scales at both ends"],
    "modelslab": ["strength 0"],
    "octoai": ["inpainting"],
    "leonardo": ["canvas", "prompt written by a model"],
}
DRAWN = [pytest.param(entry, id=entry.id) for entry in entries() if entry.name in RUN.get(entry.service, [])]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """ComfyUI with the files that the bodies name."""
    base = tmp_path_factory.mktemp("comfyui")
    with ComfyUI(Path(os.environ["COMFYUI_PATH"]).resolve(), base, "any-folder.name") as comfyui:
        write_files(base)
        # ComfyUI knows no folders of weights; a graph that waits needs no more than the name.
        (base / "models" / "checkpoints" / "texture-refiner").unlink()
        (base / "models" / "checkpoints" / "texture-refiner.safetensors").touch()
        (base / "models" / "background_removal").mkdir(exist_ok=True)
        (base / "models" / "background_removal" / "BiRefNet.safetensors").touch()
        yield comfyui


@pytest.fixture(scope="module")
def busy(server: ComfyUI) -> Iterator[ComfyUI]:
    """The server, with so much to do that what is posted is checked and waits; in the end all is forgotten."""
    longest = json.loads((Path(__file__).parents[1] / "workflows" / "seamless_texture.api.json").read_text("utf-8"))
    for node in longest.values():
        node["inputs"].update({"steps": 10_000} if "steps" in node["inputs"] else {})
    server.post(longest)
    yield server
    server.forget()


@pytest.fixture(scope="module")
def nodes(server: ComfyUI) -> dict[str, Any]:
    """/object_info with every input as [type, options]; a list of values is of type COMBO."""
    info = server.get("/object_info")
    for node in info.values():
        for group in node["input"].values():
            for name, spec in group.items() if isinstance(group, dict) else ():
                kind, options = spec[0], spec[1] if len(spec) > 1 else {}
                group[name] = ["COMBO", options | {"options": kind}] if isinstance(kind, list) else [kind, options]
    return info


def drawing(entry: Entry, base: Path, folder: Path) -> dict[str, Any]:
    """The UI-format file that `tessera import` writes; images go to ComfyUI's own folder."""
    request, workflow = folder / "request.json", folder / "imported.json"
    request.write_text(json.dumps(entry.body), encoding="utf-8")
    options = [each.replace("=image.png", f"={base / 'image.png'}") for each in entry.options]
    folders = ["--models-dir", str(base / "models"), "--input-dir", str(base / "input")]
    assert main(["import", entry.service, str(request), "-o", str(workflow), *options, *folders]) == 0
    return json.loads(workflow.read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", DRAWN)
def test_imported_body_draws_the_same_images(
    entry: Entry, server: ComfyUI, nodes: dict[str, Any], tmp_path: Path
) -> None:
    prompt: Graph = to_prompt(Workflow(ui_graph=drawing(entry, server.base, tmp_path)), nodes)
    theirs = saved(server.run(prompt), server.base / "output")
    found = differences(theirs, on_host(prompt, server, tmp_path))
    print(f"\n{entry.id}, ComfyUI {server.version}: mean absolute differences of 255: {found}")
    assert max(found.values()) <= ONE_LEVEL


@pytest.mark.parametrize("entry", EACH)
def test_imported_body_is_taken(entry: Entry, busy: ComfyUI, nodes: dict[str, Any], tmp_path: Path) -> None:
    drawn = drawing(entry, busy.base, tmp_path)
    prompt = to_prompt(Workflow(ui_graph=drawn), nodes)
    busy.post(prompt)
    check_sockets(drawn, nodes)
    ours = to_prompt(Workflow(ui_graph=drawn), ObjectInfo(node_classes()))
    for number, node in ours.items():
        more = {name: value for name, value in prompt[number]["inputs"].items() if name not in node["inputs"]}
        known = inputs_of(nodes[node["class_type"]])
        assert {name: prompt[number]["inputs"].get(name) for name in node["inputs"]} == node["inputs"]
        assert all(value == known[name].options.get("default") for name, value in more.items()), number


def check_sockets(drawn: dict[str, Any], info: dict[str, Any]) -> None:
    """Every node is there, with the sockets and outputs that ComfyUI gives it, in that order."""
    for node in drawn["nodes"]:
        if node["type"] == "Note":
            continue
        known = info[node["type"]]
        assert [out["type"] for out in node["outputs"]] == known["output"], node["type"]
        names = list(inputs_of(known))
        places = [names.index(socket["name"]) for socket in node["inputs"]]
        assert places == sorted(places), node["type"]
