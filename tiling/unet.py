"""A UNet denoiser that sees its latents on a torus, hooked into a MODEL's run and steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .axes import Axes, describe
from .circular import circular, wrapping_convolutions

PERIOD = "tessera_period"
UNET_PARTS = (("input_blocks", "output_blocks"), ("down_blocks", "mid_block", "up_blocks"))

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CircularUNet:
    """The hooks of a seamless UNet, for a host's OUTER_SAMPLE and APPLY_MODEL wrappers. Nothing is kept between calls.

    Args:
        axes: along which axes the picture repeats.
        start: fraction of the schedule (0..1) at which the convolutions begin to wrap.
        end: fraction of the schedule (0..1) at which they cease to.
    """

    axes: Axes
    start: float = 0.0
    end: float = 1.0

    def report(self, model: Any) -> str:
        """Say in words what the hooks do to a host's MODEL.

        Raises:
            ValueError: it has no UNet, or a layer of it has no periodic form (`NotPeriodicError`).
        """
        unet = find_unet(model.get_model_object("diffusion_model"))
        unit = downsampling(unet) * model.get_model_object("latent_format").spacial_downscale_ratio
        count = sum(1 for _ in wrapping_convolutions(unet))
        return (
            f"{type(unet).__name__}: {count} convolutions wrap around, {describe(self.axes)} edges meet, from "
            f"{self.start:.0%} to {self.end:.0%} of the schedule. Sides that repeat must be multiples of {unit} px. "
            "Control networks stay as they are; the log names each one in use."
        )

    def around_run(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE: refuse a size that is no torus, name what stays as it is, and note the period for the steps.

        Raises:
            ValueError: the latent's size along a wrapping axis is not a multiple of the UNet's downsampling.
        """
        guider = executor.class_obj
        height, width = noise.shape[-2:]
        model = guider.model_patcher
        check_size(
            (height, width),
            self.axes,
            downsampling(find_unet(model.get_model_object("diffusion_model"))),
            model.get_model_object("latent_format").spacial_downscale_ratio,
        )
        for name in control_names(guider.conds):
            _log.warning("Seamless: the control network %s is not made periodic; its guidance may draw a seam.", name)
        guider.model_options["transformer_options"][PERIOD] = (height, width)
        return executor(noise, *args, **kwargs)

    def around_step(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: Any,
        transformer_options: dict[str, Any],
        **kwargs: Any,
    ) -> Tensor:
        """APPLY_MODEL: wrap the UNet's convolutions while sigma is within range. x: (B, C, H, W); t: (B,) sigmas."""
        base = executor.class_obj
        axes = whole_axes(self.axes, (x.shape[-2], x.shape[-1]), transformer_options.get(PERIOD))
        wraps = any(axes) and self._covers(t, base.model_sampling.percent_to_sigma)
        with circular(base.diffusion_model, axes) if wraps else nullcontext():
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    def _covers(self, sigma: Tensor, percent_to_sigma: Callable[[float], float]) -> bool:
        if (self.start, self.end) == (0.0, 1.0):  # reading sigma would make a GPU wait
            return True
        return percent_to_sigma(self.end) <= float(sigma.max()) <= percent_to_sigma(self.start)


def find_unet(network: nn.Module) -> nn.Module:
    """Return the UNet in `network`: ComfyUI's own `UNetModel`, or a diffusers UNet that a host may have wrapped.

    Raises:
        ValueError: there is none.
    """
    for module in network.modules():
        if any(all(hasattr(module, part) for part in parts) for parts in UNET_PARTS):
            return module
    raise ValueError(
        f"Seamless tiling makes UNet models (Stable Diffusion 1.5, SDXL) periodic, but the model is a "
        f"{type(network).__name__}; load one of those."
    )


def downsampling(unet: nn.Module) -> int:
    """Return how many latent pixels become one at the bottom of `unet` (8 for SD 1.5, 4 for SDXL)."""
    blocks = unet.input_blocks if hasattr(unet, "input_blocks") else unet.down_blocks
    assert isinstance(blocks, nn.ModuleList)
    return 2 ** sum(any(_halves(layer) for layer in block.modules()) for block in blocks)


def check_size(size: tuple[int, int], axes: Axes, factor: int, pixel: int) -> None:
    """Raise ValueError when a latent is not on a torus for the UNet: a side that wraps must be a multiple of `factor`.

    Args:
        size: (height, width) in latent pixels.
        axes: which of them wrap.
        factor: the UNet's `downsampling`.
        pixel: image pixels per latent pixel.
    """
    height, width = size
    for name, length, wraps in (("width", width, axes.horizontal), ("height", height, axes.vertical)):
        if wraps and length % factor:
            unit = factor * pixel
            below = length // factor * unit
            nearest = f"{below} or {below + unit}" if below else f"{unit}"
            raise ValueError(
                f"A picture that repeats {describe(axes)} needs a {name} that is a multiple of {unit} px with this "
                f"model, but it is {length * pixel} px; set the {name} to {nearest} px."
            )


def whole_axes(axes: Axes, size: tuple[int, int], period: tuple[int, int] | None) -> Axes:
    """Drop the axes along which a call sees only a region of the picture (area conditioning): it has no far edge."""
    if period is None:
        return axes
    return Axes(axes.horizontal and size[1] == period[1], axes.vertical and size[0] == period[0])


def control_names(conds: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the class names of the control networks attached to conditionings, each once, sorted."""
    names = set()
    for cond in (cond for group in conds.values() for cond in group):
        control = cond.get("control")
        while control is not None:
            names.add(type(control).__name__)
            control = control.previous_controlnet
    return sorted(names)


def _halves(layer: nn.Module) -> bool:
    strided = isinstance(layer, (nn.Conv2d, nn.AvgPool2d))
    return strided and layer.stride in (2, (2, 2))
