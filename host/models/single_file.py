"""Checkpoints that are one file (drop-in replacement for `comfy.sd.load_checkpoint_guess_config`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..layouts.state_dicts import StateDict, load_state_dict, made_of, with_prefix
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from ..text.loading import flux_clip, read_text_weights, sd1_clip, sdxl_clip
from .families import diffusers_denoiser, is_flux, make_model, make_vae
from .model_base import ModelType
from .vae import VAE

log = logging.getLogger(__name__)

DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
VAE_PREFIXES = ("first_stage_model.", "vae.")
SD1_TEXT = "cond_stage_model.transformer."
"""Text encoders of each family: the longest prefix behind which keys are those of the encoder alone."""

SDXL_TEXT = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
FLUX_TEXT = ("text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer.")


def load_single_file(path: Path, directories: list[str]) -> tuple[ModelPatcher, CLIP | None, VAE | None]:
    """Return the MODEL, CLIP and VAE of a checkpoint; None for a part that it does not hold.

    Args:
        path: of the file.
        directories: of embeddings.

    Raises:
        ValueError: the file is damaged or its architecture is not supported.
    """
    sd = load_state_dict(path)
    with made_of(path):
        denoiser = diffusers_denoiser(_first_part(sd, DENOISER_PREFIXES) or sd)
        model = make_model(denoiser, None, *_prediction(sd))
        vae_weights = _first_part(sd, VAE_PREFIXES)
        vae = make_vae(vae_weights) if vae_weights else None
        clip = _clip(sd, path.parent, directories, is_flux(denoiser), "add_embedding.linear_1.weight" in denoiser)
    return model, clip, vae


def load_single_denoiser(path: Path) -> ModelPatcher:
    """Return the MODEL of a file that holds a denoiser, with or without the rest of a checkpoint."""
    sd = load_state_dict(path)
    with made_of(path):
        return make_model(diffusers_denoiser(_first_part(sd, DENOISER_PREFIXES) or sd), None, *_prediction(sd))


def _first_part(sd: StateDict, prefixes: tuple[str, ...]) -> StateDict:
    parts = (with_prefix(sd, prefix) for prefix in prefixes)
    return next((part for part in parts if part), {})


def _prediction(sd: StateDict) -> tuple[ModelType | None, dict[str, Any] | None]:
    """Return what markers in a checkpoint say: v prediction, and a schedule without signal at its end."""
    if "v_pred" not in sd:
        return None, None
    return ModelType.V_PREDICTION, {"zsnr": True} if "ztsnr" in sd else None


def _clip(sd: StateDict, folder: Path, directories: list[str], flux: bool, sdxl: bool) -> CLIP | None:
    prefixes = FLUX_TEXT if flux else SDXL_TEXT if sdxl else (SD1_TEXT,)
    parts = [with_prefix(sd, prefix) for prefix in prefixes]
    if not all(parts):
        log.warning("the checkpoint holds no text encoder; load one with DualCLIPLoader")
        return None
    texts = [read_text_weights(part) for part in parts]
    if flux:
        return flux_clip(texts[0], texts[1], folder, directories)
    return sdxl_clip(texts[0], texts[1], directories) if sdxl else sd1_clip(texts[0], directories)
