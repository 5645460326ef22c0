"""Image features as tokens of the model's text width.

Sources: Ye et al. 2023 (IP-Adapter); the resampler is that of Alayrac et al. 2022 (Flamingo).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from .formats import Weights

HEAD = 64
"""Width of a head of the resampler."""


def base(w: Weights, embeds: Tensor) -> Tensor:
    """Project image embeddings (n, E) to tokens (n, T, D)."""
    width = w["norm.weight"].shape[0]
    return norm(rearrange(linear(embeds, w, "proj"), "n (t d) -> n t d", d=width), w, "norm")


def full(w: Weights, hidden: Tensor) -> Tensor:
    """Project patches (n, P, E) to tokens (n, P, D), one for each."""
    return norm(linear(F.gelu(linear(hidden, w, "proj.0")), w, "proj.2"), w, "proj.3")


def plus(w: Weights, hidden: Tensor) -> Tensor:
    """Resample patches (n, P, E) to tokens (n, T, D)."""
    return _resample(w, "", w["latents"].to(hidden).expand(hidden.shape[0], -1, -1), hidden)


def face(w: Weights, faces: Tensor) -> Tensor:
    """Project face embeddings (n, 512) to tokens (n, T, D)."""
    width = w["norm.weight"].shape[0]
    tokens = linear(F.gelu(linear(faces, w, "proj.0")), w, "proj.2")
    return norm(rearrange(tokens, "n (t d) -> n t d", d=width), w, "norm")


def pooled(w: Weights, embeds: Tensor) -> Tensor:
    """Project pooled outputs of SigLIP (n, E) to tokens (n, T, D)."""
    return face(w, embeds)


def face_plus(w: Weights, faces: Tensor, hidden: Tensor, structure: float | None = None) -> Tensor:
    """Resample face embeddings (n, 512) and patches (n, P, E) to tokens (n, T, D).

    Args:
        w: weights of the projector.
        faces: normalised.
        hidden: patches.
        structure: weight of the patches in FaceID plus v2; None for plus v1, whose weights have the same shapes.
    """
    identity = face(w, faces)
    mixed = _resample(w, "perceiver_resampler.", identity, hidden)
    return mixed if structure is None else identity + structure * mixed


def _resample(w: Weights, prefix: str, latents: Tensor, hidden: Tensor) -> Tensor:
    x = linear(hidden, w, prefix + "proj_in")
    layer = 0
    while (name := f"{prefix}layers.{layer}.") + "0.to_q.weight" in w:
        latents = latents + perceive(w, name + "0.", x, norm(latents, w, name + "0.norm2"))
        latents = latents + widen(w, name + "1.", norm(latents, w, name + "1.0"))
        layer += 1
    return norm(linear(latents, w, prefix + "proj_out"), w, prefix + "norm_out")


def perceive(w: Weights, name: str, x: Tensor, latents: Tensor) -> Tensor:
    """Attend from normed latents (n, T, d) to patches (n, P, d) and to themselves."""
    both = torch.cat([norm(x, w, name + "norm1"), latents], dim=1)
    q, (k, v) = linear(latents, w, name + "to_q"), linear(both, w, name + "to_kv").chunk(2, dim=-1)
    q, k, v = (rearrange(t, "n t (h d) -> n h t d", d=HEAD) for t in (q, k, v))
    out = rearrange(F.scaled_dot_product_attention(q, k, v), "n h t d -> n t (h d)")
    return linear(out, w, name + "to_out")


def widen(w: Weights, name: str, latents: Tensor) -> Tensor:
    """Return what the feed-forward layer gives for normed latents (n, T, d)."""
    return linear(F.gelu(linear(latents, w, name + "1")), w, name + "3")


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """Apply a linear layer of the weights, in the dtype of x."""
    bias = w.get(f"{name}.bias")
    return F.linear(x, w[f"{name}.weight"].to(x), None if bias is None else bias.to(x))


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """Apply a layer norm of the weights, in the dtype of x."""
    weight = w[f"{name}.weight"].to(x)
    return F.layer_norm(x, weight.shape, weight, w[f"{name}.bias"].to(x))
