"""What the pack uses of a host's MODEL, CLIP and VAE, with the names that both hosts have.

The type checker holds the embedded host's classes to these; for ComfyUI's, `tests/comfyui/test_protocols.py` looks at
the real classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, device

Conditioning = list[list[Any]]
"""Pairs of a text embedding (B, L, D) and its values by name."""


class MODEL(Protocol):
    """A denoiser with the patches of one branch of the graph; clones share its weights.

    Attributes:
        model: the module that turns latents and a noise level into x0.
        model_options: of a run, among them `transformer_options`.
        load_device: where it runs.
    """

    model: Any
    model_options: dict[str, Any]
    load_device: device

    def clone(self) -> Any:
        """Return a MODEL of the same weights with patches of its own."""
        ...

    def get_model_object(self, name: str) -> Any:
        """Return an attribute of `model` by its dotted path, as patched."""
        ...

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., Any]) -> None:
        """Surround calls of a kind."""
        ...

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None:
        """Remove the wrappers of a kind and key, where there are some."""
        ...

    def get_wrappers(self, wrapper_type: str, key: str) -> list[Callable[..., Any]]:
        """Return the wrappers of a kind and key."""
        ...


class CLIP(Protocol):
    """Text encoders with their tokenizers."""

    def clone(self) -> Any:
        """Return a CLIP of the same weights with patches of its own."""
        ...

    def tokenize(self, text: str, return_word_ids: bool = False) -> dict[str, Any]:
        """Split a prompt into chunks of (token, weight), for each text encoder."""
        ...

    def encode_from_tokens_scheduled(self, tokens: dict[str, Any]) -> Conditioning:
        """Encode what `tokenize` returned as a CONDITIONING."""
        ...


class VAE(Protocol):
    """An autoencoder between images (B, H, W, C) in 0..1 and latents (B, L, h, w).

    Attributes:
        first_stage_model: the module.
    """

    first_stage_model: Any

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """Encode images."""
        ...

    def decode(self, samples_in: Tensor) -> Tensor:
        """Decode latents."""
        ...

    def spacial_compression_encode(self) -> int:
        """Return how many pixels lie along the side of one latent."""
        ...

    def spacial_compression_decode(self) -> int:
        """Return how many pixels lie along the side of one latent."""
        ...

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """Crop images to sizes that can be encoded."""
        ...

    def encode_tiled_(self, pixel_samples: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64) -> Tensor:
        """Encode images (B, C, H, W) in tiles, whose sizes are in pixels."""
        ...

    def decode_tiled_(self, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16) -> Tensor:
        """Decode latents in tiles, whose sizes are in latents, to images (B, C, H, W)."""
        ...


Loaded = tuple[MODEL, CLIP, VAE]
"""What a checkpoint holds."""
