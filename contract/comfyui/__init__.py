# pyright: reportMissingImports=false
"""What the pack takes from ComfyUI; `embedded` says what each name is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.sampler_helpers import convert_cond
from comfy.samplers import calc_cond_batch
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io, ui

from ...weights.files import check_model
from ..folders import register
from ..protocols import MODEL, Loaded
from .server import add_replacement, add_route

if TYPE_CHECKING:
    import torch

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
    from .demo import load_image_encoder

    return load_image_encoder(check_model(path))


def load_demo(folder: Path) -> Loaded:
    """Load a diffusers folder of a demo model as MODEL, CLIP and VAE."""
    from .demo import load

    return load(folder)


def add_lora(model: MODEL, weights: dict[str, Any], strength: float) -> MODEL:
    """Return a clone of a MODEL with a LoRA, whose tensors are named as in kohya's files.

    ComfyUI names tensors that fit nowhere in its log, and changes nothing where that is all of them.
    """
    from comfy.sd import load_lora_for_models

    return load_lora_for_models(model, None, weights, strength, 0.0)[0]


def manage(module: torch.nn.Module) -> MODEL:
    """Put a module under ComfyUI's memory management, which makes room for it and moves it to the GPU with others."""
    from comfy import model_management
    from comfy.model_patcher import CoreModelPatcher

    device, rest = model_management.get_torch_device(), model_management.unet_offload_device()
    return CoreModelPatcher(module, load_device=device, offload_device=rest)


def room_for_model(size: int) -> torch.device:
    """Return where a model of `size` bytes runs that is not a MODEL, CLIP or VAE, and make room for it there."""
    from comfy.model_management import free_memory, text_encoder_device

    device = text_encoder_device()
    free_memory(size, device)
    return device


def saves_metadata() -> bool:
    """Return whether images may carry their graph: ComfyUI can be told that they must not."""
    from comfy.cli_args import args

    return not args.disable_metadata


def sampling_classes() -> ModuleType:
    """Return the module of samplers and guiders."""
    from . import sampling

    return sampling


def stand_ins(
    kinds: Mapping[str, str],
    entries: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, Callable[..., Any]],
    files: Callable[[], list[str]],
) -> list[Any]:
    """Return nodes that stand in for other packs' ones, and expand into ours when they run.

    Args:
        kinds: by our node id, their class.
        entries: by their class, what /object_info says of it.
        rules: by their class, what makes parts of its inputs: `nodes`, the links of its `outputs`, and `notes`.
        files: the adapters that are there.
    """
    from .expanding import make

    return [make(ours, theirs, entries[theirs], rules[theirs], files) for ours, theirs in kinds.items()]
