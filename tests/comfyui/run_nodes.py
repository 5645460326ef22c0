"""Runs in ComfyUI's interpreter: its own core nodes on given inputs.

    python run_nodes.py COMFYUI CASES.pt OUT.pt

CASES.pt is a dictionary of `(node id, inputs)` by name; an input that is itself `("node", node id, inputs)` is what
that node returns first. OUT.pt gets the results by name, and the entries of /object_info by node id.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from inside import start

comfyui, cases_path, out_path = sys.argv[1:]
start(comfyui)

import server  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402

sys.path.append(str(Path(__file__).parents[1]))
import comfy.model_sampling as kinds  # noqa: E402  # pyright: ignore[reportMissingImports]
from comfyui.node_fakes import FakeModel, probe  # noqa: E402

import nodes  # noqa: E402  # pyright: ignore[reportMissingImports]


class Hidden:
    """No hidden inputs."""

    def __getattr__(self, name: str) -> None:
        return None


async def awaited(result: Awaitable[Any]) -> Any:
    return await result


async def prepare() -> None:
    server.PromptServer(asyncio.get_running_loop())  # pyright: ignore[reportAttributeAccessIssue]
    await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)


def model(kind: str) -> FakeModel:
    """A model that records what nodes do to it."""
    schedule, prediction = {
        "eps": (kinds.ModelSamplingDiscrete, kinds.EPS),
        "flow": (kinds.ModelSamplingDiscreteFlow, kinds.CONST),
    }[kind]
    sampling: Any = type("ModelSampling", (schedule, prediction), {})
    return FakeModel(sampling(SimpleNamespace(sampling_settings={})))


def run(node_id: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Results of a node."""
    inputs = {name: resolved(value) for name, value in inputs.items()}
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    if hasattr(node, "define_schema"):
        node = node.PREPARE_CLASS_CLONE(None) if hasattr(node, "PREPARE_CLASS_CLONE") else node
        node.hidden = Hidden()
        result = node.execute(**inputs)
        if inspect.isawaitable(result):
            result = asyncio.run(awaited(result))
        return tuple(getattr(result, "args", result) or ())
    result = getattr(node(), node.FUNCTION)(**inputs)
    return tuple(result.get("result", ()) if isinstance(result, dict) else result)


def resolved(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("node",):
        return run(value[1], value[2])[0]
    if isinstance(value, tuple) and value[:1] == ("model",):
        return model(value[1])
    return value


ATTRIBUTES = {
    "output_node": "OUTPUT_NODE",
    "is_input_list": "INPUT_IS_LIST",
    "deprecated": "DEPRECATED",
    "experimental": "EXPERIMENTAL",
    "search_aliases": "SEARCH_ALIASES",
}
"""Where older nodes keep what newer ones tell themselves."""


def info(node_id: str) -> dict[str, Any]:
    """What the editor is told of a node, as far as it decides how files are read and where the node is found."""
    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    if hasattr(node, "GET_NODE_INFO_V1"):
        told = node.GET_NODE_INFO_V1()
    else:
        told = {name: getattr(node, attribute, None) for name, attribute in ATTRIBUTES.items()}
        told["input"] = node.INPUT_TYPES()
    names = getattr(node, "RETURN_NAMES", None) or node.RETURN_TYPES
    return {**told, "output": list(node.RETURN_TYPES), "output_name": list(names)}


asyncio.run(prepare())
wanted = torch.load(cases_path, weights_only=False)
results = {}
for name, (node_id, inputs) in wanted["cases"].items():
    try:
        with torch.inference_mode():
            results[name] = tuple(map(probe, run(node_id, inputs)))
    except Exception as error:
        results[name] = repr(error)
# Through JSON, as the editor gets it: enumerations become what they say.
facts = json.dumps({each: info(each) for each in wanted["nodes"]}, default=str)
torch.save({"results": results, "info": json.loads(facts)}, out_path)
