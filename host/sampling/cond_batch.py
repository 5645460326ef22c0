"""Predictions of all conditionings in as few calls of the model as possible.

Drop-in replacement for half of `comfy.samplers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..progress import throw_exception_if_processing_interrupted
from ..runtime.patcher_extension import WrappersMP, copy_nested_dicts, wrapped
from .conds import Area, Cond, CONDRegular

FEATHER = 8
"""Cells over which an area without a mask fades out at an edge inside the image."""


@dataclass(eq=False)
class Piece:
    """One conditioning at work: its cut of the latents and how much each cell of the prediction weighs."""

    prompt: int
    input_x: Tensor
    mult: Tensor
    conditioning: dict[str, CONDRegular]
    area: Area | None
    control: Any
    uuid: Any

    def batches_with(self, other: Piece) -> bool:
        """Return whether both fit in one call."""
        a, b = self.conditioning, other.conditioning
        same = self.input_x.shape == other.input_x.shape and a.keys() == b.keys()
        return same and self.control is other.control and all(a[name].can_concat(b[name]) for name in a)


def crop(x: Tensor, area: Area | None) -> Tensor:
    """Return the view of (..., H, W) in an area."""
    if area is None:
        return x
    h, w, top, left = area
    return x[..., top : top + h, left : left + w]


def feather(mult: Tensor, area: Area, height: int, width: int) -> None:
    """Fade the weights of an area (in place) towards its edges inside the image."""
    for dim, size, start, limit in ((2, area[0], area[2], height), (3, area[1], area[3], width)):
        ramp = min(FEATHER, mult.shape[dim] // 4)
        for t in range(ramp):
            if start != 0:
                mult.narrow(dim, t, 1).mul_((1.0 / ramp) * (t + 1))
            if start + size < limit:
                mult.narrow(dim, size - 1 - t, 1).mul_((1.0 / ramp) * (t + 1))


def piece_of(prompt: int, cond: Cond, x: Tensor, timestep: Tensor) -> Piece | None:
    """Return the conditioning at work on latents x (B, C, H, W), or None outside its times."""
    sigma = timestep[0]
    if sigma > cond.get("timestep_start", torch.inf) or sigma < cond.get("timestep_end", -torch.inf):
        return None
    height, width = x.shape[2:]
    area = cond.get("area")
    if area is not None:
        h, w, top, left = area
        area = (min(height - top, h), min(width - left, w), top, left)
    input_x = crop(x, area)
    if "mask" in cond:
        mask = crop(cond["mask"][: x.shape[0]], area) * cond.get("mask_strength", 1.0)
        mult = mask.unsqueeze(1).repeat(x.shape[0] // mask.shape[0], x.shape[1], 1, 1)
    else:
        mult = torch.ones_like(input_x)
    mult = mult * cond.get("strength", 1.0)
    if "mask" not in cond and area is not None:
        feather(mult, area, height, width)
    conditioning = {k: c.process_cond(batch_size=x.shape[0], area=area) for k, c in cond["model_conds"].items()}
    return Piece(prompt, input_x, mult, conditioning, area, cond.get("control"), cond["uuid"])


def calc_cond_batch(
    model: Any, conds: list[list[Cond] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    """Predict x0 for each prompt.

    Args:
        model: a `BaseModel` during a run.
        conds: conditionings of each prompt; None for a prompt that is not needed.
        x_in: latents (B, C, H, W).
        timestep: sigma of each sample (B,).

    Returns:
        One x0 (B, C, H, W) per prompt: the weighted mean of its conditionings, zeros where none acts.
    """
    options = model_options.get("transformer_options", {})
    return wrapped(WrappersMP.CALC_COND_BATCH, options, _calc_cond_batch)(model, conds, x_in, timestep, model_options)


def _calc_cond_batch(
    model: Any, conds: list[list[Cond] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> list[Tensor]:
    totals = [torch.zeros_like(x_in) for _ in conds]
    # Not zero: a cell without weight then stays zero instead of becoming 0 / 0.
    weights = [torch.full_like(x_in, 1e-37) for _ in conds]
    pieces = [piece_of(i, cond, x_in, timestep) for i, group in enumerate(conds) for cond in group or []]
    waiting = [piece for piece in pieces if piece is not None]
    model.current_patcher.prepare_state(timestep, model_options)
    while waiting:
        batch = [piece for piece in waiting if piece.batches_with(waiting[0])]
        waiting = [piece for piece in waiting if piece not in batch]
        # The last first: hooks know the order, negative before positive, by cond_or_uncond.
        batch.reverse()
        for piece, output in zip(batch, predict(model, batch, timestep, model_options), strict=True):
            crop(totals[piece.prompt], piece.area).add_(output * piece.mult)
            crop(weights[piece.prompt], piece.area).add_(piece.mult)
    return [total / weight for total, weight in zip(totals, weights, strict=True)]


def predict(model: Any, batch: list[Piece], timestep: Tensor, model_options: dict[str, Any]) -> tuple[Tensor, ...]:
    """Call the model once for several pieces and return x0 of each."""
    throw_exception_if_processing_interrupted()
    first, *others = [piece.conditioning for piece in batch]
    c: dict[str, Any] = {name: first[name].concat([other[name] for other in others]) for name in first}
    prompts = [piece.prompt for piece in batch]
    options = copy_nested_dicts(model_options.get("transformer_options", {}))
    options["cond_or_uncond"] = list(prompts)
    options["uuids"] = [piece.uuid for piece in batch]
    options["sigmas"] = timestep
    c["transformer_options"] = options
    input_x = torch.cat([piece.input_x for piece in batch])
    sigmas = torch.cat([timestep] * len(batch))
    if batch[0].control is not None:
        c["control"] = batch[0].control.get_control(input_x, sigmas, c, len(batch), options)
    if "model_function_wrapper" in model_options:
        arguments = {"input": input_x, "timestep": sigmas, "c": c, "cond_or_uncond": prompts}
        output = model_options["model_function_wrapper"](model.apply_model, arguments)
    else:
        output = model.apply_model(input_x, sigmas, **c)
    return output.chunk(len(batch))
