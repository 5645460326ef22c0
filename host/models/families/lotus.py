"""Lotus, which turns an image into its depth or its normals in one step, with the UNet of Stable Diffusion 2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...layouts.state_dicts import StateDict
from ..model_base import ModelType
from . import sd2

TASK = (1.0, 0.0)
"""The task of annotating an image; the other one is to draw it again."""

EMBEDDED = 2 * len(TASK)


class Lotus(sd2.SD2):
    """Stable Diffusion 2 that is told a task."""

    default_type = ModelType.IMG_TO_IMG

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """Return the task (1, 4)."""
        task = torch.tensor(TASK)
        return torch.cat([task.sin(), task.cos()])[None]


def _detect(sd: StateDict) -> bool:
    task = sd.get("class_embedding.linear_1.weight")
    return "down_blocks.0.resnets.0.conv1.weight" in sd and task is not None and task.shape[1] == EMBEDDED


FAMILY = replace(
    sd2.FAMILY,
    name="Lotus",
    model=Lotus,
    detect=_detect,
    sampling=lambda sd: (None, None),
    file_names=r"lotus",
)
