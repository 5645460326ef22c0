"""Hooks of the seamless methods in a MODEL: around the run, all conditionings, and each denoiser call."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..patching.calls import Call, CondBatch, DenoiserCall, SamplingRun
from ..patching.control_networks import controls, network_of
from ..patching.networks import Network, describe
from ..patching.schedule import ScheduleRange
from ..patching.wrappers import Hook
from .axes import Axes, edges_that_meet
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .torus import Size, rotary_embedders, torus

PERIOD = "tessera_period"
SEED = "tessera_seed"
NAMED = "tessera_named"
"""Option of a run: unsupported control networks have been logged."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeamlessHooks:
    """Hooks of a seamless denoiser, without state between calls.

    Attributes:
        axes: along which axes the image repeats.
        schedule: part of the schedule in which the edges meet.
    """

    axes: Axes
    schedule: ScheduleRange = ScheduleRange()

    @property
    def hooks(self) -> dict[type[Call], Hook]:
        """By the kind of call that they surround."""
        return {SamplingRun: self.around_run, CondBatch: self.around_conds, DenoiserCall: self.around_step}

    def unit(self, network: Network) -> int:
        """Return the number of latents of which a side that repeats must be a multiple.

        Raises:
            ValueError: the method does not suit the network.
        """
        raise NotImplementedError

    def summary(self, network: Network) -> str:
        """Say what is done to the network, for the report."""
        raise NotImplementedError

    def step(self, call: DenoiserCall, axes: Axes) -> Tensor:
        """Call the denoiser on the torus.

        Args:
            call: of the denoiser.
            axes: along which the latents of this call repeat; at least one.
        """
        raise NotImplementedError

    def report(self, model: Any) -> str:
        """Say in words what the hooks do to a host's MODEL.

        Raises:
            ValueError: the method does not suit the model, or a layer has no periodic form (`NotPeriodicError`).
        """
        network = describe(model)
        pixels = self.unit(network) * network.pixels
        return (
            f"{network.name}: {self.summary(network)}; {edges_that_meet(self.axes)}, from {self.schedule.start:.0%} "
            f"to {self.schedule.end:.0%} of the schedule. {multiples(self.axes, pixels)} Control networks are made "
            "periodic as well; the log names each one in use that cannot be."
        )

    def around_run(self, run: SamplingRun) -> Tensor:
        """Validate the latent size, and record period and seed for the steps.

        Raises:
            ValueError: the latent's size along a wrapping axis is not a multiple of the method's unit.
        """
        if run.noise.ndim < 4:
            raise ValueError(f"Seamless tiling needs latents of images, but these are {tuple(run.noise.shape)}.")
        size, network = (run.noise.shape[-2], run.noise.shape[-1]), run.network
        check_size(size, self.axes, self.unit(network), network.pixels)
        self.schedule.prepare(run, "Seamless", "its edges do not meet")
        run.options[PERIOD] = size
        run.options[SEED] = run.seed
        return run.proceed()

    def around_conds(self, call: CondBatch) -> Any:
        """Make control networks, which run before the denoiser, periodic as well."""
        x = call.x
        with ExitStack() as stack:
            if self.schedule.acts(call):
                whole = (cond for cond in call.conditionings if "area" not in cond)
                every = {id(network_of(control) or control): control for control in controls(whole)}
                for control in every.values():
                    network = network_of(control)
                    if _is_periodic(network, x.shape[1]):
                        self._enter_control(stack, network, x)
                    elif not call.options.get(NAMED):
                        _warn_unsupported(control)
                call.options[NAMED] = True
            return call.proceed()

    def _enter_control(self, stack: ExitStack, network: nn.Module, x: Tensor) -> None:
        stack.enter_context(circular(network, self.axes))
        if any(rotary_embedders(network)):
            sizes = [tokens((x.shape[-2], x.shape[-1]), token_size(Network(network, x.shape[1])))]
            stack.enter_context(torus(network, self.axes, sizes, demand=False))

    def around_step(self, call: DenoiserCall) -> Tensor:
        """Make the denoiser periodic while sigma is within range."""
        axes = whole_axes(self.axes, call.size, call.options.get(PERIOD))
        if not any(axes) or not self.schedule.acts(call):
            return call.proceed()
        return self.step(call, axes)


def token_size(network: Network) -> int:
    """Return the side of a transformer's token, in latents.

    Raises:
        NotPeriodicError: the network does not say.
    """
    if network.token_size is None:
        raise NotPeriodicError(
            f"{network.name} does not say in patch_size how large its tokens are; use the method rolling."
        )
    return network.token_size


def tokens(size: Size, patch: int) -> Size:
    """Return (height, width) in tokens of an image of `size` latents, rounded up."""
    return -(-size[0] // patch), -(-size[1] // patch)


def multiples(axes: Axes, pixels: int) -> str:
    """Say of what sides must be multiples.

    >>> multiples(Axes(True, True, brick=True), 64)
    'Sides that repeat must be multiples of 64 px, the width of 128 px.'
    """
    sides = zip(("height", "width"), axes.units(pixels), strict=True)
    doubled = "".join(f", the {side} of {unit} px" for side, unit in sides if unit > pixels)
    return f"Sides that repeat must be multiples of {pixels} px{doubled}."


def check_size(size: Size, axes: Axes, factor: int, pixel: int) -> None:
    """Raise ValueError when a side that wraps is not a multiple of `factor`.

    Args:
        size: (height, width) in latent pixels.
        axes: axes that wrap; a side along which repeats are shifted by half must be a multiple of twice the factor.
        factor: the method's unit.
        pixel: image pixels per latent pixel.
    """
    height, width = axes.units(factor)
    for name, length, wraps, units in (
        ("width", size[1], axes.horizontal, width),
        ("height", size[0], axes.vertical, height),
    ):
        if wraps and length % units:
            unit = units * pixel
            below = length // units * unit
            nearest = f"{below} or {below + unit}" if below else f"{unit}"
            raise ValueError(
                f"An image whose {edges_that_meet(axes)} needs a {name} that is a multiple of {unit} px with this "
                f"model, but it is {length * pixel} px; set the {name} to {nearest} px."
            )


def whole_axes(axes: Axes, size: Size, period: Size | None) -> Axes:
    """Drop axes along which a call covers only a part of the image (area conditioning), which has no opposite edge."""
    if period is None or size == period:
        return axes
    straight = not (axes.half_drop or axes.brick)
    return Axes(
        straight and axes.horizontal and size[1] == period[1], straight and axes.vertical and size[0] == period[0]
    )


def _is_periodic(network: Any, channels: int) -> bool:
    """Return whether `circular` and `torus` make a control network periodic; SD3's have a table of positions."""
    if not isinstance(network, nn.Module):
        return False
    try:
        convolutions = list(wrapping_convolutions(network))
        if not any(rotary_embedders(network)):
            return bool(convolutions)
        return token_size(Network(network, channels)) > 0  # or it raises: the torus needs the size of a token
    except NotPeriodicError:
        return False


def _warn_unsupported(control: Any) -> None:
    name = type(control).__name__
    _log.warning("Seamless: the control network %s is not made periodic; its guidance may draw a seam.", name)
