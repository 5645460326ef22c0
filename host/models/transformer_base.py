"""Denoisers that are diffusers transformers of one kind: velocity of a rectified flow, text beside the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..sampling.conds import CONDRegular
from .model_base import BaseModel, Conds, ModelType


def empty_module(kind: Any, config: dict[str, Any]) -> Any:
    """Return a module of diffusers without weights or memory."""
    with torch.device("meta"):
        return kind.from_config(config)


class TransformerModel(BaseModel):
    """A transformer; a subclass calls it in `forward_transformer`."""

    default_type = ModelType.FLOW
    patch = 2
    """Latents along the side of one token."""

    patches: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()
    """Names of the hooks inside blocks that are called, of ComfyUI's `patches` and `patches_replace`."""

    def _unknown_patches(self, options: dict[str, Any]) -> list[str]:
        found = {*options.get("patches", {})} - self.patches | {*options.get("patches_replace", {})} - self.replaced
        return sorted(found)

    def encode_adm(self, **kwargs: Any) -> Tensor | None:
        """Return the pooled text (B, P), if the family has one."""
        return kwargs.get("pooled_output")

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add the text, whose length is its own."""
        out = super().extra_conds(**kwargs)
        for argument, name in (("c_crossattn", "cross_attn"), ("attention_mask", "attention_mask")):
            if kwargs.get(name) is not None:
                out[argument] = CONDRegular(kwargs[name])
        return out

    def denoise(
        self, x: Tensor, timestep: Tensor, context: Any, control: Any, options: dict[str, Any], **conds: Any
    ) -> Tensor:
        """Call the transformer inside its DIFFUSION_MODEL wrappers."""
        if control is not None:
            raise ValueError(f"control networks of {type(self).__name__} are not supported here; use ComfyUI")
        y = conds.pop("y", None)
        forward = self._inside_wrappers(self._padded, options)
        return forward(x, timestep, context, y, transformer_options=options, **conds)

    def _padded(self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None = None, **conds: Any) -> Tensor:
        """Wrap latents (B, C, H, W) to whole tokens, and crop what comes back."""
        height, width = x.shape[-2:]
        more = (0, -width % self.patch, 0, -height % self.patch)
        wrapped = F.pad(x, more, mode="circular") if any(more) else x
        return self.forward_transformer(wrapped, timestep, context, y, **conds)[..., :height, :width]

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once.

        Args:
            x: latents (B, C, H, W).
            timestep: (B,).
            context: text embedding (B, L, D).
            y: pooled text (B, P).
            conds: what `extra_conds` adds, and `transformer_options`.

        Returns:
            (B, C, H, W).
        """
        raise NotImplementedError
