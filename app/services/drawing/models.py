"""The model that draws a request: a checkpoint, a Flux model in parts, or a demo model in its stead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....host.schema.object_info import inputs_of
from ..bodies.parameters import APPROXIMATED
from .graph_layout import LaidOutGraph, Output
from .model_names import family_of
from .recipe import Recipe, named_file

Info = Mapping[str, Mapping[str, Any]]

DEMO = {"flux-dev": "texture-flux", "flux-pro": "texture-flux", "flux-schnell": "texture-flux"}
"""Demo models that stand in for those of a family; the first one does for others."""
SIDES = {"flux-dev": 16, "flux-pro": 16, "flux-schnell": 16, "sdxl": 32, "texture-sd": 32}
"""Number of px of which the sides of a texture are multiples, by family or demo model."""
USUAL_SIDE = 64
"""Likewise for SD 1.5, and for what is not known: all others divide it."""


def choices(info: Info, class_type: str, name: str) -> list[str]:
    """What a list of a node offers; nothing where there is no such node."""
    return list(inputs_of(info[class_type])[name].options.get("options", [])) if class_type in info else []


def load(graph: LaidOutGraph, recipe: Recipe, family: str | None) -> tuple[Output, Output, Output]:
    """Return MODEL, CLIP and VAE.

    Args:
        family: of the model that was asked for.
    """
    found = _checkpoint(graph.info, recipe.model)
    parts = None if found else flux_parts(graph.info, recipe.model)
    if parts:
        denoiser, first, second, vae = parts
        model = graph.add("model", "UNETLoader", unet_name=denoiser, weight_dtype="default")
        clip = graph.add("text encoders", "DualCLIPLoader", clip_name1=first, clip_name2=second, type="flux")
        return model[0], clip[0], graph.add("vae", "VAELoader", vae_name=vae)[0]
    if found:
        node = graph.add("model", "CheckpointLoaderSimple", ckpt_name=found)
        return node[0], node[1], node[2]
    name = _demo(graph.info, recipe.model, family)
    if name != recipe.model:
        why = f"{name} stands in: no such file in models/checkpoints, name one with --model"
        if not recipe.model:
            why = f"the request names no model, so {name} is used; name one with --model"
        recipe.missing["model"] = (APPROXIMATED, why)
    node = graph.add("model", "TesseraDemoCheckpoint", name=name)
    return node[0], node[1], node[2]


def drawn_family(info: Info, name: str, family: str | None) -> str:
    """Return the family of the model that `load` loads for a name; "" where nothing tells it."""
    if found := _checkpoint(info, name):
        return family_of(found) or family or ""
    return "flux-dev" if flux_parts(info, name) else family_of(_demo(info, name, family)) or ""


def side_unit(info: Info, name: str, family: str | None) -> int:
    """Return the number of px of which the sides of a texture must be multiples with that model."""
    drawn = drawn_family(info, name, family)
    if not _checkpoint(info, name) and not flux_parts(info, name):
        return SIDES.get(_demo(info, name, family)) or SIDES.get(drawn, USUAL_SIDE)
    return SIDES.get(drawn, USUAL_SIDE)


def _checkpoint(info: Info, name: str) -> str | None:
    return named_file(name, choices(info, "CheckpointLoaderSimple", "ckpt_name"))


def _demo(info: Info, name: str, family: str | None) -> str:
    demos = choices(info, "TesseraDemoCheckpoint", "name")
    name = name if name in demos else DEMO.get(family or "", "")
    return name if name in demos else demos[0]


def flux_parts(info: Info, name: str) -> tuple[str, str, str, str] | None:
    """The files of a Flux model in parts: denoiser, CLIP-L, T5, VAE; None where one of them is missing."""
    denoiser = named_file(name, choices(info, "UNETLoader", "unet_name"))
    encoders = choices(info, "DualCLIPLoader", "clip_name1")
    parts = [denoiser if denoiser and "flux" in denoiser.lower() else None]
    parts += [next((file for file in encoders if sign in file.lower()), None) for sign in ("clip_l", "t5xxl")]
    vaes = choices(info, "VAELoader", "vae_name")
    parts.append(next((file for file in vaes if file.lower().rsplit(".", 1)[0].endswith(("ae", "flux_vae"))), None))
    one, two, three, four = parts
    return (one, two, three, four) if one and two and three and four else None
