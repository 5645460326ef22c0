"""A transformer denoiser with rotary positions that sees its latents on a torus."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .axes import Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import SeamlessHooks, go_on, patch_size, tokens
from .torus import rotary_embedders, torus


class TorusDiT(SeamlessHooks):
    """Rotary frequencies are rounded to harmonics of the picture; padded convolutions, where there are any, wrap."""

    def unit(self, network: nn.Module, channels: int) -> int:
        """The side of a token."""
        if not any(rotary_embedders(network)):
            raise NotPeriodicError(
                f"The method torus_rope needs a transformer with rotary positions (Flux, Qwen-Image, Z-Image, Wan), "
                f"but the model is a {type(network).__name__}; use the method auto."
            )
        return patch_size(network, channels)

    def summary(self, network: nn.Module) -> str:
        """That positions repeat, and how many convolutions wrap."""
        list(wrapping_convolutions(network))
        return "rotary positions repeat with the picture (torus RoPE)"

    def step(self, executor: Any, axes: Axes, call: dict[str, Any]) -> Tensor:
        """The call inside `torus` and `circular`; reference latents have their own period."""
        network = executor.class_obj.diffusion_model
        unit = self.unit(network, call["x"].shape[1])
        pictures = [call["x"], *(call.get("ref_latents") or [])]
        sizes = [tokens((p.shape[-2], p.shape[-1]), unit) for p in pictures]
        with torus(network, axes, sizes), circular(network, axes):
            return go_on(executor, call)
