"""Conditionings made ready for a run.

Drop-in replacement for `comfy.conds` and the preparing half of `comfy.samplers`.

A CONDITIONING is a list of `[text embedding, values]`. A run works on one dictionary per entry: the values, with the
embedding as `cross_attn`, the model's arguments as `model_conds`, areas in latent cells and times in sigmas.
"""

from __future__ import annotations

import math
import uuid
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Cond = dict[str, Any]
Conditioning = list[list[Any]]
Area = tuple[int, int, int, int]  # height, width, top, left in latent cells
Self = TypeVar("Self", bound="CONDRegular")

MIN_AREA = 8
"""The shortest side of an area that is taken from a mask's bounds."""

MAX_TEXT_REPEATS = 4
"""Longer repetitions of a text, made to batch two texts of different length, cost more than two calls."""


def repeat_to_batch_size(tensor: Tensor, batch_size: int) -> Tensor:
    """Return the tensor repeated or cut along its first dimension to `batch_size`."""
    if tensor.shape[0] < batch_size:
        repeats = math.ceil(batch_size / tensor.shape[0])
        tensor = tensor.repeat(repeats, *[1] * (tensor.ndim - 1))
    return tensor[:batch_size]


class CONDRegular:
    """A tensor (B or 1, ...) that batches with others of its shape."""

    def __init__(self, cond: Any) -> None:
        self.cond = cond

    def process_cond(self: Self, batch_size: int, **kwargs: Any) -> Self:
        """Return the conditioning for a batch of latents."""
        return self.__class__(repeat_to_batch_size(self.cond, batch_size))

    def can_concat(self, other: CONDRegular) -> bool:
        """Return whether both fit in one batch."""
        return self.cond.shape == other.cond.shape

    def concat(self, others: list[CONDRegular]) -> Any:
        """Return the batch of this and the others."""
        return torch.cat([self.cond, *(other.cond for other in others)])


class CONDNoiseShape(CONDRegular):
    """Something in the shape of the latents (B, C', H, W), of which an area sees its own part."""

    def process_cond(self: Self, batch_size: int, area: Area | None = None, **kwargs: Any) -> Self:
        """Return the conditioning for a batch of latents."""
        data = self.cond
        if area is not None:
            height, width, top, left = area
            data = data[..., top : top + height, left : left + width]
        return self.__class__(repeat_to_batch_size(data, batch_size))


class CONDList(CONDRegular):
    """Tensors (B or 1, ...) of shapes of their own."""

    def process_cond(self: Self, batch_size: int, **kwargs: Any) -> Self:
        """Return the conditioning for a batch of latents."""
        return self.__class__([repeat_to_batch_size(each, batch_size) for each in self.cond])

    def can_concat(self, other: CONDRegular) -> bool:
        """Return whether both fit in one batch."""
        return [each.shape for each in self.cond] == [each.shape for each in other.cond]

    def concat(self, others: list[CONDRegular]) -> Any:
        """Return the batch of this and the others."""
        return [torch.cat(parts) for parts in zip(self.cond, *(other.cond for other in others), strict=True)]


class CONDConstant(CONDRegular):
    """A value that all of a batch share."""

    def process_cond(self: Self, batch_size: int, **kwargs: Any) -> Self:
        """Return the conditioning for a batch of latents."""
        return self.__class__(self.cond)

    def can_concat(self, other: CONDRegular) -> bool:
        """Return whether both fit in one batch."""
        return self.cond == other.cond

    def concat(self, others: list[CONDRegular]) -> Any:
        """Return the value."""
        return self.cond


class CONDCrossAttn(CONDRegular):
    """A text (B, L, D). Texts of different length are repeated to one length, which does not change attention."""

    def can_concat(self, other: CONDRegular) -> bool:
        """Return whether both fit in one batch."""
        a, b = self.cond.shape, other.cond.shape
        if a == b:
            return True
        repeats = math.lcm(a[1], b[1]) // min(a[1], b[1])
        return a[0] == b[0] and a[2] == b[2] and repeats <= MAX_TEXT_REPEATS

    def concat(self, others: list[CONDRegular]) -> Tensor:
        """Return the batch of this and the others."""
        texts = [self.cond, *(other.cond for other in others)]
        length = math.lcm(*(text.shape[1] for text in texts))
        return torch.cat([text.repeat(1, length // text.shape[1], 1) for text in texts])


def with_values(conditioning: Conditioning, append: bool = False, **values: Any) -> Conditioning:
    """Return a CONDITIONING with more values; `append` adds them to the lists that are there already."""

    def combined(old: dict[str, Any]) -> dict[str, Any]:
        return {name: old[name] + new if append and old.get(name) is not None else new for name, new in values.items()}

    return [[embedding, {**old, **combined(old)}] for embedding, old in conditioning]


def convert_cond(conditioning: Conditioning) -> list[Cond]:
    """Return a CONDITIONING as dictionaries; `uuid` names each one through the run."""
    out = []
    for embedding, values in conditioning:
        cond = {**values, "model_conds": dict(values.get("model_conds", {})), "uuid": uuid.uuid4()}
        if embedding is not None:
            cond["cross_attn"] = embedding
        out.append(cond)
    return out


def mask_bounds(mask: Tensor) -> Area:
    """Return the smallest area of at least 8 cells a side around a mask (B, H, W); of an empty mask the corner."""
    rows, columns = torch.where(mask.abs().amax(dim=0) != 0)
    if len(rows) == 0:
        return MIN_AREA, MIN_AREA, 0, 0
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    return max(MIN_AREA, height), max(MIN_AREA, width), top, left


def resolve_area_and_mask(cond: Cond, height: int, width: int, device: torch.device) -> Cond:
    """Return the conditioning with its area in latent cells and its mask resized to (B, height, width) cells.

    Raises:
        ValueError: the area begins outside of the image.
    """
    cond = dict(cond)
    if "area" in cond and cond["area"][0] == "percentage":
        h, w, y, x = cond["area"][1:]
        size = max(1, round(h * height)), max(1, round(w * width))
        cond["area"] = (*size, round(y * height), round(x * width))
    if "area" in cond:
        _check_area(cond["area"], height, width)
    if "mask" in cond:
        mask = cond["mask"].to(device)
        mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
        if mask.shape[1:] != (height, width):
            mask = F.interpolate(mask.unsqueeze(1), size=(height, width), mode="bilinear").squeeze(1)
        cond["mask"] = mask
        if cond.get("set_area_to_bounds", False):
            cond["area"] = mask_bounds(mask)
    return cond


def _check_area(area: Area, height: int, width: int) -> None:
    top, left = area[2:]
    if top >= height or left >= width:
        parts = f"{left / width:.0%} of the width and {top / height:.0%} of the height"
        raise ValueError(
            f"the area of a prompt begins at {parts} of the image; expected less than 100%, move it inside"
        )


def resolve_times(cond: Cond, model_sampling: Any) -> Cond:
    """Return the conditioning with its range in percent as the sigmas `timestep_start` and `timestep_end`."""
    percents = {"timestep_start": "start_percent", "timestep_end": "end_percent"}
    sigmas = {t: model_sampling.percent_to_sigma(cond[p]) for t, p in percents.items() if p in cond}
    return {**cond, **sigmas}


def encode_model_conds(model: Any, cond: Cond, noise: Tensor, device: Any, prompt_type: str, **run: Any) -> Cond:
    """Return the conditioning with the model's arguments for it, `model.extra_conds(...)`, in `model_conds`."""
    pixels = model.latent_format.spacial_downscale_ratio
    defaults = {
        "width": noise.shape[3] * pixels,
        "height": noise.shape[2] * pixels,
        "prompt_type": prompt_type,
        **run,
    }
    arguments = {**defaults, **cond, "device": device, "noise": noise}
    return {**cond, "model_conds": {**cond["model_conds"], **model.extra_conds(**arguments)}}


def _contains(outer: Area, inner: Area) -> bool:
    h, w, y, x = inner
    oh, ow, oy, ox = outer
    return y >= oy and x >= ox and y + h <= oy + oh and x + w <= ox + ow


def add_cond_for_area(conds: list[Cond], other: Cond) -> None:
    """Give an area of the opposite prompt a partner: the smallest conditioning that contains it, cut to it.

    Positive and negative of one area can then run in one batch.
    """
    if "area" not in other:
        return
    containing = [c for c in conds if "area" not in c or _contains(c["area"], other["area"])]
    if not containing:
        return
    smallest = min(containing, key=lambda c: math.prod(c["area"][:2]) if "area" in c else math.inf)
    if smallest.get("area") != other["area"]:
        conds.append({**other, "model_conds": dict(smallest["model_conds"])})


def share_controls(positive: list[Cond], others: list[Cond]) -> None:
    """Let control networks that say so act in the other prompt, too, unless it has one of its own."""
    asking = [c for c in positive if c.get("control_apply_to_uncond") and "area" not in c and c.get("control")]
    places = [place for place, cond in enumerate(others) if "area" not in cond]
    if any(others[place].get("control") for place in places) or not places:
        return
    # Of several that meet in one place the last one stays, as in ComfyUI.
    for number, cond in enumerate(asking):
        place = places[number % len(places)]
        others[place] = {**others[place], "control": cond["control"]}


def attached_controls(conds: dict[str, list[Cond]]) -> list[Any]:
    """Return the `ControlNet`s of a run's conditionings, each once and without those before it in its chain."""
    found = (cond.get("control") for group in conds.values() for cond in group)
    return list({id(control): control for control in found if control is not None}.values())


def process_conds(
    model: Any, noise: Tensor, conds: dict[str, list[Cond]], device: Any, **run: Any
) -> dict[str, list[Cond]]:
    """Make the conditionings of a run ready.

    Args:
        model: a `BaseModel`.
        noise: latents of the run (B, C, H, W).
        conds: prompt type ("positive", "negative", ...) -> conditionings from `convert_cond`.
        run: more values for `extra_conds` (`latent_image`, `denoise_mask`, `seed`).
    """

    def prepared(cond: Cond, kind: str) -> Cond:
        cond = resolve_area_and_mask(cond, noise.shape[2], noise.shape[3], device)
        cond = resolve_times(cond, model.model_sampling)
        return encode_model_conds(model, cond, noise, device, kind, **run)

    out = {kind: [prepared(cond, kind) for cond in group] for kind, group in conds.items()}
    for control in attached_controls(out):
        control.pre_run(model)
    for kind, group in out.items():
        for cond in group:
            for other_kind in out:
                if other_kind != kind:
                    add_cond_for_area(out[other_kind], cond)
    for kind, group in out.items():
        if kind != "positive":
            share_controls(out.get("positive", []), group)
    return out
