"""What the headers of model files tell without their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from ...weights.files import SAFETENSORS, read_shapes
from ..layouts.state_dicts import StateDict
from .families import recognise, vae_channels
from .single_file import DENOISER_PREFIXES, VAE_PREFIXES, first_part

LOADERS = {
    "CheckpointLoaderSimple": ("checkpoints", "ckpt_name"),
    "unCLIPCheckpointLoader": ("checkpoints", "ckpt_name"),
    "UNETLoader": ("diffusion_models", "unet_name"),
    "VAELoader": ("vae", "vae_name"),
}
"""Folder and input of the files that nodes load."""


def denoiser_channels(path: Path) -> int | None:
    """Return how many channels the latents of a file's denoiser have; None where its header does not tell."""
    return _told(_denoiser_channels, path)


def file_vae_channels(path: Path) -> int | None:
    """Return how many channels the latents of a file's VAE have; None where its header does not tell."""
    return _told(_vae_channels, path)


def _told(read: Callable[[Path, int], int], path: Path) -> int | None:
    if path.suffix.lower() not in SAFETENSORS or not path.is_file():
        return None
    try:
        return read(path, path.stat().st_mtime_ns)
    except (ValueError, LookupError, OSError):
        return None  # What is wrong with the file is said when it is loaded.


# A batch asks for the same files once a row.
@lru_cache(maxsize=32)
def _denoiser_channels(path: Path, changed: int) -> int:
    sd = _weightless(path)
    family, _ = recognise(first_part(sd, DENOISER_PREFIXES) or sd)
    return family.model.default_latent_format.latent_channels


@lru_cache(maxsize=32)
def _vae_channels(path: Path, changed: int) -> int:
    sd = _weightless(path)
    return vae_channels(first_part(sd, VAE_PREFIXES) or sd)


def _weightless(path: Path) -> StateDict:
    """Return tensors that have a file's shapes and no memory."""
    made = {key: torch.empty(shape, device="meta") for key, shape in read_shapes(path).items()}
    return {key: tensor for key, tensor in made.items() if not key.endswith(".comfy_quant")}
