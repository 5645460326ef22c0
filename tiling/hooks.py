"""What seamless methods hook into a MODEL: its run, the call for all conditionings, each call of the denoiser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .axes import Axes, describe
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .torus import Size, rotary_embedders, torus

PERIOD = "tessera_period"
SEED = "tessera_seed"
NAMED = "tessera_named"
"""Option of a run: the log has named the control networks that stay as they are."""
WHOLE_TOKENS = "tessera_whole_tokens"
"""Option of a run: something in it belongs to whole tokens, so that the picture must not be moved by parts of one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeamlessHooks:
    """The hooks of a seamless denoiser, for a host's wrappers. Nothing is kept between calls.

    Args:
        axes: along which axes the picture repeats.
        start: fraction of the schedule (0..1) at which the edges begin to meet.
        end: fraction of the schedule (0..1) at which they cease to.
    """

    axes: Axes
    start: float = 0.0
    end: float = 1.0

    def unit(self, network: nn.Module, channels: int) -> int:
        """Latent pixels of which a side that repeats must be a multiple. channels: of the latent.

        Raises:
            ValueError: the method does not suit the network.
        """
        raise NotImplementedError

    def summary(self, network: nn.Module, channels: int) -> str:
        """What is done to the network, for the report. channels: of the latent."""
        raise NotImplementedError

    def step(self, executor: Any, axes: Axes, call: dict[str, Any]) -> Tensor:
        """One call of the denoiser on the torus.

        Args:
            executor: goes on with the call; `executor.class_obj` is the host's model.
            axes: along which the latents of this call repeat; at least one.
            call: the arguments of APPLY_MODEL by name.
        """
        raise NotImplementedError

    def report(self, model: Any) -> str:
        """Say in words what the hooks do to a host's MODEL.

        Raises:
            ValueError: the method does not suit the model, or a layer has no periodic form (`NotPeriodicError`).
        """
        network, latent = model.get_model_object("diffusion_model"), model.get_model_object("latent_format")
        pixels = self.unit(network, latent.latent_channels) * latent.spacial_downscale_ratio
        summary = self.summary(network, latent.latent_channels)
        return (
            f"{type(network).__name__}: {summary}; {describe(self.axes)}, from {self.start:.0%} to "
            f"{self.end:.0%} of the schedule. Sides that repeat must be multiples of {pixels} px. Control networks "
            "are made periodic as well; the log names each one in use that cannot be."
        )

    def around_run(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE: refuse a size that is no torus, name what stays as it is, note period and seed for the steps.

        Raises:
            ValueError: the latent's size along a wrapping axis is not a multiple of the method's unit.
        """
        guider = executor.class_obj
        model = guider.model_patcher
        latent = model.get_model_object("latent_format")
        if noise.ndim < 4:
            raise ValueError(f"Seamless tiling needs latents of pictures, but these are {tuple(noise.shape)}.")
        size = (noise.shape[-2], noise.shape[-1])
        unit = self.unit(model.get_model_object("diffusion_model"), latent.latent_channels)
        check_size(size, self.axes, unit, latent.spacial_downscale_ratio)
        sigmas = kwargs.get("sigmas", args[2] if len(args) > 2 else ())
        self._warn_when_idle(sigmas, model.get_model_object("model_sampling").percent_to_sigma)
        options = guider.model_options["transformer_options"]
        options[PERIOD] = size
        options[SEED] = kwargs.get("seed", args[6] if len(args) > 6 else None)
        return executor(noise, *args, **kwargs)

    def _warn_when_idle(self, sigmas: Iterable[Tensor], percent_to_sigma: Callable[[float], float]) -> None:
        """Say so in the log when no step of a run over `sigmas` lies within the range."""
        steps = list(sigmas)[:-1]
        if steps and not any(self.covers(sigma, percent_to_sigma) for sigma in steps):
            part = f"{self.start:.0%} and {self.end:.0%}"
            _log.warning(
                "Seamless: no step of this run lies between %s of the schedule, so its edges do not meet.", part
            )

    def around_conds(
        self, executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> Any:
        """CALC_COND_BATCH: let control networks, which run before the denoiser, see a torus as well."""
        options = model_options["transformer_options"]
        with ExitStack() as stack:
            if self.covers(timestep, model.model_sampling.percent_to_sigma):
                whole = (cond for group in conds for cond in group or [] if "area" not in cond)
                every = {id(control_network(control) or control): control for control in controls(whole)}
                for control in every.values():
                    network = control_network(control)
                    if _is_periodic(network, x.shape[1]):
                        self._enter_control(stack, network, x)
                    elif not options.get(NAMED):
                        _name_as_it_is(control)
                options[NAMED] = True
            return executor(model, conds, x, timestep, model_options)

    def _enter_control(self, stack: ExitStack, network: nn.Module, x: Tensor) -> None:
        stack.enter_context(circular(network, self.axes))
        if any(rotary_embedders(network)):
            sizes = [tokens((x.shape[-2], x.shape[-1]), patch_size(network, x.shape[1]))]
            stack.enter_context(torus(network, self.axes, sizes, demand=False))

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
        """APPLY_MODEL: let the denoiser see a torus while sigma is within range. x: (B, C, H, W); t: (B,) sigmas."""
        base = executor.class_obj
        call = {
            "x": x,
            "t": t,
            "c_concat": c_concat,
            "c_crossattn": c_crossattn,
            "control": control,
            "transformer_options": transformer_options,
            **kwargs,
        }
        axes = whole_axes(self.axes, (x.shape[-2], x.shape[-1]), transformer_options.get(PERIOD))
        if not any(axes) or not self.covers(t, base.model_sampling.percent_to_sigma):
            return go_on(executor, call)
        return self.step(executor, axes, call)

    def covers(self, sigma: Tensor, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether the edges meet at this noise level. sigma: (B,)."""
        if (self.start, self.end) == (0.0, 1.0):  # reading sigma would make a GPU wait
            return True
        return percent_to_sigma(self.end) <= float(sigma.max()) <= percent_to_sigma(self.start)


def go_on(executor: Any, call: dict[str, Any]) -> Tensor:
    """The call of APPLY_MODEL, whose first six arguments hosts give by position."""
    names = ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")
    return executor(*(call[name] for name in names), **{name: call[name] for name in call if name not in names})


def patch_size(network: Any, channels: int) -> int:
    """Latent pixels along one side of a transformer's token.

    Args:
        network: ComfyUI's own transformer, or one of diffusers that a host feeds whole patches.
        channels: of the latent.

    Raises:
        NotPeriodicError: the network does not say.
    """
    config = getattr(network, "config", None)
    if isinstance(config, Mapping) and "in_channels" in config:
        return round(
            config.get("patch_size", 1) * ((config.get("out_channels") or config["in_channels"]) / channels) ** 0.5
        )
    size = getattr(network, "patch_size", None) or getattr(network, "patch", None)
    side = size[-1] if isinstance(size, Sequence) and size else size
    if not isinstance(side, int):
        raise NotPeriodicError(
            f"{type(network).__name__} does not say in patch_size how large its tokens are; use the method rolling."
        )
    return side


def tokens(size: Size, patch: int) -> Size:
    """(height, width) in tokens of a picture of `size` latent pixels; a part of a token counts as one."""
    return -(-size[0] // patch), -(-size[1] // patch)


def check_size(size: Size, axes: Axes, factor: int, pixel: int) -> None:
    """Raise ValueError when a latent is no torus for the network: a side that wraps must be a multiple of `factor`.

    Args:
        size: (height, width) in latent pixels.
        axes: which of them wrap; one that is shifted by half has to have a middle.
        factor: the method's unit.
        pixel: image pixels per latent pixel.
    """
    height, width = size
    for name, length, wraps, halved in (
        ("width", width, axes.horizontal, axes.brick),
        ("height", height, axes.vertical, axes.half_drop),
    ):
        units = factor * (2 if halved else 1)
        if wraps and length % units:
            unit = units * pixel
            below = length // units * unit
            nearest = f"{below} or {below + unit}" if below else f"{unit}"
            raise ValueError(
                f"A picture whose {describe(axes)} needs a {name} that is a multiple of {unit} px with this "
                f"model, but it is {length * pixel} px; set the {name} to {nearest} px."
            )


def whole_axes(axes: Axes, size: Size, period: Size | None) -> Axes:
    """Drop the axes along which a call sees only a region of the picture (area conditioning): it has no far edge."""
    if period is None or size == period:
        return axes
    straight = not (axes.half_drop or axes.brick)
    return Axes(
        straight and axes.horizontal and size[1] == period[1], straight and axes.vertical and size[0] == period[0]
    )


def controls(conds: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """Yield the control objects attached to conditionings with their chains, each once."""
    seen: set[int] = set()
    for cond in conds:
        control = cond.get("control")
        while control is not None and id(control) not in seen:
            seen.add(id(control))
            yield control
            control = control.previous_controlnet


def control_network(control: Any) -> Any:
    """The network of a host's control object (ControlNet, control LoRA, T2I adapter); None when it has none."""
    return getattr(control, "control_model", None) or getattr(control, "t2i_model", None)


def _is_periodic(network: Any, channels: int) -> bool:
    """Whether `circular` and `torus` let a control network repeat; one with neither has a table of positions (SD3)."""
    if not isinstance(network, nn.Module):
        return False
    try:
        convolutions = list(wrapping_convolutions(network))
        if not any(rotary_embedders(network)):
            return bool(convolutions)
        return patch_size(network, channels) > 0  # or it raises: the torus needs the size of a token
    except NotPeriodicError:
        return False


def _name_as_it_is(control: Any) -> None:
    name = type(control).__name__
    _log.warning("Seamless: the control network %s is not made periodic; its guidance may draw a seam.", name)
