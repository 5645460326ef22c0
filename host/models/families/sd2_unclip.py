"""Stable Diffusion 2.1 unCLIP, which draws what an encoded image shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...layouts.state_dicts import StateDict
from ..image_conds import NoiseAugmentor, unclip_embedding
from . import sd2

MERGE = 0.05
"""Noise of the sum of several images, where the conditioning does not say."""


class SD2Unclip(sd2.SD2):
    """Stable Diffusion 2.1 that is told an encoded image."""

    def encode_adm(self, **kwargs: Any) -> Tensor:
        """Return the image's embedding and its noise level (1, 2 D); zeros without an image."""
        config: Any = self.diffusion_model.config
        width = config.projection_class_embeddings_input_dim
        images = kwargs.get("unclip_conditioning")
        if images is None:
            return torch.zeros(1, width)
        augmentor = NoiseAugmentor(torch.zeros(1, width // 2), torch.ones(1, width // 2))
        seed = (kwargs.get("seed") or 0) - 10
        found = unclip_embedding(images, augmentor, kwargs.get("unclip_noise_augment_merge", MERGE), seed)
        if found.shape[1] != width:
            raise ValueError(
                f"an image is encoded to {found.shape[1] // 2} numbers, expected {width // 2}; use the image encoder "
                "of the checkpoint, which unCLIPCheckpointLoader loads"
            )
        return found


def _detect(sd: StateDict) -> bool:
    return "down_blocks.0.resnets.0.conv1.weight" in sd and "class_embedding.linear_1.weight" in sd


FAMILY = replace(
    sd2.FAMILY,
    name="Stable Diffusion 2.1 unCLIP",
    model=SD2Unclip,
    detect=_detect,
    file_names=r"unclip",
)
