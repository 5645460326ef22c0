"""Models that enlarge images, through spandrel (drop-in replacement for what ComfyUI's UpscaleModelLoader gives)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...weights.files import PICKLES, read_weights
from ..layouts.state_dicts import load_state_dict
from ..runtime.running import make_patcher

EXTRA = 'is not installed, which models that enlarge images need; install it: pip install "tessera-nodes[upscale]"'
WRAPPED = "module."
"""The prefix of some SwinIR files, which were saved from a wrapper."""


class UpscaleModel:
    """A spandrel model of single images.

    Args:
        descriptor: spandrel's `ImageModelDescriptor`: called with (B, 3, H, W) in 0..1, it pads and crops as needed.
    """

    def __init__(self, descriptor: Any) -> None:
        self.descriptor = descriptor
        self.scale: int = descriptor.scale
        self.patcher = make_patcher(descriptor.model)

    def __call__(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) in 0..1 to (B, 3, H * scale, W * scale)."""
        return self.descriptor(images)


def load_upscale_model(path: str | Path) -> UpscaleModel:
    """Return the UPSCALE_MODEL of a `.safetensors` file, or of a `.pth` that holds nothing but tensors.

    Raises:
        ModuleNotFoundError: spandrel is not installed; the message names the extra.
        ValueError: the file is damaged, holds code, or is of no known architecture, or its images are not coloured.
    """
    try:
        # An optional extra.
        from spandrel import (  # pyright: ignore[reportMissingImports]
            ImageModelDescriptor,
            ModelLoader,
            UnsupportedModelError,
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} {EXTRA}") from error
    path = Path(path)
    weights = read_weights(path) if path.suffix.lower() in PICKLES else load_state_dict(path)
    if all(key.startswith(WRAPPED) for key in weights):
        weights = {key.removeprefix(WRAPPED): tensor for key, tensor in weights.items()}
    try:
        found = ModelLoader(torch.device("cpu")).load_from_state_dict(dict(weights))
    except (UnsupportedModelError, KeyError, TypeError, RuntimeError):
        raise ValueError(f"{path.name}: spandrel knows no architecture with these weights") from None
    if not isinstance(found, ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise ValueError(f"{path.name}: it is a {found.architecture.name}, expected a model of single coloured images")
    return UpscaleModel(found.eval())
