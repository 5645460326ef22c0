"""Checkpoints that are one file (drop-in replacement for `comfy.sd.load_checkpoint_guess_config`)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..layouts.state_dicts import StateDict, load_state_dict, made_of, with_prefix
from ..runtime import devices
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from ..text.loading import read_text_weights
from .families import make_model, make_text, make_vae, recognise
from .families.base import TextKind, TextSource
from .model_base import ModelType
from .vae import VAE

log = logging.getLogger(__name__)

DENOISER_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
VAE_PREFIXES = ("first_stage_model.", "vae.")


def load_single_file(path: Path, directories: list[str]) -> tuple[ModelPatcher, CLIP | None, VAE | None]:
    """Return the MODEL, CLIP and VAE of a checkpoint; None for a part that it does not hold.

    Args:
        path: of the file.
        directories: of embeddings.

    Raises:
        ValueError: the file is damaged or its architecture is not supported.
    """
    sd = load_state_dict(path, devices.computes_in_float32())
    with made_of(path):
        family, denoiser = recognise(first_part(sd, DENOISER_PREFIXES) or sd)
        model = make_model(denoiser, None, *_prediction(sd), family=family)
        vae_weights = first_part(sd, VAE_PREFIXES)
        vae = make_vae(vae_weights) if vae_weights else None
        clip = _clip(sd, TextSource(directories, path.parent), family.text)
    return model, clip, vae


def load_single_denoiser(path: Path) -> ModelPatcher:
    """Return the MODEL of a file that holds a denoiser, with or without the rest of a checkpoint."""
    sd = load_state_dict(path, devices.computes_in_float32())
    with made_of(path):
        family, denoiser = recognise(first_part(sd, DENOISER_PREFIXES) or sd)
        return make_model(denoiser, None, *_prediction(sd), family=family)


def first_part(sd: StateDict, prefixes: tuple[str, ...]) -> StateDict:
    """Return the entries under the first prefix that a file has, without it; nothing where it has none."""
    parts = (with_prefix(sd, prefix) for prefix in prefixes)
    return next((part for part in parts if part), {})


def _prediction(sd: StateDict) -> tuple[ModelType | None, dict[str, Any] | None]:
    """Return what markers in a checkpoint say: v prediction, and a schedule without signal at its end."""
    if "v_pred" not in sd:
        return None, None
    return ModelType.V_PREDICTION, {"zsnr": True} if "ztsnr" in sd else None


def _clip(sd: StateDict, source: TextSource, kind: TextKind) -> CLIP | None:
    parts = {role: with_prefix(sd, kind.prefix(role)) for role in kind.roles}
    texts = {role: read_text_weights(part) for role, part in parts.items() if part}
    if set(kind.roles) - set(texts) - set(kind.optional):
        log.warning("the checkpoint holds no text encoder; load one with DualCLIPLoader")
        return None
    return make_text(texts, kind, source)
