"""Adapters whose image tokens, keys and values change with the noise level, as InstantX's for Stable Diffusion 3.5.

Nothing can be computed before the first step here, so the adapter's weights are on the device while sampling. Once a
call of the model the resampler makes the tokens of all images at its timestep; each block makes keys and values of
them. As diffusers' `IPAdapterTimeImageProjection` and `SD3IPAdapterJointAttnProcessor2_0`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..patching.residents import Manage, on_device
from .attend import take
from .formats import Adapter, Weights
from .joint import JointImages
from .projectors import linear, norm, perceive, widen

EPS = 1e-6
"""Of the norms in blocks."""

PERIOD = 10000
"""Longest period of the timestep's embedding."""


class TimedAdapter(nn.Module):
    """The weights of an adapter as parameters of a module, so that a host can move and count them.

    Args:
        adapter: the adapter.
        dtype: in which the model computes.
    """

    def __init__(self, adapter: Adapter, dtype: torch.dtype) -> None:
        super().__init__()
        self.name, self.dtype = adapter.name, dtype
        weights = {**adapter.image_proj, **adapter.norms}
        for number, pair in adapter.layers.items():
            weights |= {f"{number}.to_{part}_ip.weight": tensor for part, tensor in zip("kv", pair, strict=True)}
        self.names = list(weights)
        made = (nn.Parameter(tensor.to(dtype), requires_grad=False) for tensor in weights.values())
        self.weights = nn.ParameterList(made)
        self._managed: list[Any] | None = None

    def get_dtype(self) -> torch.dtype:
        """Return the dtype, as hosts ask a model for it."""
        return self.dtype

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(each.nbytes for each in self.weights)

    def on(self, device: torch.device) -> Weights:
        """Return the weights on a device: the tensors themselves where they are there, else copies, without a wait."""
        return {name: on_device(each.detach(), device) for name, each in zip(self.names, self.weights, strict=True)}

    def models(self, manage: Manage) -> list[Any]:
        """Return the host's MODEL around the weights, the same one each time."""
        if self._managed is None:
            managed = manage(self)
            self._managed = [] if managed is None else [managed]
        return self._managed

    def forward(self) -> None:
        """Do nothing: blocks read the weights."""


class TimedImage(NamedTuple):
    """An image for a timed adapter.

    Attributes:
        adapter: the adapter.
        patches: what the encoder sees (1 + k, P, E): first of the unconditional image, then of the k tiles.
    """

    adapter: TimedAdapter
    patches: Tensor


class TimedTokens(NamedTuple):
    """The tokens of images at one noise level.

    Attributes:
        tokens: (2, N, D); row 0 is the images, row 1 the unconditional ones.
        lengths: tokens of each image.
        places: of the images in their group, which ascend.
        embedding: of the timestep (1, E).
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    places: tuple[int, ...]
    embedding: Tensor


@dataclass(frozen=True, eq=False)
class TimedGroup:
    """Images of one adapter that are combined with each other, on a device.

    Attributes:
        weights: of the adapter.
        patches: of all images, one after the other (M, P, E).
        counts: how many rows of the patches belong to each image.
        images: their numbers, which ascend.
        combine: one of `attend.COMBINES`.
        scales: by number of the block, the weight of each image as numbers, and as a tensor (n,) on the device.
    """

    weights: Weights
    patches: Tensor
    counts: tuple[int, ...]
    images: tuple[int, ...]
    combine: str
    scales: dict[int, tuple[tuple[float, ...], Tensor]]

    def at(self, timestep: Tensor, active: frozenset[int]) -> TimedTokens | None:
        """Return the tokens of the images that act at a timestep (1,), None where none does."""
        places = tuple(place for place, image in enumerate(self.images) if image in active)
        if not places:
            return None
        counts = [self.counts[place] for place in places]
        patches = take(self.patches, 0, places, _ends(self.counts))
        tokens, embedding = resample(self.weights, patches, timestep)
        lengths = tuple((count - 1) * tokens.shape[1] for count in counts)
        return TimedTokens(_paired(tokens, counts), lengths, places, embedding)

    def joined(self, found: TimedTokens, block: int, size: int) -> tuple[JointImages, tuple[int, ...]] | None:
        """Return keys and values of the images that act at a block with heads of a size, and their numbers."""
        if block not in self.scales:
            return None
        weights, tensor = self.scales[block]
        acting = [i for i, place in enumerate(found.places) if weights[place]]
        if not acting:
            return None
        places = [found.places[i] for i in acting]
        tokens = take(found.tokens, 1, acting, _ends(found.lengths))
        made = keys_values(self.weights, block, tokens, found.embedding, size)
        about = tuple(found.lengths[i] for i in acting), tuple(weights[place] for place in places)
        images = JointImages(*made, *about, take(tensor, 0, places), self.combine)
        return images, tuple(self.images[place] for place in places)

    def normed(self, q: Tensor, k: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Return queries and keys of pixels (B, L, H, d) as the adapter norms them."""
        at = f"{block}.norm_"
        return _rms(q, self.weights[f"{at}q.weight"]), _rms(k, self.weights[f"{at}k.weight"])


def _ends(counts: Sequence[int]) -> list[int]:
    """Return where each of some parts begins, and where the last one ends."""
    return [0, *accumulate(counts)]


def _paired(tokens: Tensor, counts: Sequence[int]) -> Tensor:
    """Lay tokens (M, T, D) of images and tiles side by side, and the unconditional ones as often: (2, N, D)."""
    same = len(set(counts)) == 1
    parts = [tokens.unflatten(0, (len(counts), -1))] if same else [part[None] for part in tokens.split(list(counts))]
    tiles = [part[:, 1:].flatten(0, 2) for part in parts]
    blank = [part[:, :1].expand(-1, part.shape[1] - 1, -1, -1).flatten(0, 2) for part in parts]
    return torch.stack([torch.cat(tiles), torch.cat(blank)])


class ActingImage(NamedTuple):
    """An image that acts in a model.

    Attributes:
        number: of the image.
        image: the image.
        combine: how it is combined with others, one of `attend.COMBINES`.
        weights: by number of the block.
    """

    number: int
    image: TimedImage
    combine: str
    weights: dict[int, float]


def groups_on(images: Sequence[ActingImage], device: torch.device) -> list[TimedGroup]:
    """Group images by adapter and by how they are combined, and bring them to a device."""
    kinds: dict[tuple[int, str], list[ActingImage]] = {}
    for each in images:
        kinds.setdefault((id(each.image.adapter), each.combine), []).append(each)
    return [_group(found, device) for found in kinds.values()]


def _group(images: Sequence[ActingImage], device: torch.device) -> TimedGroup:
    adapter = images[0].image.adapter
    patches = torch.cat([each.image.patches for each in images]).to(adapter.dtype)
    blocks = dict.fromkeys(block for each in images for block in each.weights)
    scales = {block: tuple(each.weights.get(block, 0.0) for each in images) for block in blocks}
    return TimedGroup(
        adapter.on(device),
        on_device(patches, device),
        tuple(len(each.image.patches) for each in images),
        tuple(each.number for each in images),
        images[0].combine,
        {block: (each, on_device(torch.tensor(each), device)) for block, each in scales.items()},
    )


def resample(w: Weights, patches: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Resample patches (n, P, E) at a timestep (1,), 0..1000, to tokens (n, T, D); and return its embedding (1, E)."""
    embedding = embed_timestep(w, timestep, patches.dtype)
    x = linear(patches, w, "proj_in") + embedding[:, None]
    latents = w["latents"].to(patches).expand(len(patches), -1, -1)
    layer = 0
    while (name := f"layers.{layer}.") + "0.to_q.weight" in w:
        shift, scale, shift2, scale2 = linear(F.silu(embedding), w, name + "2.1")[:, None].chunk(4, -1)
        latents = latents + perceive(w, name + "0.", x, norm(latents, w, name + "0.norm2") * (1 + scale) + shift)
        latents = latents + widen(w, name + "1.", norm(latents, w, name + "1.0") * (1 + scale2) + shift2)
        layer += 1
    return norm(linear(latents, w, "proj_out"), w, "norm_out"), embedding


def embed_timestep(w: Weights, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """Embed a timestep (1,), 0..1000: cosines, then sines, through two layers."""
    half = w["time_embedding.linear_1.weight"].shape[1] // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(PERIOD) / half)
    angles = timestep.float()[:, None] * exponents.exp()
    waves = torch.cat([angles.cos(), angles.sin()], -1).to(dtype)
    return linear(F.silu(linear(waves, w, "time_embedding.linear_1")), w, "time_embedding.linear_2")


def keys_values(w: Weights, block: int, tokens: Tensor, embedding: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return keys and values (2, H, N, d) of tokens (2, N, D) at a block, whose heads have a size."""
    shift, scale = linear(F.silu(embedding), w, f"{block}.norm_ip.linear")[:, None].chunk(2, -1)
    seen = F.layer_norm(tokens, tokens.shape[-1:], eps=EPS) * (1 + scale) + shift
    keys, values = (linear(seen, w, f"{block}.to_{part}_ip").unflatten(-1, (-1, size)) for part in "kv")
    return _rms(keys, w[f"{block}.norm_ip_k.weight"]).transpose(1, 2), values.transpose(1, 2)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x), EPS)
