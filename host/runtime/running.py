"""Models on the devices where they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from . import devices
from .patcher import ModelPatcher


@contextmanager
def running(patcher: ModelPatcher) -> Iterator[None]:
    """Keep a model patched and on its device."""
    patcher.patch_model(patcher.load_device)
    try:
        yield
    finally:
        patcher.unpatch_model(patcher.offload_device)


def make_patcher(model: torch.nn.Module) -> ModelPatcher:
    """Return a patcher of a model that runs on the chosen device."""
    size = sum(p.nelement() * p.element_size() for p in model.parameters())
    return ModelPatcher(model, devices.torch_device(), devices.offload_device(size), size)
