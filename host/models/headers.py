"""What model files tell without their weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..layouts.state_dicts import StateDict, load_shapes
from .diffusers_folder import component_file, denoiser_folder
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
    """Return how many channels the latents of a denoiser have; None where its file or folder does not tell."""
    return _told(_denoiser_channels, path, denoiser_folder(path))


def file_vae_channels(path: Path) -> int | None:
    """Return how many channels the latents of a VAE have; None where its file or folder does not tell."""
    return _told(_vae_channels, path, path / "vae" if (path / "vae").is_dir() else None)


def _told(read: Callable[[Path, int], int], path: Path, part: Path | None) -> int | None:
    """Return what is read of a file, or of the weights in a folder, or in that part of it."""
    try:
        file = component_file(part or path) if path.is_dir() else path
        return read(file, file.stat().st_mtime_ns)
    except (ValueError, LookupError, OSError):
        return None  # What is wrong with the file is said when it is loaded.


# A batch asks for the same files once a row.
@lru_cache(maxsize=32)
def _denoiser_channels(path: Path, changed: int) -> int:
    sd = _shapes(path)
    family, _ = recognise(first_part(sd, DENOISER_PREFIXES) or sd)
    return family.model.default_latent_format.latent_channels


@lru_cache(maxsize=32)
def _vae_channels(path: Path, changed: int) -> int:
    sd = _shapes(path)
    return vae_channels(first_part(sd, VAE_PREFIXES) or sd)


def _shapes(path: Path) -> StateDict:
    return {key: tensor for key, tensor in load_shapes(path).items() if not key.endswith(".comfy_quant")}
