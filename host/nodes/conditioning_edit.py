"""ComfyUI's core nodes that combine conditionings, and bound them to areas and steps."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..sampling.conds import Conditioning, with_values
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, integer
from ..schema.limits import MAX_RESOLUTION

log = logging.getLogger(__name__)

PIXELS_PER_LATENT = 8
NODES = Nodes("model/conditioning/transform")


def _strength(name: str = "strength") -> io.Float.Input:
    return decimal(name, 1.0, 0.0, 10.0, tooltip="How much the conditioning weighs beside others.")


def _first(conditioning: Conditioning) -> list[Any]:
    if len(conditioning) > 1:
        log.warning("conditioning_from holds %d prompts, of which the first is used", len(conditioning))
    return conditioning[0]


@NODES(
    "ConditioningCombine",
    "Conditioning (Combine)",
    [io.Conditioning.Input("conditioning_1"), io.Conditioning.Input("conditioning_2")],
    [io.Conditioning],
    search_aliases=["combine", "merge conditioning", "combine prompts", "merge prompts", "mix prompts", "add prompt"],
)
def combine(conditioning_1: Conditioning, conditioning_2: Conditioning) -> Conditioning:
    """Let a model follow two prompts at once: it predicts with each, and the predictions are averaged."""
    return conditioning_1 + conditioning_2


@NODES(
    "ConditioningAverage",
    "Conditioning (Average)",
    [
        io.Conditioning.Input("conditioning_to"),
        io.Conditioning.Input("conditioning_from"),
        decimal("conditioning_to_strength", 1.0, 0.0, 1.0, tooltip="1 is the first prompt alone, 0 the second."),
    ],
    [io.Conditioning],
    search_aliases=["blend prompts", "interpolate conditioning", "mix prompts", "style fusion", "weighted blend"],
)
def average(
    conditioning_to: Conditioning, conditioning_from: Conditioning, conditioning_to_strength: float
) -> Conditioning:
    """Mix the embeddings of two prompts to one."""
    other, values_from = _first(conditioning_from)
    pooled_from = values_from.get("pooled_output")

    def mix(one: Tensor, two: Tensor) -> Tensor:
        return one * conditioning_to_strength + two * (1.0 - conditioning_to_strength)

    out: Conditioning = []
    for embedding, values in conditioning_to:
        length = embedding.shape[1]
        fitted = F.pad(other[:, :length], (0, 0, 0, max(0, length - other.shape[1])))
        pooled = values.get("pooled_output", pooled_from)
        more = (
            {}
            if pooled_from is None
            else {"pooled_output": pooled_from if pooled is None else mix(pooled, pooled_from)}
        )
        out.append([mix(embedding, fitted), {**values, **more}])
    return out


@NODES(
    "ConditioningConcat",
    "Conditioning (Concat)",
    [io.Conditioning.Input("conditioning_to"), io.Conditioning.Input("conditioning_from")],
    [io.Conditioning],
)
def concat(conditioning_to: Conditioning, conditioning_from: Conditioning) -> Conditioning:
    """Append the tokens of one prompt to another, past the length of one chunk."""
    tokens, _ = _first(conditioning_from)
    return [[torch.cat([embedding, tokens], 1), dict(values)] for embedding, values in conditioning_to]


@NODES(
    "ConditioningMultiply",
    "Conditioning (Multiply)",
    [io.Conditioning.Input("conditioning"), decimal("multiplier", 1.0, -100.0, 100.0)],
    [io.Conditioning],
    search_aliases=["scale conditioning", "scale prompt", "multiply conditioning", "multiply prompt"],
)
def multiply(conditioning: Conditioning, multiplier: float) -> Conditioning:
    """Scale the embedding of a prompt."""
    out: Conditioning = []
    for embedding, values in conditioning:
        pooled = values.get("pooled_output")
        more = {} if pooled is None else {"pooled_output": pooled * multiplier}
        out.append([embedding * multiplier, {**values, **more}])
    return out


@NODES(
    "ConditioningSetArea",
    "Conditioning (Set Area)",
    [
        io.Conditioning.Input("conditioning"),
        *(integer(side, 64, 64, MAX_RESOLUTION, 8, tooltip="In pixels.") for side in ("width", "height")),
        *(integer(side, 0, 0, MAX_RESOLUTION, 8, tooltip="In pixels.") for side in ("x", "y")),
        _strength(),
    ],
    [io.Conditioning],
    search_aliases=["regional prompt", "area prompt", "spatial conditioning", "localized prompt"],
)
def set_area(conditioning: Conditioning, width: int, height: int, x: int, y: int, strength: float) -> Conditioning:
    """Limit a prompt to a rectangle."""
    area = tuple(side // PIXELS_PER_LATENT for side in (height, width, y, x))
    return with_values(conditioning, area=area, strength=strength, set_area_to_bounds=False)


@NODES(
    "ConditioningSetAreaPercentage",
    "Conditioning (Set Area with Percentage)",
    [
        io.Conditioning.Input("conditioning"),
        *(decimal(side, 1.0, 0, 1.0, tooltip="Part of the image.") for side in ("width", "height")),
        *(decimal(side, 0, 0, 1.0, tooltip="Part of the image.") for side in ("x", "y")),
        _strength(),
    ],
    [io.Conditioning],
)
def set_area_percentage(
    conditioning: Conditioning, width: float, height: float, x: float, y: float, strength: float
) -> Conditioning:
    """Limit a prompt to a rectangle, given as parts of the image."""
    area = ("percentage", height, width, y, x)
    return with_values(conditioning, area=area, strength=strength, set_area_to_bounds=False)


@NODES(
    "ConditioningSetAreaStrength",
    "Conditioning (Set Area Strength)",
    [io.Conditioning.Input("conditioning"), _strength()],
    [io.Conditioning],
)
def set_area_strength(conditioning: Conditioning, strength: float) -> Conditioning:
    """Set how much a prompt weighs beside others."""
    return with_values(conditioning, strength=strength)


@NODES(
    "ConditioningSetMask",
    "Conditioning (Set Mask)",
    [
        io.Conditioning.Input("conditioning"),
        io.Mask.Input("mask", tooltip="White where the prompt acts."),
        _strength(),
        choice(
            "set_cond_area", ["default", "mask bounds"], tooltip="mask bounds lets the model see the masked part alone."
        ),
    ],
    [io.Conditioning],
    search_aliases=["masked prompt", "regional inpaint conditioning", "mask conditioning"],
)
def set_mask(conditioning: Conditioning, mask: Tensor, set_cond_area: str, strength: float) -> Conditioning:
    """Limit a prompt to where a mask is white."""
    mask = mask[None] if mask.ndim < 3 else mask
    return with_values(conditioning, mask=mask, set_area_to_bounds=set_cond_area != "default", mask_strength=strength)


@NODES(
    "ConditioningSetTimestepRange",
    "ConditioningSetTimestepRange",
    [
        io.Conditioning.Input("conditioning"),
        decimal("start", 0.0, 0.0, 1.0, 0.001, tooltip="Part of the schedule before the prompt acts."),
        decimal("end", 1.0, 0.0, 1.0, 0.001, tooltip="Part of the schedule after which it acts no more."),
    ],
    [io.Conditioning],
)
def set_timestep_range(conditioning: Conditioning, start: float, end: float) -> Conditioning:
    """Limit a prompt to a range of the steps."""
    return with_values(conditioning, start_percent=start, end_percent=end)


@NODES(
    "FluxDisableGuidance",
    "FluxDisableGuidance",
    [io.Conditioning.Input("conditioning")],
    [io.Conditioning],
    category="model/conditioning/flux",
)
def disable_guidance(conditioning: Conditioning) -> Conditioning:
    """Remove the guidance that distilled models take as an input."""
    return with_values(conditioning, guidance=None)


@NODES(
    "ReferenceLatent",
    "Set Reference Latent",
    [io.Conditioning.Input("conditioning"), io.Latent.Input("latent", optional=True, tooltip="The encoded image.")],
    [io.Conditioning],
    category="model/conditioning",
)
def reference_latent(conditioning: Conditioning, latent: dict[str, Any] | None = None) -> Conditioning:
    """Give an edit model a reference image; several nodes in a row give several."""
    if latent is None:
        return conditioning
    return with_values(conditioning, append=True, reference_latents=[latent["samples"]])


@NODES(
    "FluxKontextMultiReferenceLatentMethod",
    "Edit Model Reference Method",
    [
        io.Conditioning.Input("conditioning"),
        choice(
            "reference_latents_method",
            ["offset", "index", "uxo/uno", "index_timestep_zero"],
            advanced=True,
            tooltip="index places each behind the image, offset beside it, uxo/uno at its corner.",
        ),
    ],
    [io.Conditioning],
    category="model/conditioning/flux",
    is_experimental=True,
)
def reference_method(conditioning: Conditioning, reference_latents_method: str) -> Conditioning:
    """Choose where an edit model places the images that it is shown: beside the image, or behind it."""
    method = "uxo" if "uxo" in reference_latents_method else reference_latents_method
    return with_values(conditioning, reference_latents_method=method)
