"""SigLIP's pooled output: its file has the pooling head, which hosts leave out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..weights.files import read_spread
from .encoders import SIGLIP
from .formats import Adapter, Weights

HEAD = "vision_model.head."
"""Prefix of the head's weights."""

WIDTH = 72
"""Width of an attention head of SigLIP so400m, which is 1152 wide."""

EPS = 1e-6
"""Of the head's layer norm."""


class PooledEncoder:
    """A CLIP_VISION of SigLIP whose `image_embeds` are its pooled output.

    Args:
        encoder: the CLIP_VISION.
        head: weights of the pooling head, without their prefix.
    """

    def __init__(self, encoder: Any, head: Weights) -> None:
        self.encoder, self.head, self.model = encoder, head, encoder.model
        self.image_mean = encoder.image_mean

    def encode_image(self, image: Tensor, crop: bool = True) -> Any:
        """Encode images (B, H, W, 3) in 0..1."""
        output = self.encoder.encode_image(image, crop=crop)
        seen = output.last_hidden_state.float()
        return SimpleNamespace(
            image_embeds=pool(self.head, seen.cpu()), penultimate_hidden_states=output.penultimate_hidden_states
        )


def check_head(adapter: Adapter, encoder: Any) -> None:
    """Raise ValueError when an adapter needs the head, and a CLIP_VISION that came without its file has none."""
    if adapter.kind == "pooled" and not isinstance(encoder, PooledEncoder):
        raise ValueError(
            f"{adapter.name} reads the pooled output of SigLIP, which a connected encoder does not give; disconnect "
            "it, and choose the encoder's file in clip_vision."
        )


def with_head(adapter: Adapter, encoder: Any, path: Path) -> Any:
    """Return a CLIP_VISION with the pooling head of its file, if an adapter needs it.

    Raises:
        ValueError: the file has none.
    """
    if adapter.kind != "pooled":
        return encoder
    head = {key.removeprefix(HEAD): t.float() for key, t in read_spread(path).items() if key.startswith(HEAD)}
    if "probe" not in head:
        raise ValueError(
            f"{adapter.name} reads the pooled output of SigLIP, but {path.name} has no pooling head ({HEAD}*); get "
            f"{SIGLIP.file}, {SIGLIP.size:,} bytes, into models/clip_vision."
        )
    return PooledEncoder(encoder, head)


def pool(head: Weights, hidden: Tensor) -> Tensor:
    """Pool patches (B, P, E) to (B, E): a learned query attends to them, and a feed-forward layer follows."""
    width = hidden.shape[-1]
    projections = (head[f"attention.in_proj_{part}"].split(width) for part in ("weight", "bias"))
    probe = head["probe"].expand(len(hidden), -1, -1)
    given = (probe, hidden, hidden)
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (max(1, width // WIDTH), -1)).transpose(1, 2)
        for x, w, b in zip(given, *projections, strict=True)
    )
    found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    found = F.linear(found, head["attention.out_proj.weight"], head["attention.out_proj.bias"])
    inner = F.layer_norm(found, (width,), head["layernorm.weight"], head["layernorm.bias"], EPS)
    inner = F.gelu(F.linear(inner, head["mlp.fc1.weight"], head["mlp.fc1.bias"]), approximate="tanh")
    return (found + F.linear(inner, head["mlp.fc2.weight"], head["mlp.fc2.bias"]))[:, 0]
