"""A negative prompt for Flux, hooked into a MODEL's run: guidance inside attention, or a second prediction.

The negative text joins the sequence of tokens, not the batch: every linear layer still runs once over the picture, and
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

from .guidance import Sequence, cfg, joint_nag, soft_cfg

KEY = "tessera_flux_negative"
METHODS = ("nag", "cfg", "cfg_soft")
OVERRIDE = "optimized_attention_override"

Cond = dict[str, Any]
Conditioning = list[list[Any]]

_log = logging.getLogger(__name__)


class NotFluxError(ValueError):
    """The model is of an architecture whose attention cannot be guided."""


def flux_blocks(network: Any) -> int:
    """How many blocks a Flux transformer of ComfyUI or diffusers has.

    Raises:
        NotFluxError: it is another network.
    """
    if not {kind.__name__ for kind in type(network).__mro__} & {"Flux", "FluxTransformer2DModel"}:
        raise NotFluxError(
            f"Guidance in attention needs a Flux model, but this is a {type(network).__name__}; KSampler's own cfg and "
            "negative input do this for it, or choose the method cfg."
        )
    names = ("double_blocks", "single_blocks", "transformer_blocks", "single_transformer_blocks")
    return sum(len(getattr(network, name, ())) for name in names)


def check_text(network: Any, negative: Conditioning) -> None:
    """Raise ValueError when a text embedding is not of the width that a Flux transformer reads."""
    wanted = (getattr(network, "txt_in", None) or network.context_embedder).in_features
    for embedding, _ in negative:
        if embedding.shape[-1] != wanted:
            raise ValueError(
                f"The negative's text embedding has width {embedding.shape[-1]}, but this Flux model reads {wanted}; "
                "encode the negative with Flux's own text encoders (DualCLIPLoader, type flux)."
            )


def check_whole(negative: Conditioning) -> None:
    """Raise ValueError when a part of the negative covers only a part of the picture."""
    for _, values in negative:
        for name in ("area", "mask"):
            if values.get(name) is not None:
                raise ValueError(
                    f"The negative has the {name} of a part of the picture; link one that covers the whole picture."
                )


@dataclass
class Run:
    """What one run of a sampler knows: the negative's tokens while they are to be joined, and whether that works."""

    context: Tensor | None = None
    rewired: bool = False


@dataclass(frozen=True)
class FluxNegative:
    """The hooks of a negative prompt, for a host's wrappers.

    Args:
        negative: the conditioning to steer away from.
        strength: above 0; scales of guidance are 1 + strength.
        method: one of METHODS.
        start: fraction of the schedule (0..1) at which guidance begins.
        end: fraction of the schedule (0..1) at which it ends.
        convert: the host's `convert_cond`.
        predict: the host's `calc_cond_batch`.
    """

    negative: Conditioning
    strength: float
    method: str
    start: float
    end: float
    convert: Callable[[Conditioning], list[Cond]]
    predict: Callable[..., Any]

    def around_run(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE: let the host prepare the negative like its own conditionings."""
        guider = executor.class_obj
        guider.conds = {**guider.conds, KEY: self.convert(self.negative)}
        guider.model_options["transformer_options"][KEY] = Run()
        return executor(*args, **kwargs)

    def around_prediction(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: int | None = None
    ) -> Tensor:
        """PREDICT_NOISE: the guided prediction x0 (B, C, H, W) while sigma (B,) is within range."""
        guider = executor.class_obj
        run: Run = model_options["transformer_options"][KEY]
        conds = self.acting(guider.conds[KEY], timestep, guider.inner_model.model_sampling.percent_to_sigma)
        if not conds:
            return executor(x, timestep, model_options, seed)
        if self.method == "nag" and not run.rewired:
            run.context = torch.cat([cond["model_conds"]["c_crossattn"].cond for cond in conds], 1)
            try:
                guided = executor(x, timestep, model_options, seed)
            finally:
                run.context = None
            if not run.rewired:
                return guided
            _log.warning(
                "Flux Negative Prompt: another extension replaced blocks of this model, so attention cannot be guided; "
                "cfg_soft is used instead, which takes a second pass on each guided step."
            )
        positive = executor(x, timestep, model_options, seed)
        _, against = self.predict(guider.inner_model, [None, conds], x, timestep, model_options)
        combine = cfg if self.method == "cfg" else soft_cfg
        return combine(positive, against, self.strength)

    def acting(self, conds: list[Cond], timestep: Tensor, percent_to_sigma: Callable[[float], float]) -> list[Cond]:
        """The parts of the negative that act at this noise level; none outside of start and end."""
        sigma = float(timestep.max())
        if not percent_to_sigma(self.end) <= sigma <= percent_to_sigma(self.start):
            return []
        return [c for c in conds if c.get("timestep_end", 0.0) <= sigma <= c.get("timestep_start", float("inf"))]

    def around_transformer(
        self,
        executor: Any,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor | None,
        guidance: Tensor | None,
        ref_latents: list[Tensor] | None,
        control: Any,
        transformer_options: dict[str, Any],
        **kwargs: Any,
    ) -> Tensor:
        """DIFFUSION_MODEL: one call of Flux with the negative's tokens before the others, for positive rows alone."""

        def go_on(context: Tensor, options: dict[str, Any]) -> Tensor:
            return executor(x, timestep, context, y, guidance, ref_latents, control, options, **kwargs)

        run: Run = transformer_options[KEY]
        prompts = transformer_options["cond_or_uncond"]
        if run.context is None or 0 not in prompts:
            return go_on(context, transformer_options)
        each = len(x) // len(prompts)
        rows = [i for i in range(len(x)) if prompts[i // each] == 0]
        picked = None if len(rows) == len(x) else torch.tensor(rows, device=x.device)
        negative = run.context.to(context).expand(len(context), -1, -1)
        joined = JoinedAttention(negative.shape[1], self.strength, transformer_options.get(OVERRIDE), picked)
        output = go_on(torch.cat([negative, context], 1), joined.installed(transformer_options))
        run.rewired = joined.calls < flux_blocks(executor.class_obj)
        return output


class JoinedAttention:
    """The attention of one call of Flux whose text begins with a negative.

    Args:
        negative: its tokens.
        strength: of `nag`.
        previous: an attention override that is there already.
        rows: indices of the samples to guide, all by default.
    """

    def __init__(
        self, negative: int, strength: float, previous: Callable[..., Tensor] | None = None, rows: Tensor | None = None
    ) -> None:
        self.tokens = Sequence(negative, 0, 0)
        self.rows, self.strength, self.previous = rows, strength, previous
        self.calls = 0

    def installed(self, options: dict[str, Any]) -> dict[str, Any]:
        """`transformer_options` with these hooks."""
        patches = options.get("patches", {})
        after_input = [*patches.get("post_input", []), self.after_input]
        return {**options, "patches": {**patches, "post_input": after_input}, OVERRIDE: self.override}

    def after_input(self, values: dict[str, Any]) -> dict[str, Any]:
        """Count tokens, and let both texts begin at the same position, for models that count text positions."""
        first, ids = self.tokens.negative, values["txt_ids"]
        text = values["txt"].shape[1] - first
        self.tokens = Sequence(first, text, values["img"].shape[1])
        return {**values, "txt_ids": torch.cat([ids[:, :first], ids[:, :text]], 1)}

    def override(
        self, function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        """`optimized_attention_override`: joint attention is guided, any other is left alone."""
        mask = kwargs.pop("mask", None)

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            chained = (function,) if self.previous is None else (self.previous, function)
            return chained[0](*chained[1:], q, k, v, heads, *args, mask=mask, **kwargs)

        if q.ndim != 4 or q.shape[2] != self.tokens.length:
            return attend(q, k, v, mask)
        self.calls += 1
        return joint_nag(attend, q, k, v, mask, self.tokens, self.strength, self.rows)
