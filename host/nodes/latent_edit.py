"""ComfyUI's core nodes that change latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.latent_resize import resize_latents
from ..sampling.conds import repeat_to_batch_size
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, integer, switch
from ..schema.limits import MAX_RESOLUTION

Latent = dict[str, Any]
PIXELS_PER_LATENT = 8
SMALLEST_CROP = 8
"""Cells that a crop leaves at least of a side that it begins in."""

AXES = {"x": -1, "y": -2, "t": -3}
TURNS = ["none", "90 degrees", "180 degrees", "270 degrees"]
FLIPS = ["x-axis: vertically", "y-axis: horizontally"]
NODES = Nodes("model/latent/advanced")


def _pixels(name: str, default: int = 0, low: int = 0) -> io.Int.Input:
    return integer(name, default, low, MAX_RESOLUTION, 8, tooltip="In pixels.")


def _pair(first: str = "samples1", second: str = "samples2") -> list[io.Input]:
    return [io.Latent.Input(first), io.Latent.Input(second)]


def fitted(samples: Tensor, shape: torch.Size, repeat: bool = True) -> Tensor:
    """Return latents in the size of others, and in their number."""
    if samples.shape[1:] != shape[1:]:
        samples = resize_latents(samples, shape[-1], shape[-2], "bilinear", "center")
    return repeat_to_batch_size(samples, shape[0]) if repeat else samples


def places(latent: Latent) -> list[int]:
    """Return the place of each of the latents in the noise of a seed."""
    return latent.get("batch_index", list(range(latent["samples"].shape[0])))


@NODES(
    "LatentFromBatch",
    "Get Latent From Batch",
    [
        io.Latent.Input("samples"),
        integer("batch_index", 0, -MAX_RESOLUTION, MAX_RESOLUTION, tooltip="The first; below 0 from the end."),
        integer("length", 1, 1, 64, tooltip="How many."),
    ],
    [io.Latent],
    category="model/latent/batch",
    search_aliases=["select from batch", "pick latent", "batch subset"],
)
def from_batch(samples: Latent, batch_index: int, length: int) -> Latent:
    """Take some latents out of a batch; each keeps its place in the noise of a seed."""
    found = samples["samples"]
    count = found.shape[0]
    first = max(0, min(count - 1, batch_index + count if batch_index < 0 else batch_index))
    last = first + min(count - first, length)
    made = {**samples, "samples": found[first:last].clone(), "batch_index": places(samples)[first:last]}
    mask = samples.get("noise_mask")
    if mask is not None:
        one_for_all = mask.shape[0] == 1
        made["noise_mask"] = (mask if one_for_all else repeat_to_batch_size(mask, count)[first:last]).clone()
    return made


@NODES(
    "LatentComposite",
    "Latent Composite",
    [*_pair("samples_to", "samples_from"), _pixels("x"), _pixels("y"), _pixels("feather")],
    [io.Latent],
    category="model/latent",
    search_aliases=["overlay latent", "layer latent", "paste latent"],
)
def composite(samples_to: Latent, samples_from: Latent, x: int, y: int, feather: int) -> Latent:
    """Paste latents over others."""
    x, y, feather = (side // PIXELS_PER_LATENT for side in (x, y, feather))
    under = samples_to["samples"].clone()
    height, width = under.shape[2:]
    over = samples_from["samples"][:, :, : height - y, : width - x]
    weight = torch.ones_like(over)
    rows, columns = over.shape[2:]
    edges = [(2, y != 0, y + rows < height, rows), (3, x != 0, x + columns < width, columns)]
    for axis, fades_first, fades_last, length in edges:
        for cell in range(min(feather, length)):
            if fades_first:
                weight.narrow(axis, cell, 1).mul_((1.0 / feather) * (cell + 1))
            if fades_last:
                weight.narrow(axis, length - 1 - cell, 1).mul_((1.0 / feather) * (cell + 1))
    place = under[:, :, y : y + rows, x : x + columns]
    place.copy_(over * weight + place * (1 - weight) if feather else over)
    return {**samples_to, "samples": under}


@NODES(
    "LatentCompositeMasked",
    "Latent Composite Masked",
    [
        *_pair("destination", "source"),
        _pixels("x"),
        _pixels("y"),
        switch("resize_source", False, tooltip="Whether the source takes the size of the destination."),
        io.Mask.Input("mask", optional=True, tooltip="White where the source shows."),
    ],
    [io.Latent],
    category="model/latent",
    search_aliases=["overlay latent", "layer latent", "paste latent", "inpaint latent"],
)
def composite_masked(
    destination: Latent, source: Latent, x: int, y: int, resize_source: bool, mask: Tensor | None = None
) -> Latent:
    """Paste latents over others where a mask is white."""
    under, over = destination["samples"].clone(), source["samples"]
    height, width = under.shape[-2:]
    if resize_source:
        over = F.interpolate(over, size=(height, width), mode="bilinear")
    over = repeat_to_batch_size(over, under.shape[0])
    left, top = min(x // PIXELS_PER_LATENT, width), min(y // PIXELS_PER_LATENT, height)
    weight = torch.ones_like(over)
    if mask is not None:
        mask = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=over.shape[-2:], mode="bilinear")
        weight = repeat_to_batch_size(mask, over.shape[0])
    place = under[..., top : top + over.shape[-2], left : left + over.shape[-1]]
    over, weight = (each[..., : place.shape[-2], : place.shape[-1]] for each in (over, weight))
    place.copy_(over * weight + place * (1 - weight))
    return {**destination, "samples": under}


@NODES(
    "LatentBlend",
    "Latent Blend",
    [*_pair(), decimal("blend_factor", 0.5, 0, 1, tooltip="1 is the first alone.")],
    [io.Latent],
    category="experimental",
    search_aliases=["mix latents", "interpolate latents"],
)
def blend(samples1: Latent, samples2: Latent, blend_factor: float) -> Latent:
    """Mix two latents."""
    one, two = samples1["samples"], samples2["samples"]
    if one.shape != two.shape:
        two = resize_latents(two, one.shape[3], one.shape[2], "bicubic", "center")
    return {**samples1, "samples": one * blend_factor + two * (1 - blend_factor)}


@NODES(
    "LatentRotate",
    "Rotate Latent",
    [io.Latent.Input("samples"), choice("rotation", TURNS, tooltip="Clockwise.")],
    [io.Latent],
    category="model/latent/transform",
)
def rotate(samples: Latent, rotation: str) -> Latent:
    """Rotate latents."""
    return {**samples, "samples": torch.rot90(samples["samples"], k=TURNS.index(rotation), dims=[3, 2])}


@NODES(
    "LatentFlip",
    "Flip Latent",
    [io.Latent.Input("samples"), choice("flip_method", FLIPS, tooltip="About which axis.")],
    [io.Latent],
    category="model/latent/transform",
    search_aliases=["mirror latent"],
)
def flip(samples: Latent, flip_method: str) -> Latent:
    """Mirror latents."""
    return {**samples, "samples": torch.flip(samples["samples"], dims=[2 + FLIPS.index(flip_method)])}


@NODES(
    "LatentCrop",
    "Crop Latent",
    [io.Latent.Input("samples"), _pixels("width", 512, 64), _pixels("height", 512, 64), _pixels("x"), _pixels("y")],
    [io.Latent],
    category="model/latent/transform",
    search_aliases=["trim latent", "cut latent"],
)
def crop(samples: Latent, width: int, height: int, x: int, y: int) -> Latent:
    """Cut a rectangle out of latents."""
    found = samples["samples"]
    width, height, x, y = (side // PIXELS_PER_LATENT for side in (width, height, x, y))
    x, y = min(x, found.shape[3] - SMALLEST_CROP), min(y, found.shape[2] - SMALLEST_CROP)
    return {**samples, "samples": found[:, :, y : y + height, x : x + width]}


@NODES("LatentAdd", "LatentAdd", _pair(), [io.Latent], search_aliases=["combine latents", "sum latents"])
def add(samples1: Latent, samples2: Latent) -> Latent:
    """Add latents."""
    one = samples1["samples"]
    return {**samples1, "samples": one + fitted(samples2["samples"], one.shape)}


@NODES(
    "LatentSubtract", "LatentSubtract", _pair(), [io.Latent], search_aliases=["difference latent", "remove features"]
)
def subtract(samples1: Latent, samples2: Latent) -> Latent:
    """Subtract latents."""
    one = samples1["samples"]
    return {**samples1, "samples": one - fitted(samples2["samples"], one.shape)}


@NODES(
    "LatentMultiply",
    "LatentMultiply",
    [io.Latent.Input("samples"), decimal("multiplier", 1.0, -10.0, 10.0)],
    [io.Latent],
    search_aliases=["scale latent", "amplify latent", "latent gain"],
)
def multiply(samples: Latent, multiplier: float) -> Latent:
    """Scale latents."""
    return {**samples, "samples": samples["samples"] * multiplier}


@NODES(
    "LatentInterpolate",
    "LatentInterpolate",
    [*_pair(), decimal("ratio", 1.0, 0.0, 1.0, tooltip="1 is the first alone.")],
    [io.Latent],
    search_aliases=["blend latent", "mix latent", "lerp latent", "transition"],
)
def interpolate(samples1: Latent, samples2: Latent, ratio: float) -> Latent:
    """Mix directions and lengths of latents apart, so that the mixture is not paler than its parts."""
    one = samples1["samples"]
    pair = one, fitted(samples2["samples"], one.shape)
    # The lengths are divided along the batch, not along the channels, as ComfyUI has it for one image.
    lengths = [torch.linalg.vector_norm(each, dim=1) for each in pair]
    units = [torch.nan_to_num(each / length) for each, length in zip(pair, lengths, strict=True)]
    mixed = units[0] * ratio + units[1] * (1.0 - ratio)
    unit = torch.nan_to_num(mixed / torch.linalg.vector_norm(mixed, dim=1))
    return {**samples1, "samples": unit * (lengths[0] * ratio + lengths[1] * (1.0 - ratio))}


@NODES(
    "LatentConcat",
    "LatentConcat",
    [*_pair(), choice("dim", ["x", "-x", "y", "-y", "t", "-t"], tooltip="Where the second goes; - puts it first.")],
    [io.Latent],
    search_aliases=["join latents", "stitch latents"],
)
def concat(samples1: Latent, samples2: Latent, dim: str) -> Latent:
    """Put latents side by side."""
    one = samples1["samples"]
    pair = one, repeat_to_batch_size(samples2["samples"], one.shape[0])
    return {**samples1, "samples": torch.cat(pair[::-1] if "-" in dim else pair, AXES[dim[-1]])}


@NODES(
    "LatentCut",
    "LatentCut",
    [
        io.Latent.Input("samples"),
        choice("dim", ["x", "y", "t"]),
        integer("index", 0, -MAX_RESOLUTION, MAX_RESOLUTION, tooltip="The first cell; below 0 from the end."),
        integer("amount", 1, 1, MAX_RESOLUTION, tooltip="How many cells."),
    ],
    [io.Latent],
    search_aliases=["crop latent", "slice latent", "extract region"],
)
def cut(samples: Latent, dim: str, index: int, amount: int) -> Latent:
    """Cut a strip out of latents."""
    found = samples["samples"]
    length = found.shape[AXES[dim]]
    index = min(index, length - 1) if index >= 0 else max(index, -length)
    amount = min(length - index if index >= 0 else -index, amount)
    return {**samples, "samples": torch.narrow(found, AXES[dim], index, amount)}


@NODES(
    "LatentCutToBatch",
    "LatentCutToBatch",
    [
        io.Latent.Input("samples"),
        choice("dim", ["t", "x", "y"]),
        integer("slice_size", 1, 1, MAX_RESOLUTION, tooltip="Cells in a strip."),
    ],
    [io.Latent],
    search_aliases=["slice to batch", "split latent", "tile latent"],
)
def cut_to_batch(samples: Latent, dim: str, slice_size: int) -> Latent:
    """Cut latents into strips, and make a batch of them; what is left over is dropped."""
    found = samples["samples"]
    axis = found.ndim + AXES[dim]
    if axis < 2:
        return samples
    moved = found.movedim(axis, 1)
    size = min(slice_size, moved.shape[1])
    moved = moved[:, : moved.shape[1] // size * size]
    return {**samples, "samples": moved.reshape(-1, size, *moved.shape[2:]).movedim(1, axis)}


@NODES(
    "LatentBatch",
    "Batch Latents (DEPRECATED)",
    _pair(),
    [io.Latent],
    category="model/latent/batch",
    is_deprecated=True,
    search_aliases=["combine latents", "merge latents", "join latents"],
)
def batch(samples1: Latent, samples2: Latent) -> Latent:
    """Join latents to a batch; the second take the size of the first."""
    return batched([samples1, samples2])


def batched(latents: list[Latent]) -> Latent:
    """Return latents as one batch, in the size of the first."""
    shape = latents[0]["samples"].shape
    samples = torch.cat([fitted(each["samples"], shape, repeat=False) for each in latents])
    return {**latents[0], "samples": samples, "batch_index": [place for each in latents for place in places(each)]}


@NODES(
    "LatentBatchSeedBehavior",
    "LatentBatchSeedBehavior",
    [
        io.Latent.Input("samples"),
        choice("seed_behavior", ["random", "fixed"], default="fixed", tooltip="fixed gives all the same noise."),
    ],
    [io.Latent],
)
def seed_behavior(samples: Latent, seed_behavior: str) -> Latent:
    """Choose whether the latents of a batch start from different noise."""
    made = {name: value for name, value in samples.items() if name != "batch_index"}
    if seed_behavior == "fixed":
        made["batch_index"] = [samples.get("batch_index", [0])[0]] * samples["samples"].shape[0]
    return made


@NODES(
    "EmptyFlux2LatentImage",
    "Empty Flux 2 Latent",
    [
        integer("width", 1024, 16, MAX_RESOLUTION, 16),
        integer("height", 1024, 16, MAX_RESOLUTION, 16),
        integer("batch_size", 1, 1, 4096),
    ],
    [io.Latent],
    category="model/latent/flux",
)
def empty_flux2(width: int, height: int, batch_size: int = 1) -> Latent:
    """Make empty latents of 128 channels."""
    return {"samples": torch.zeros(batch_size, 128, height // 16, width // 16)}


@NODES(
    "BatchLatentsNode",
    "Batch Latents",
    [
        io.Autogrow.Input(
            "latents",
            io.Autogrow.TemplatePrefix(io.Latent.Input("latent"), prefix="latent", min=1, max=50),
            tooltip="The latents; linking the last adds another.",
        )
    ],
    [io.Latent],
    category="model/latent/batch",
    search_aliases=["combine latents", "stack latents", "merge latents"],
)
def batch_many(latents: dict[str, Latent]) -> Latent:
    """Join latents to a batch, in the size of the first."""
    return batched(list(latents.values()))
