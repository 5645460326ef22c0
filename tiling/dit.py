"""A transformer denoiser with rotary positions that sees its latents on a torus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .axes import Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import WHOLE_TOKENS, SeamlessHooks, controls, patch_size, tokens
from .rolling import Shift, run_rolled, step_index
from .torus import rotary_embedders, torus

PHASES: tuple[Shift, ...] = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Where the grid of tokens lies (down, right) at one step after the other, in halves of a token."""

FEWEST_STEPS = 12
"""Shorter runs keep the grid where it is: each of its places needs steps of its own to be evened out."""

CONTROL_PATCHES = ("double_block", "noise_refiner")
"""ComfyUI's patches through which control networks of Qwen-Image, Z-Image and Wan add pictures to tokens."""


class TorusDiT(SeamlessHooks):
    """Rotary frequencies are rounded to harmonics of the picture; padded convolutions, where there are any, wrap.

    Steps between tokens are a little larger than those inside, and the picture's border lies between tokens: so the
    picture moves by half a token on its torus from step to step, and every line is inside a token half of the time.
    """

    def unit(self, network: nn.Module, channels: int) -> int:
        """The side of a token."""
        if not any(rotary_embedders(network)):
            raise NotPeriodicError(
                f"The method torus_rope needs a transformer with rotary positions (Flux, Qwen-Image, Z-Image, Wan), "
                f"but the model is a {type(network).__name__}; use the method auto."
            )
        return patch_size(network, channels)

    def summary(self, network: nn.Module, channels: int) -> str:
        """That positions repeat, and whether the grid of tokens moves."""
        list(wrapping_convolutions(network))
        positions = "rotary positions repeat with the picture (torus RoPE)"
        if self.unit(network, channels) % 2:
            return positions
        return f"{positions}, which runs of {FEWEST_STEPS} steps or more move by half a token from step to step"

    def around_run(self, executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE: decide for all calls alike whether the picture may move by parts of a token."""
        guider = executor.class_obj
        options = guider.model_options["transformer_options"]
        conds = (cond for group in guider.conds.values() for cond in group or ())
        if has_token_pictures(conds, options) or "easycache" in options:  # it compares what steps were given
            options[WHOLE_TOKENS] = True
        return super().around_run(executor, noise, *args, **kwargs)

    def step(self, executor: Any, axes: Axes, call: dict[str, Any]) -> Tensor:
        """The call inside `torus` and `circular`; reference latents have their own period."""
        network = executor.class_obj.diffusion_model
        unit = self.unit(network, call["x"].shape[1])
        pictures = [call["x"], *(call.get("ref_latents") or [])]
        sizes = [tokens((p.shape[-2], p.shape[-1]), unit) for p in pictures]
        shift = phase_at(call, axes, unit)
        with torus(network, axes, sizes), circular(network, axes):
            return run_rolled(executor, call, unit, shift, axes)


def has_token_pictures(conds: Iterable[dict[str, Any]], options: dict[str, Any]) -> bool:
    """Whether control networks, in whatever form, or reference pictures come along, which belong to whole tokens.

    Args:
        conds: all conditionings of a run, as a guider holds them.
        options: the run's transformer options.
    """
    every, patches = list(conds), options.get("patches", {})
    return (
        any(True for _ in controls(every))
        or any(cond.get("reference_latents") for cond in every)
        or any(patches.get(name) for name in CONTROL_PATCHES)
    )


def phase_at(call: dict[str, Any], axes: Axes, unit: int) -> Shift:
    """How far (down, right) in latents the picture moves in this call of APPLY_MODEL: nothing or half of `unit`."""
    options = call["transformer_options"]
    sigmas = options.get("sample_sigmas")
    if sigmas is None or len(sigmas) - 1 < FEWEST_STEPS or options.get(WHOLE_TOKENS):
        return 0, 0
    down, right = PHASES[step_index(sigmas, call["t"]) % len(PHASES)]
    return down * (unit // 2) * axes.vertical, right * (unit // 2) * axes.horizontal
