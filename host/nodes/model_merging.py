"""ComfyUI's core nodes that merge models and text encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..runtime.patcher import ModelPatcher
from ..schema import io
from ..schema.declare import Nodes, decimal

NODES = Nodes("model/merging")


def weights_of(patcher: ModelPatcher) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return changes that are the weights of another model, its own changes included, taken when they are needed."""

    def take(key: str, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda target: (patcher.patched_weight(key, weight) if key in patcher.patches else weight).to(target)

    return {key: take(key, weight) for key, weight in patcher.model.state_dict().items()}


def merged(one: ModelPatcher, two: ModelPatcher, strength: float, own: float) -> ModelPatcher:
    """Return `own` times the weights of a model plus `strength` times those of another."""
    patched = one.clone()
    patched.add_patches(weights_of(two), strength, own)
    return patched


def _ratio() -> io.Float.Input:
    return decimal("ratio", 1.0, 0.0, 1.0, tooltip="1 is the first alone.")


MODELS = [io.Model.Input("model1"), io.Model.Input("model2")]


@NODES("ModelMergeSimple", "ModelMergeSimple", [*MODELS, _ratio()], [io.Model])
def merge(model1: ModelPatcher, model2: ModelPatcher, ratio: float) -> ModelPatcher:
    """Average the weights of two models."""
    return merged(model1, model2, 1.0 - ratio, ratio)


@NODES("ModelMergeAdd", "ModelMergeAdd", MODELS, [io.Model])
def add(model1: ModelPatcher, model2: ModelPatcher) -> ModelPatcher:
    """Add the weights of a model, or of a difference of models, to another."""
    return merged(model1, model2, 1.0, 1.0)


@NODES(
    "ModelMergeSubtract",
    "ModelMergeSubtract",
    [*MODELS, decimal("multiplier", 1.0, -10.0, 10.0, tooltip="Factor of the difference.")],
    [io.Model],
)
def subtract(model1: ModelPatcher, model2: ModelPatcher, multiplier: float) -> ModelPatcher:
    """Take the difference of the weights of two models."""
    return merged(model1, model2, -multiplier, multiplier)


@NODES("CLIPMergeSimple", "CLIPMergeSimple", [io.Clip.Input("clip1"), io.Clip.Input("clip2"), _ratio()], [io.Clip])
def merge_text(clip1: Any, clip2: Any, ratio: float) -> Any:
    """Average the weights of two text encoders."""
    patched = clip1.clone()
    patched.add_patches(weights_of(clip2.patcher), 1.0 - ratio, ratio)
    return patched
