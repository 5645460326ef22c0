"""API prompts around a single node, as landed versions of the pack have saved or taken them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from node_contract import WIDGETS, landed

Prompt = dict[str, dict[str, Any]]


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


SOURCES: Prompt = {
    "demo": _node("TesseraDemoCheckpoint", name="texture-sd"),
    "text": _node("CLIPTextEncode", clip=["demo", 1], text="moss"),
    "latent": _node("EmptyLatentImage", width=128, height=128, batch_size=1),
    "image": _node("VAEDecode", samples=["latent", 0], vae=["demo", 2]),
    "tile": _node("TesseraMakeTileable", image=["image", 0]),
    "noise": _node("RandomNoise", noise_seed=1),
    "guider": _node("BasicGuider", model=["demo", 0], conditioning=["text", 0]),
    "sampler": _node("KSamplerSelect", sampler_name="euler"),
    "sigmas": _node("BasicScheduler", model=["demo", 0], scheduler="normal", steps=2, denoise=1.0),
    "adapter": _node("TesseraLoadIPAdapter", ip_adapter="texture-sd (demo)"),
    "prompts": _node("TesseraImagePrompt", image=["image", 0]),
    "applied": _node(
        "TesseraApplyImagePrompts", model=["demo", 0], image_prompts=["prompts", 0], ip_adapter=["adapter", 0]
    ),
    "padded": _node("TesseraWrapPad", image=["image", 0]),
    "settings": _node("TesseraSettings", family="SDXL", rules="Scenario"),
}
"""A node for each type, with as few inputs as it takes."""

LINKS: dict[str, list[Any]] = {
    "MODEL": ["demo", 0],
    "CLIP": ["demo", 1],
    "VAE": ["demo", 2],
    "CONDITIONING": ["text", 0],
    "LATENT": ["latent", 0],
    "IMAGE": ["image", 0],
    "MASK": ["tile", 1],
    "NOISE": ["noise", 0],
    "GUIDER": ["guider", 0],
    "SAMPLER": ["sampler", 0],
    "SIGMAS": ["sigmas", 0],
    "IP_ADAPTER": ["adapter", 0],
    "IMAGE_PROMPTS": ["prompts", 0],
    "TESSERA_WRAP_GEOMETRY": ["padded", 1],
}
NEEDED = {"TesseraWrapPad": ["image"], "TesseraWrapCrop": ["geometry", "image"], "TesseraEnhancePrompt": ["prompt"]}
"""Inputs without which a node has nothing to do, though no single one of them is required, or with an empty default."""
WORDS = {"prompt": "moss"}


MORE: dict[str, dict[str, Any]] = {
    "TesseraScheduler": {"steps": 2},
    "TesseraSchedulerKSampler": {"steps": 2},
    "TesseraSchedulerCompare": {"steps": 2, "schedulers": "DDIM"},
    "TesseraApplyImagePrompts": {"ip_adapter": ["adapter", 0]},
    "TesseraReferenceMap": {"model": ["applied", 0]},
}
"""Values that make a run short, and links without which some inputs are of no use."""


def runs() -> list[Any]:
    """(node id, names of inputs) for each of the smallest sets that a node runs with, without files of the user's."""
    return [each for each in cases("accepted") if each.values[0] != "TesseraSafetyFilter"]


def cases(kind: str) -> list[Any]:
    """(node id, names of inputs) for each set of a kind, "accepted" or "saved"."""
    return [
        pytest.param(node_id, sorted({*names, *NEEDED.get(node_id, [])}), id=f"{node_id}-{number}")
        for node_id, each in landed().items()
        for number, names in enumerate(each[kind])
    ]


def prompt_around(node_id: str, names: Sequence[str], info: Mapping[str, Any], shows: tuple[str, str]) -> Prompt:
    """A graph that shows what a node gives.

    Args:
        node_id: its class.
        names: of the inputs that the prompt holds; optional links to what only files hold are left out.
        info: the node's entry in /object_info, which tells types, and choices where no version has had a default.
        shows: the class of an output node that takes anything, and the name of that input.
    """
    return _shown(_node(node_id, **_landed_inputs(node_id, names, info)), info, shows)


def prompt_with(node_id: str, inputs: Mapping[str, Any], info: Mapping[str, Any], shows: tuple[str, str]) -> Prompt:
    """A graph that shows what a node gives for some inputs; those that it needs besides are linked."""
    links = {name: LINKS[kind[0]] for name, kind in info["input"].get("required", {}).items() if kind[0] in LINKS}
    return _shown(_node(node_id, **{**links, **inputs}), info, shows)


def _landed_inputs(node_id: str, names: Sequence[str], info: Mapping[str, Any]) -> dict[str, Any]:
    kinds = info["input"].get("required", {}) | info["input"].get("optional", {})
    saved = landed()[node_id]["saved"]
    inputs = {}
    for name in names:
        kind, options = kinds[name]
        if kind in WIDGETS:
            known = [each[name] for each in saved if each.get(name) is not None]
            inputs[name] = WORDS.get(name) or (known[0] if known else options["options"][0])
        elif kind in LINKS or name in info["input"].get("required", {}):
            inputs[name] = LINKS[kind]
    return inputs


def _shown(node: dict[str, Any], info: Mapping[str, Any], shows: tuple[str, str]) -> Prompt:
    graph = SOURCES | {"node": node}
    if not info["output"] or info["output_node"]:
        return graph
    class_type, name = shows
    return graph | {"shown": _node(class_type, **{name: ["node", 0]})}
