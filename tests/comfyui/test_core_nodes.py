"""ComfyUI's core nodes and the embedded host's: the same declarations, and the same results on random input."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui.node_cases import cases
from comfyui.node_fakes import FakeModel, probe
from comfyui.server import python_of
from tessera.app.registry import node_classes
from tessera.host.folder_paths import FileNames
from tessera.host.models.model_base import ModelType, model_sampling
from tessera.host.schema.node import ComfyNode, Hidden, HiddenHolder

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare its nodes"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-5
DECIDES_VALUES = ("default", "min", "max", "step", "forceInput", "options", "template", "control_after_generate")


@cache
def core_nodes() -> dict[str, type[ComfyNode]]:
    return {name: node for name, node in node_classes().items() if node.RELATIVE_PYTHON_MODULE == "nodes"}


def own_names() -> list[str]:
    from tessera.nodes import NODES

    packs = {node.GET_SCHEMA().node_id for node in NODES}
    return [name for name in core_nodes() if name not in packs]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    folder = tmp_path_factory.mktemp("nodes")
    torch.save({"cases": cases(), "nodes": own_names()}, folder / "cases.pt")
    script = Path(__file__).parent / "run_nodes.py"
    command = [python_of(checkout), str(script), str(checkout), str(folder / "cases.pt"), str(folder / "out.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout)
    assert done.returncode == 0, done.stderr[-4000:]
    yield torch.load(folder / "out.pt", weights_only=False)


def ours(node_id: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    resolved = {name: resolve(value) for name, value in inputs.items()}
    node = core_nodes()[node_id]
    node = type(node.__name__, (node,), {"hidden": HiddenHolder(dict.fromkeys(Hidden))})
    return tuple(map(probe, node.execute(**resolved).args))


def resolve(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("node",):
        return ours(value[1], value[2])[0]
    if isinstance(value, tuple) and value[:1] == ("model",):
        kind = {"eps": ModelType.EPS, "flow": ModelType.FLOW}[value[1]]
        return FakeModel(model_sampling(None, kind))
    return value


def difference(one: Any, two: Any) -> float:
    """The largest difference of numbers in two values that are otherwise the same."""
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        return 0.0 if torch.equal(one, two) else float((one.double() - two.double()).abs().max())
    if isinstance(one, dict) and isinstance(two, dict):
        assert one.keys() == two.keys()
        return max((difference(one[key], two[key]) for key in one), default=0.0)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        assert len(one) == len(two)
        return max((difference(a, b) for a, b in zip(one, two, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(two, (int, float)):
        return abs(one - two)
    assert one == two
    return 0.0


@pytest.mark.parametrize("name", cases())
def test_results(name: str, theirs: dict[str, Any]) -> None:
    expected = theirs["results"][name]
    assert not isinstance(expected, str), f"ComfyUI's node failed: {expected}"
    node_id, inputs = cases()[name]
    assert difference(ours(node_id, inputs), expected) <= TOLERANCE


def flat(inputs: dict[str, Any], files: set[str]) -> list[tuple[Any, ...]]:
    """Inputs in order, with what decides their values; lists of files are left out."""
    found = []
    for group in ("required", "optional"):
        for name, spec in inputs.get(group, {}).items():
            kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
            if isinstance(kind, (list, tuple)):
                kind, options = "COMBO", {"options": list(kind), **options}
            if name in files:
                options.pop("options", None)
            values = {key: options[key] for key in DECIDES_VALUES if options.get(key) not in (None, [], "", False)}
            if kind in ("INT", "FLOAT") and "step" not in values:
                values["step"] = 1 if kind == "INT" else 0.01
            found.append((group, name, kind, _plain(values)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in ("tooltip", "multiselect", "advanced")}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(getattr(value, "value", value)) if not isinstance(value, (int, float)) else float(value)


@pytest.mark.parametrize("node_id", own_names())
def test_declarations(node_id: str, theirs: dict[str, Any]) -> None:
    own, their = core_nodes()[node_id].GET_NODE_INFO_V1(), theirs["info"][node_id]
    groups = (own["input"].get(group, {}) for group in ("required", "optional"))
    specs = [(name, spec[1].get("options")) for group in groups for name, spec in group.items()]
    files = {name for name, options in specs if isinstance(options, FileNames)}
    assert flat(own["input"], files) == flat(their["input"], files)
    assert own["output"] == [str(each) for each in their["output"]]
    assert own["output_name"] == [str(each) for each in their["output_name"]]
    assert set(own["search_aliases"] or []) == set(their["search_aliases"] or [])
    for flag in ("output_node", "is_input_list", "deprecated", "experimental"):
        assert own[flag] == bool(their[flag]), flag
