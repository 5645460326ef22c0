"""What kind of network a model has, decided by its parts, since class names differ between hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

UNETS = (("input_blocks", "output_blocks"), ("down_blocks", "mid_block", "up_blocks"))
"""Parts of ComfyUI's own UNets, and of those of diffusers."""
FLUX = (("double_blocks", "single_blocks", "txt_in"), ("transformer_blocks", "single_transformer_blocks"))
"""Parts of ComfyUI's own Flux, and of that of diffusers."""
FLUX_CLASSES = {"Flux", "FluxTransformer2DModel"}
"""Transformers with Flux's parts are many (Chroma, Flux.2, HunyuanVideo); these classes attend as Flux.1 does."""


@dataclass(frozen=True)
class Network:
    """A denoiser.

    Attributes:
        module: as the host holds it; a UNet may be inside.
        channels: of its latents.
        pixels: image pixels along the side of one latent.
    """

    module: nn.Module
    channels: int
    pixels: int = 8

    @property
    def name(self) -> str:
        """Of the class, for messages."""
        return type(self.module).__name__

    @cached_property
    def unet(self) -> nn.Module | None:
        """ComfyUI's own `UNetModel` or a diffusers UNet, wherever in the module it is."""
        return _find(self.module, UNETS)

    @cached_property
    def flux(self) -> Any:
        """ComfyUI's own `Flux` or that of diffusers."""
        return _find(self.module, FLUX)

    @property
    def is_flux(self) -> bool:
        """Whether it is Flux.1 itself, of ComfyUI or of diffusers, and not one of its relatives."""
        return bool({kind.__name__ for kind in type(self.module).__mro__} & FLUX_CLASSES)

    @cached_property
    def downsampling(self) -> int:
        """Latents along a side that become one at the bottom of a UNet (8 for SD 1.5, 4 for SDXL)."""
        unet: Any = self.unet
        blocks = unet.input_blocks if hasattr(unet, "input_blocks") else unet.down_blocks
        return 2 ** sum(any(_halves(layer) for layer in block.modules()) for block in blocks)

    @cached_property
    def token_size(self) -> int | None:
        """Latents along one side of a transformer's token; None where the network does not say."""
        config = getattr(self.module, "config", None)
        if isinstance(config, Mapping) and "in_channels" in config:
            # A host feeds whole patches to diffusers' own transformers, as channels.
            packed = (config.get("out_channels") or config["in_channels"]) / self.channels
            side = config.get("patch_size") or config.get("all_patch_size", (1,))[0]
            return round(side * packed**0.5)
        size = getattr(self.module, "patch_size", None) or getattr(self.module, "patch", None)
        side = size[-1] if isinstance(size, Sequence) and size else size
        return side if isinstance(side, int) else None

    @property
    def flux_blocks(self) -> int:
        """Double and single blocks of a Flux."""
        names = ("double_blocks", "single_blocks", "transformer_blocks", "single_transformer_blocks")
        return sum(len(getattr(self.flux, name, ())) for name in names)

    @property
    def text_width(self) -> int:
        """Width of the text's tokens that a Flux reads."""
        return (getattr(self.flux, "txt_in", None) or self.flux.context_embedder).in_features


def describe(model: Any) -> Network:
    """Return the network of a host's MODEL."""
    latent = model.get_model_object("latent_format")
    module = model.get_model_object("diffusion_model")
    return Network(module, latent.latent_channels, latent.spacial_downscale_ratio)


def _find(network: nn.Module, kinds: tuple[tuple[str, ...], ...]) -> nn.Module | None:
    return next((m for m in network.modules() if any(all(hasattr(m, part) for part in kind) for kind in kinds)), None)


def _halves(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv2d, nn.AvgPool2d)) and layer.stride in (2, (2, 2))
