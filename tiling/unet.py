"""A UNet denoiser that sees its latents on a torus."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .axes import Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import SeamlessHooks, go_on

UNET_PARTS = (("input_blocks", "output_blocks"), ("down_blocks", "mid_block", "up_blocks"))


class CircularUNet(SeamlessHooks):
    """Every padded convolution reads the opposite border."""

    def unit(self, network: nn.Module, channels: int) -> int:
        """The UNet's downsampling."""
        return downsampling(find_unet(network))

    def summary(self, network: nn.Module, channels: int) -> str:
        """How many convolutions wrap."""
        return f"{sum(1 for _ in wrapping_convolutions(find_unet(network)))} convolutions wrap around"

    def step(self, executor: Any, axes: Axes, call: dict[str, Any]) -> Tensor:
        """The call inside `circular`."""
        with circular(executor.class_obj.diffusion_model, axes):
            return go_on(executor, call)


def is_unet(network: nn.Module) -> bool:
    """Whether `network` is, or holds, ComfyUI's own `UNetModel` or a diffusers UNet."""
    return any(all(hasattr(module, part) for part in parts) for module in network.modules() for parts in UNET_PARTS)


def find_unet(network: nn.Module) -> nn.Module:
    """Return the UNet in `network`: ComfyUI's own `UNetModel`, or a diffusers UNet that a host may have wrapped.

    Raises:
        NotPeriodicError: there is none.
    """
    for module in network.modules():
        if any(all(hasattr(module, part) for part in parts) for parts in UNET_PARTS):
            return module
    raise NotPeriodicError(
        f"The method circular makes UNet models (Stable Diffusion 1.5, SDXL) periodic, but the model is a "
        f"{type(network).__name__}; use the method auto."
    )


def downsampling(unet: nn.Module) -> int:
    """Return how many latent pixels become one at the bottom of `unet` (8 for SD 1.5, 4 for SDXL)."""
    blocks = unet.input_blocks if hasattr(unet, "input_blocks") else unet.down_blocks
    assert isinstance(blocks, nn.ModuleList)
    return 2 ** sum(any(_halves(layer) for layer in block.modules()) for block in blocks)


def _halves(layer: nn.Module) -> bool:
    strided = isinstance(layer, (nn.Conv2d, nn.AvgPool2d))
    return strided and layer.stride in (2, (2, 2))
