"""Text encoders as nodes see them (drop-in replacement for `comfy.sd.CLIP`)."""

from __future__ import annotations

from typing import Any

import torch

from ..runtime.patcher import ModelPatcher
from ..runtime.running import make_patcher, running
from .tokenizer import MultiTokenizer

Conditioning = list[list[Any]]


class CLIP:
    """A family's text encoders with their tokenizers and the patches of one branch of the graph.

    Args:
        cond_stage_model: one of the text models of `text_encoders`.
        tokenizer: its tokenizers.
        patcher: of the model; made when not given.
    """

    def __init__(
        self, cond_stage_model: torch.nn.Module, tokenizer: MultiTokenizer, patcher: ModelPatcher | None = None
    ) -> None:
        self.cond_stage_model: Any = cond_stage_model
        self.tokenizer = tokenizer
        self.patcher = patcher or make_patcher(cond_stage_model)
        self.layer_idx: int | None = None

    def clone(self) -> CLIP:
        """Return the same text encoders with their own patches and layer."""
        n = CLIP(self.cond_stage_model, self.tokenizer, self.patcher.clone())
        n.layer_idx = self.layer_idx
        return n

    def add_patches(
        self, patches: dict[str, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> list[str]:
        """Add weight changes, see `ModelPatcher.add_patches`."""
        return self.patcher.add_patches(patches, strength_patch, strength_model)

    def clip_layer(self, layer_idx: int | None) -> None:
        """Read the output of another layer than the family's: -1 the last, -2 the one before, ..."""
        self.layer_idx = layer_idx

    def tokenize(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, Any]:
        """Return the prompt as chunks of (token, weight) for each text encoder.

        Args:
            text: the prompt.
            return_word_ids: whether tokens have a number of their word, too.
            options: of some families: `images` (B, H, W, 3) that the prompt is about, `llama_template`.

        Raises:
            ValueError: images for text encoders that see none.
        """
        if options.get("images") and not getattr(self.cond_stage_model, "sees_images", False):
            raise ValueError(
                "the text encoder sees no images; load one with a vision model, such as Qwen2.5-VL, type qwen_image"
            )
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **options)

    def encode_from_tokens(self, tokens: dict[str, Any], return_pooled: Any = False, return_dict: bool = False) -> Any:
        """Return the text embedding (1, L, D) of tokens.

        Args:
            tokens: what `tokenize` gave.
            return_pooled: True adds the pooled text (1, P), "unprojected" the one before its projection.
            return_dict: gives `{"cond": ..., "pooled_output": ...}`.
        """
        projected = return_pooled != "unprojected"
        with running(self.patcher), torch.no_grad():
            cond, pooled = self.cond_stage_model.encode_token_weights(tokens, self.layer_idx, projected)
        if return_dict:
            return {"cond": cond, "pooled_output": pooled}
        return (cond, pooled) if return_pooled else cond

    def encode_from_tokens_scheduled(
        self, tokens: dict[str, Any], unprojected: bool = False, add_dict: dict[str, Any] | None = None
    ) -> Conditioning:
        """Return a CONDITIONING of tokens.

        Args:
            tokens: what `tokenize` gave.
            unprojected: the pooled text is the one before its projection.
            add_dict: more values of the conditioning.
        """
        values = self.encode_from_tokens(tokens, return_pooled="unprojected" if unprojected else True, return_dict=True)
        return [[values.pop("cond"), {**values, **(add_dict or {})}]]

    def encode(self, text: str) -> torch.Tensor:
        """Return the text embedding (1, L, D) of a prompt."""
        return self.encode_from_tokens(self.tokenize(text))
