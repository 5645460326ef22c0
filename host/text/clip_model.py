"""CLIP's text transformer, with the state dict keys of Hugging Face's checkpoints.

Drop-in replacement for `comfy.clip_model`.

Weights of half precision are raised to the precision of the input, so that embeddings are always computed in float32.
It is not transformers' class, which takes token ids but no embeddings, and whose import takes seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """A linear layer in the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """A layer norm in the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


ACTIVATIONS = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
}


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1, self.fc2 = Linear(width, hidden), Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """One transformer layer, norms first."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.layer_norm1, self.layer_norm2 = LayerNorm(width, eps), LayerNorm(width, eps)
        self.self_attn = Attention(width, config["num_attention_heads"])
        self.mlp = MLP(width, config["intermediate_size"], config["hidden_act"])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Tables of token and position embeddings."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.position_embedding = nn.Embedding(config["max_position_embeddings"], config["hidden_size"])


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))


class TextTransformer(nn.Module):
    """What the keys `text_model.` hold."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config["hidden_size"], config.get("layer_norm_eps", 1e-5))


class CLIPTextModel(nn.Module):
    """CLIP's text encoder.

    Args:
        config: `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`, `hidden_act`,
            `vocab_size`, `max_position_embeddings` as in a Hugging Face `config.json`; `projection_dim` where the
            checkpoint has a text projection.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.text_model = TextTransformer(config)
        projection = config.get("projection_dim")
        self.text_projection = Linear(config["hidden_size"], projection, bias=False) if projection else None

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.text_model.encoder.layers)

    def embed(self, tokens: Tensor) -> Tensor:
        """Map token ids (B, L) to embeddings (B, L, D) without positions, float32."""
        return self.text_model.embeddings.token_embedding(tokens).float()

    def forward(self, embeds: Tensor, last_token: list[int], layer: int | None, norm_layer: bool) -> tuple[Tensor, ...]:
        """Encode embeddings.

        Args:
            embeds: (B, L, D); L is the number of positions.
            last_token: index of the end token of each row.
            layer: whose output is wanted, negative from the end; None for the last, normed.
            norm_layer: whether the final norm is applied to the output of `layer`.

        Returns:
            The hidden states (B, L, D), the pooled text (B, D) and the projected pooled text (B, P).
        """
        model = self.text_model
        x = embeds + model.embeddings.position_embedding.weight.to(embeds.dtype)
        wanted = None if layer is None else layer % self.num_layers
        hidden = x
        for index, block in enumerate(model.encoder.layers):
            x = block(x)
            hidden = x if index == wanted else hidden
        x = model.final_layer_norm(x)
        if wanted is None:
            hidden = x
        elif norm_layer:
            hidden = model.final_layer_norm(hidden)
        pooled = x[torch.arange(len(x)), last_token]
        return hidden, pooled, pooled if self.text_projection is None else self.text_projection(pooled)
