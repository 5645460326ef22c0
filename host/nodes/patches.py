"""ComfyUI's core nodes that put hooks into a model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..models.attention_hooks import optimized_attention
from ..models.token_merging import Merge, token_merging
from ..models.unet_features import (
    BLUR_SIDE,
    blurred_where_attended,
    received_attention,
    scaled_low_frequencies,
    weighed_backbone,
)
from ..runtime.patcher import ModelPatcher
from ..sampling.cond_batch import calc_cond_batch
from ..schema import io
from ..schema.declare import Nodes, decimal

NEGATIVE = 1
"""The negative prompt among those of a batch."""


class TomePatchModel(io.ComfyNode):
    """ComfyUI's TomePatchModel. ComfyUI draws the tokens that stay at random; here the same ones stay in every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TomePatchModel",
            display_name="TomePatchModel",
            category="model/patch/unet",
            description="Merges tokens that are alike in the largest self-attentions, to save time.",
            inputs=[
                io.Model.Input("model", tooltip="A UNet model; it is not changed."),
                io.Float.Input(
                    "ratio",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The part of the tokens that is merged; more is faster and coarser.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The faster model.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, ratio: float) -> io.NodeOutput:
        """Hook a clone."""
        patched, pending = model.clone(), list[Merge]()

        def merge(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            height, width = extra["original_shape"][-2:]
            pending.clear()
            if q.shape[1] < height * width or min(height, width) < 2:
                return q, k, v
            fold, unfold = token_merging(q, height, width, ratio)
            pending.append(unfold)
            return fold(q), k, v

        def unmerge(out: Tensor, extra: dict[str, Any]) -> Tensor:
            return pending.pop()(out) if pending else out

        patched.set_model_attn1_patch(merge)
        patched.set_model_attn1_output_patch(unmerge)
        return io.NodeOutput(patched)


MORE = Nodes("model/patch/unet")


FACTORS = {
    "b1": "Of what comes from below, in the deepest blocks.",
    "b2": "Of what comes from below, in the blocks above.",
    "s1": "Of low frequencies over skip connections, in the deepest blocks.",
    "s2": "Of low frequencies over skip connections, in the blocks above.",
}


def _factors(*defaults: float) -> list[io.Input]:
    given = zip(FACTORS.items(), defaults, strict=True)
    parts = [decimal(name, value, 0.0, 10.0, advanced=True, tooltip=tip) for (name, tip), value in given]
    return [io.Model.Input("model", tooltip="A UNet model; it is not changed."), *parts]


@MORE("FreeU", "FreeU", _factors(1.1, 1.2, 0.9, 0.2), [io.Model])
def free_u(model: ModelPatcher, b1: float, b2: float, s1: float, s2: float) -> ModelPatcher:
    """Weigh what a UNet's blocks get from below and over skip connections (Si et al. 2023, arXiv:2309.11497)."""
    return _weighed(model, ((b1, s1), (b2, s2)), by_mean=False)


@MORE("FreeU_V2", "FreeU_V2", _factors(1.3, 1.4, 0.9, 0.2), [io.Model])
def free_u_2(model: ModelPatcher, b1: float, b2: float, s1: float, s2: float) -> ModelPatcher:
    """Weigh what a UNet's blocks get from below, most where it is high, and over skip connections (FreeU)."""
    return _weighed(model, ((b1, s1), (b2, s2)), by_mean=True)


def _weighed(model: ModelPatcher, scales: tuple[tuple[float, float], ...], by_mean: bool) -> ModelPatcher:
    width = model.model.model_config.unet_config["block_out_channels"][0]
    by_channels = {4 * width: scales[0], 2 * width: scales[1]}

    def change(hidden: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if hidden.shape[1] not in by_channels:
            return hidden, skip
        backbone, low = by_channels[hidden.shape[1]]
        return weighed_backbone(hidden, backbone, by_mean), scaled_low_frequencies(skip, low)

    patched = model.clone()
    patched.set_model_output_block_patch(change)
    return patched


@MORE(
    "SelfAttentionGuidance",
    "Self-Attention Guidance",
    [
        io.Model.Input("model", tooltip="A UNet model; it is not changed."),
        decimal("scale", 0.5, -2.0, 5.0, tooltip="0 is off."),
        decimal("blur_sigma", 2.0, 0.0, 10.0, 0.1, advanced=True, tooltip="How strongly parts are blurred, in cells."),
    ],
    [io.Model],
    "experimental",
    is_experimental=True,
)
def self_attention_guidance(model: ModelPatcher, scale: float, blur_sigma: float) -> ModelPatcher:
    """Guide away from images whose most attended parts are blurred (Hong et al. 2023, arXiv:2210.00939)."""
    seen: list[Tensor] = []

    def record(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any], mask: Tensor | None = None) -> Tensor:
        prompts = extra["cond_or_uncond"]
        if NEGATIVE in prompts:
            seen[:] = [received_attention(q, k, extra["n_heads"]).chunk(len(prompts))[prompts.index(NEGATIVE)]]
        return optimized_attention(q, k, v, extra["n_heads"])

    def guide(args: dict[str, Any]) -> Tensor:
        guided, negative, x = args["denoised"], args["uncond_denoised"], args["input"]
        if min(guided.shape[2:]) <= BLUR_SIDE // 2 or not seen:
            return guided
        worse = blurred_where_attended(negative, seen[0], blur_sigma)
        noised = worse + x - negative
        (found,) = calc_cond_batch(args["model"], [args["uncond"]], noised, args["sigma"], args["model_options"])
        return guided + (worse - found) * scale

    patched = model.clone()
    patched.set_model_sampler_post_cfg_function(guide, disable_cfg1_optimization=True)
    patched.set_model_attn1_replace(record, "middle", 0, 0)
    return patched


NODES: list[type[io.ComfyNode]] = [TomePatchModel, *MORE]
