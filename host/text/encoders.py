"""Chunks of weighted tokens to text embeddings.

Drop-in replacement for the encoders of `comfy.sd1_clip`, `sdxl_clip`, `flux`.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Chunks = list[list[tuple[Any, ...]]]
PENULTIMATE = -2
"""The layer before the last."""


class TextEncoder(nn.Module):
    """A text transformer and how a family reads it.

    Args:
        transformer: the model; its state dict keys get the prefix `transformer.`.
        start: token that begins a chunk, if any.
        end: token that ends a chunk.
        pad: token behind the end.
        layer: whose output is the embedding, negative from the end; None for the last, normed.
        norm_layer: whether the final norm is applied to the output of an inner layer.
        projected: whether the pooled text is the projected one.
    """

    ends_empty = True
    """Whether an empty prompt, from which weights count, has its tokens at start and end."""

    def __init__(
        self,
        transformer: nn.Module,
        start: int | None,
        end: int,
        pad: int,
        layer: int | None = None,
        norm_layer: bool = True,
        projected: bool = True,
    ) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.start, self.end, self.pad = start, end, pad
        self.layer, self.norm_layer, self.projected = layer, norm_layer, projected

    @property
    def num_layers(self) -> int:
        """How many layers the transformer has."""
        raise NotImplementedError

    def embed(self, tokens: Tensor) -> Tensor:
        """Map token ids (B, L) to float32 embeddings (B, L, D)."""
        raise NotImplementedError

    def run(
        self, embeds: Tensor, last_token: list[int], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (B, L, D) to hidden states (B, L, D) of a layer, and the pooled text (B, P)."""
        raise NotImplementedError

    def encode_token_weights(
        self, chunks: Chunks, layer: int | None = None, projected: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Encode chunks and join them.

        A weight moves a token's embedding away from (above 1) or towards (below 1) the embedding that the same
        position has in an empty prompt.

        Args:
            chunks: of (token, weight); of none, an empty prompt without padding is encoded.
            layer: in place of the family's own, which too deep a layer means, too.
            projected: False for the pooled text before its projection.

        Returns:
            (1, chunks * L, D), and the pooled text (1, P) of the first chunk, on the CPU in float32.
        """
        weights = torch.tensor([[token[1] for token in chunk] for chunk in chunks])
        rows = [[token[0] for token in chunk] for chunk in chunks]
        has_weights = bool((weights != 1.0).any())
        if has_weights or not rows:
            rows.append(self._empty(max(map(len, rows), default=0)))
        wanted = self.layer if layer is None or abs(layer) > self.num_layers else layer
        embeds, last_token = self._embed_rows(rows)
        hidden, pooled = self.run(embeds, last_token, wanted, projected and self.projected)
        hidden = hidden.float().cpu()
        if has_weights:
            hidden = apply_weights(hidden[:-1], hidden[-1], weights)
        return hidden.flatten(0, 1)[None], None if pooled is None else pooled[:1].float().cpu()

    def _empty(self, length: int) -> list[int]:
        row = [] if not self.ends_empty else [self.end] if self.start is None else [self.start, self.end]
        return row + [self.pad] * (length - len(row))

    def _embed_rows(self, rows: list[list[Any]]) -> tuple[Tensor, list[int]]:
        embedded = [self._embed_row(row) for row in rows]
        return torch.stack([embeds for embeds, _ in embedded]), [last for _, last in embedded]

    def _embed_row(self, row: list[Any]) -> tuple[Tensor, int]:
        """Return the embeddings (L, D) of a row whose entries are ids and vectors, and the index of its end token."""
        device = next(self.parameters()).device
        ids = [entry if isinstance(entry, int) else self.pad for entry in row]
        embeds = self.embed(torch.tensor([ids], device=device))[0]
        fitting = []
        for index, entry in enumerate(row):
            if isinstance(entry, int):
                fitting.append(index)
            elif entry.shape[-1] == embeds.shape[-1]:
                embeds[index] = entry.to(embeds)
                fitting.append(index)
            else:
                log.warning("an embedding has width %d, expected %d; left out", entry.shape[-1], embeds.shape[-1])
        entries = [row[index] for index in fitting]
        padding = self.embed(torch.tensor([[self.pad]], device=device))[0].expand(len(row) - len(fitting), -1)
        embeds = torch.cat([embeds[fitting], padding])
        ends = (index for index, entry in enumerate(entries) if isinstance(entry, int) and entry == self.end)
        end = next(ends, len(entries) - 1)
        return embeds, end


def apply_weights(hidden: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """Move embeddings along the line from the empty prompt's.

    Args:
        hidden: (B, L, D).
        empty: (L, D).
        weights: (B, L); 1 keeps an embedding exactly.
    """
    weights = weights.to(hidden)[..., None]
    return torch.where(weights == 1.0, hidden, (hidden - empty) * weights + empty)


class CLIPTextEncoder(TextEncoder):
    """CLIP's text encoder (`text_model.CLIPTextModel`)."""

    @property
    def num_layers(self) -> int:
        """How many layers the transformer has."""
        return self.transformer.num_layers

    def embed(self, tokens: Tensor) -> Tensor:
        """Map token ids (B, L) to float32 embeddings (B, L, D)."""
        return self.transformer.embed(tokens)

    def run(
        self, embeds: Tensor, last_token: list[int], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (B, L, D) to hidden states (B, L, D) of a layer, and the pooled text (B, P)."""
        hidden, pooled, projection = self.transformer(embeds, last_token, layer, self.norm_layer)
        return hidden, projection if projected else pooled


class T5TextEncoder(TextEncoder):
    """T5's encoder (transformers' `T5EncoderModel`), run without an attention mask, as Flux was trained."""

    @property
    def num_layers(self) -> int:
        """How many layers the transformer has."""
        return len(self.transformer.encoder.block)

    def embed(self, tokens: Tensor) -> Tensor:
        """Map token ids (B, L) to float32 embeddings (B, L, D)."""
        return self.transformer.shared(tokens).float()

    def run(
        self, embeds: Tensor, last_token: list[int], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Map embeddings (B, L, D) to hidden states (B, L, D) of a layer; T5 has no pooled text."""
        encoder = self.transformer.encoder
        embeds = embeds.to(self.transformer.shared.weight.dtype)
        out = encoder(inputs_embeds=embeds, output_hidden_states=layer is not None)
        if layer is None or layer % self.num_layers == self.num_layers - 1:
            return out.last_hidden_state, None
        return encoder.final_layer_norm(out.hidden_states[layer % self.num_layers + 1]), None


class SD1TextModel(nn.Module):
    """Stable Diffusion 1: CLIP-L's last layer, its pooled text not projected."""

    def __init__(self, clip_l: CLIPTextEncoder) -> None:
        super().__init__()
        self.clip_l = clip_l
        clip_l.projected = False

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D) and pooled text (1, D)."""
        return self.clip_l.encode_token_weights(tokens["l"], layer, projected)


class OneCLIPTextModel(nn.Module):
    """One of OpenCLIP's encoders: the layer before the last, and the projected pooled text.

    Args:
        role: "clip_h" or "clip_g", whose tokens are called by its last letter.
        encoder: it.
        norm_layer: whether the layer is normed.
    """

    def __init__(self, role: str, encoder: CLIPTextEncoder, norm_layer: bool) -> None:
        super().__init__()
        self.role = role
        self.add_module(role, encoder)
        encoder.layer, encoder.norm_layer = PENULTIMATE, norm_layer

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D) and pooled text (1, P)."""
        encoder: Any = self.get_submodule(self.role)
        return encoder.encode_token_weights(tokens[self.role[-1]], layer, projected)


class SDXLTextModel(nn.Module):
    """Stable Diffusion XL: the layers before the last of CLIP-L and CLIP-G side by side, and CLIP-G's pooled text."""

    def __init__(self, clip_l: CLIPTextEncoder, clip_g: CLIPTextEncoder) -> None:
        super().__init__()
        self.clip_l, self.clip_g = clip_l, clip_g
        for encoder in (clip_l, clip_g):
            encoder.layer, encoder.norm_layer = PENULTIMATE, False

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D of L + D of G) and pooled text (1, P)."""
        g, pooled = self.clip_g.encode_token_weights(tokens["g"], layer, projected)
        first, _ = self.clip_l.encode_token_weights(tokens["l"], layer, projected)
        length = min(first.shape[1], g.shape[1])
        return torch.cat([first[:, :length], g[:, :length]], dim=-1), pooled


class FluxTextModel(nn.Module):
    """Flux.1: T5's embedding, and CLIP-L's pooled text, not projected."""

    def __init__(self, clip_l: CLIPTextEncoder, t5xxl: T5TextEncoder) -> None:
        super().__init__()
        self.clip_l, self.t5xxl = clip_l, t5xxl
        clip_l.projected = False

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D) and pooled text (1, D)."""
        hidden, _ = self.t5xxl.encode_token_weights(tokens["t5xxl"], layer, projected)
        _, pooled = self.clip_l.encode_token_weights(tokens["l"], layer, projected)
        return hidden, pooled
