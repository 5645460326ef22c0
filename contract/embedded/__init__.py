"""What the pack takes from the embedded host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ...host import folder_paths
from ...host.models.attention_hooks import optimized_attention
from ...host.progress import ProgressBar, throw_exception_if_processing_interrupted
from ...host.sampling.cond_batch import calc_cond_batch
from ...host.sampling.conds import convert_cond
from ...host.schema import io, ui
from ...host.schema.extension import ComfyExtension, add_replacement, add_route
from ...weights.files import check_model
from ..folders import register
from ..protocols import MODEL, Loaded

if TYPE_CHECKING:
    import torch

    from ...host.runtime.patcher import ModelPatcher

__all__ = [
    "ComfyExtension",
    "ProgressBar",
    "add_lora",
    "add_replacement",
    "add_route",
    "calc_cond_batch",
    "convert_cond",
    "folder_paths",
    "io",
    "load_clip_vision",
    "load_demo",
    "manage",
    "optimized_attention",
    "room_for_model",
    "sampling_classes",
    "saves_metadata",
    "stand_ins",
    "throw_exception_if_processing_interrupted",
    "ui",
]

register(folder_paths)


def load_clip_vision(path: str | Path) -> Any:
    """Load a CLIP_VISION from a file, or from a folder with `config.json` and `model.safetensors`.

    Raises:
        ValueError: it holds no image encoder, or is broken.
    """
    from ...host.models import loaders

    return loaders.load_clip_vision(check_model(path))


def load_demo(folder: Path) -> Loaded:
    """Load a diffusers folder of a demo model as MODEL, CLIP and VAE.

    Raises:
        ValueError: a part is missing.
    """
    from ...host.models.loaders import load_checkpoint

    model, clip, vae = load_checkpoint(folder, folder_paths.get_folder_paths("embeddings"))
    if clip is None or vae is None:
        raise ValueError(f"{folder} lacks a text encoder or a VAE; install the pack again")
    return model, clip, vae


def add_lora(model: MODEL, weights: dict[str, Any], strength: float) -> MODEL:
    """Return a clone of a MODEL with a LoRA, whose tensors are named as in kohya's files.

    Raises:
        ValueError: it fits nowhere.
    """
    from ...host.models.lora import load_lora_for_models

    patched, _ = load_lora_for_models(cast("ModelPatcher", model), None, weights, strength, 0.0)
    return cast("ModelPatcher", patched)


manage = None
"""Puts a module under memory management; this host has none, so that a run copies to the device what it needs."""


def room_for_model(size: int) -> torch.device:
    """Return where a model of `size` bytes runs that is not a MODEL, CLIP or VAE."""
    from ...host.runtime.devices import torch_device

    return torch_device()


def saves_metadata() -> bool:
    """Return whether images may carry their graph."""
    return True


def sampling_classes() -> ModuleType:
    """Return the module of samplers and guiders, which is loaded when a run needs it."""
    from . import sampling

    return sampling


def stand_ins(
    kinds: Mapping[str, str],
    entries: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, Callable[..., Any]],
    files: Callable[[], list[str]],
) -> list[Any]:
    """Return no nodes that stand in for other packs' ones: `tessera run --replace` puts ours in their place."""
    return []
