"""Seamless UNets: circular convolutions."""

from __future__ import annotations

from torch import Tensor

from ..patching.calls import DenoiserCall
from ..patching.networks import Network
from .axes import Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import SeamlessHooks


class CircularUNet(SeamlessHooks):
    """Make every padded convolution read the opposite border."""

    def unit(self, network: Network) -> int:
        """Return the UNet's downsampling."""
        check_unet(network)
        return network.downsampling

    def summary(self, network: Network) -> str:
        """Say how many convolutions wrap."""
        check_unet(network)
        assert network.unet is not None
        return f"{sum(1 for _ in wrapping_convolutions(network.unet))} convolutions wrap around"

    def step(self, call: DenoiserCall, axes: Axes) -> Tensor:
        """Call the denoiser inside `circular`."""
        with circular(call.module, axes):
            return call.proceed()


def check_unet(network: Network) -> None:
    """Raise NotPeriodicError when a network is not a UNet."""
    if network.unet is None:
        raise NotPeriodicError(
            f"The method circular makes UNet models (Stable Diffusion 1.5, SDXL) periodic, but the model is a "
            f"{network.name}; use the method auto."
        )
