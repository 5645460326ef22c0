"""A negative prompt for Flux, hooked into a MODEL's run: guidance inside attention, or a second prediction.

The negative text joins the sequence of tokens, not the batch: every linear layer still runs once over the image, and
attention is computed twice. Guidance is limited to an interval of the schedule here and not by limiting the negative's
own times: where a negative does not act, hosts take its prediction for zero.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..patching.attention import Attend, JointAttentionPatch
from ..patching.calls import Call, FluxCall, NoisePrediction, Options, SamplingRun
from ..patching.networks import Network
from ..patching.schedule import ScheduleRange
from ..patching.wrappers import Hook
from .formulas import Sequence, cfg, joint_nag, soft_cfg

KEY = "tessera_flux_negative"
IN_ATTENTION = ("nag_strong", "nag")
METHODS = (*IN_ATTENTION, "cfg", "cfg_soft")
DOUBLED = 5.0
"""Strength at which nag_strong has twice the strength of nag. Chosen so that, over the whole schedule, 4 halves a named
colour in most images and 10 removes it; the card of texture-flux has what is left."""

Cond = dict[str, Any]
Conditioning = list[list[Any]]

_log = logging.getLogger(__name__)


class NotFluxError(ValueError):
    """The model has an architecture whose attention cannot be guided."""


def check_flux(network: Network) -> None:
    """Raise NotFluxError when a network is not a Flux transformer of ComfyUI or diffusers."""
    if not network.is_flux:
        raise NotFluxError(
            f"Guidance in attention needs a Flux model, but this is a {network.name}; KSampler's own cfg and "
            "negative input do this for it, or choose the method cfg."
        )


def check_text(network: Network, negative: Conditioning) -> None:
    """Raise ValueError when a text embedding is not of the width that a Flux transformer reads."""
    for embedding, _ in negative:
        if embedding.shape[-1] != network.text_width:
            raise ValueError(
                f"The negative's text embedding has width {embedding.shape[-1]}, but this Flux model reads "
                f"{network.text_width}; encode the negative with Flux's own text encoders (DualCLIPLoader, type flux)."
            )


def check_whole(negative: Conditioning) -> None:
    """Raise ValueError when a part of the negative covers only a part of the image."""
    for _, values in negative:
        for name in ("area", "mask"):
            if values.get(name) is not None:
                raise ValueError(
                    f"The negative has the {name} of a part of the image; link one that covers the whole image."
                )


def of_nag(strength: float, method: str) -> float:
    """Return the strength of `nag` in a method of IN_ATTENTION.

    >>> [round(of_nag(strength, "nag_strong"), 2) for strength in (1.0, 4.0, 10.0)]
    [1.04, 6.56, 50.0]
    """
    return strength * (1 + (strength / DOUBLED) ** 2) if method == "nag_strong" else strength


def per_sample(text: Tensor, count: int) -> Tensor:
    """Return texts (B, N, D) for so many samples (count, N, D): again from the first, as hosts repeat conditionings."""
    if len(text) == 1:
        return text.expand(count, -1, -1)
    return text.repeat(-(-count // len(text)), 1, 1)[:count]


@dataclass
class RunState:
    """What one run of a sampler knows: the negative's tokens while they are to be joined, and whether that works."""

    context: Tensor | None = None
    rewired: bool = False


@dataclass(frozen=True)
class FluxNegative:
    """The hooks of a negative prompt.

    Attributes:
        negative: the conditioning to steer away from.
        strength: above 0; see `of_nag` for what nag_strong makes of it; scales of guidance are one more.
        method: one of METHODS.
        schedule: the part of it in which guidance acts.
        convert: the host's `convert_cond`.
        calculate: the host's `calc_cond_batch`.
    """

    negative: Conditioning
    strength: float
    method: str
    schedule: ScheduleRange
    convert: Callable[[Conditioning], list[Cond]]
    calculate: Callable[..., Any]

    @property
    def hooks(self) -> dict[type[Call], Hook]:
        """By the kind of call that they surround."""
        always: dict[type[Call], Hook] = {SamplingRun: self.around_run, NoisePrediction: self.around_prediction}
        return {**always, FluxCall: self.around_transformer} if self.method in IN_ATTENTION else always

    def around_run(self, run: SamplingRun) -> Tensor:
        """Let the host prepare the negative like its own conditionings."""
        run.add_conditioning(KEY, self.convert(self.negative))
        run.options[KEY] = RunState()
        self.schedule.prepare(run, "Flux Negative Prompt", "the negative prompt does not act")
        return run.proceed()

    def around_prediction(self, call: NoisePrediction) -> Tensor:
        """Guide the prediction x0 (B, C, H, W) while sigma is within range."""
        state: RunState = call.options[KEY]
        conds = self.acting(call)
        if not conds:
            return call.proceed()
        if self.method in IN_ATTENTION and not state.rewired:
            state.context = torch.cat([cond["model_conds"]["c_crossattn"].cond for cond in conds], 1)
            try:
                guided = call.proceed()
            finally:
                state.context = None
            if not state.rewired:
                return guided
            _log.warning(
                "Flux Negative Prompt: another extension replaced blocks of this model, so attention cannot be guided; "
                "cfg_soft is used instead, which takes a second pass on each guided step."
            )
        positive = call.proceed()
        against = call.predict(conds, self.calculate)
        combine = cfg if self.method == "cfg" else soft_cfg
        return combine(positive, against, self.strength)

    def acting(self, call: NoisePrediction) -> list[Cond]:
        """Return the parts of the negative that act at this noise level; none outside of the range."""
        if not self.schedule.acts(call):
            return []
        conds = call.conditioning(KEY)
        if not any("timestep_start" in cond or "timestep_end" in cond for cond in conds):
            return conds
        sigma = call.level
        return [c for c in conds if c.get("timestep_end", 0.0) <= sigma <= c.get("timestep_start", float("inf"))]

    def around_transformer(self, call: FluxCall) -> Tensor:
        """Put the negative's tokens before the others, for positive rows alone."""
        state: RunState = call.options[KEY]
        rows = [] if state.context is None else call.rows_of(0)
        if state.context is None or not rows:
            return call.proceed()
        context = call.context
        picked = None if len(rows) == len(context) else rows
        negative = per_sample(state.context.to(context), len(context))
        strength = of_nag(self.strength, self.method)
        joined = JoinedAttention(call.options, negative.shape[1], strength, picked)
        options = joined.installed(call.options)
        output = call.proceed_with(options, context=torch.cat([negative, context], 1))
        state.rewired = joined.calls < call.network.flux_blocks
        return output


class JoinedAttention(JointAttentionPatch):
    """The attention of one call of Flux whose text begins with a negative.

    Args:
        options: the call's transformer options.
        negative: its tokens.
        strength: of `nag`.
        rows: numbers of the samples to guide, which ascend; all by default.
    """

    def __init__(self, options: Options, negative: int, strength: float, rows: list[int] | None = None) -> None:
        super().__init__(options)
        self.negative, self.strength, self.rows = negative, strength, rows

    def text_positions(self, ids: Tensor) -> Tensor:
        """Let both texts begin at the same position, for models that count text positions."""
        return torch.cat([ids[:, : self.negative], ids[:, : ids.shape[1] - self.negative]], 1)

    def change(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Guide joint attention."""
        tokens = Sequence(self.negative, self.tokens.text - self.negative, self.tokens.image)
        return joint_nag(attend, q, k, v, mask, tokens, self.strength, self.rows)
