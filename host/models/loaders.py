"""Models from files and folders, by what they hold and not by their names.

Drop-in replacement for the loaders of `comfy.sd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..layouts.state_dicts import StateDict, load_state_dict, made_of, read_json, with_prefix
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from ..text.loading import TextWeights, flux_clip, read_text_weights, sd1_clip, sdxl_clip
from .clip_vision import ClipVisionModel, make_clip_vision
from .diffusers_folder import component_weights, load_component, load_folder, load_vae_folder
from .families import make_vae
from .single_file import VAE_PREFIXES, load_single_denoiser, load_single_file
from .vae import VAE

CLIP_TYPES = ("stable_diffusion", "sdxl", "flux")


def load_checkpoint(
    path: str | Path, embedding_directories: Sequence[str] = ()
) -> tuple[ModelPatcher, CLIP | None, VAE | None]:
    """Return the MODEL, CLIP and VAE of a checkpoint.

    Args:
        path: a `.safetensors` (or `.ckpt`) file, or a diffusers folder.
        embedding_directories: where `embedding:name` of prompts is looked for.

    Returns:
        A file may lack its text encoder or VAE, which are None then.

    Raises:
        FileNotFoundError: the path or a part is missing.
        ValueError: a part is damaged or its architecture is not supported.
    """
    path = Path(path)
    if path.is_dir():
        with made_of(path):
            return load_folder(path, list(embedding_directories))
    return load_single_file(path, list(embedding_directories))


def load_diffusion_model(path: str | Path) -> ModelPatcher:
    """Return the MODEL of a file or folder that holds a denoiser alone."""
    path = Path(path)
    if not path.is_dir():
        return load_single_denoiser(path)
    with made_of(path):
        return load_component(path)


def load_vae(path: str | Path) -> VAE:
    """Return the VAE of a file or folder."""
    path = Path(path)
    if path.is_dir():
        with made_of(path):
            return load_vae_folder(path)
    sd = load_state_dict(path)
    parts = (with_prefix(sd, prefix) for prefix in VAE_PREFIXES)
    with made_of(path):
        return make_vae(next((part for part in parts if part), sd))


def load_clip(
    paths: Sequence[str | Path], clip_type: str = "stable_diffusion", embedding_directories: Sequence[str] = ()
) -> CLIP:
    """Return the CLIP of the files or folders of a family's text encoders, in any order.

    Args:
        paths: of CLIP-L ("stable_diffusion"), of CLIP-L and CLIP-G ("sdxl"), of CLIP-L and T5 ("flux").
        clip_type: the family.
        embedding_directories: where `embedding:name` of prompts is looked for.

    Raises:
        FileNotFoundError: a file, or the tokenizer of T5 beside its weights, is missing.
        ValueError: the files are not the text encoders of that family.
    """
    if clip_type not in CLIP_TYPES:
        raise ValueError(
            f'text encoders of type "{clip_type}" are not supported, expected one of {", ".join(CLIP_TYPES)}'
        )
    texts = [(_read_text(Path(path)), Path(path)) for path in paths]
    clips = sorted((text for text, _ in texts if not text.is_t5), key=lambda text: text.width)
    t5s = [(text, path) for text, path in texts if text.is_t5]
    directories = list(embedding_directories)
    if clip_type == "flux" and len(clips) == len(t5s) == 1:
        t5, path = t5s[0]
        return flux_clip(clips[0], t5, path if path.is_dir() else path.parent, directories)
    if clip_type == "sdxl" and len(clips) == 2 and not t5s:
        return sdxl_clip(clips[0], clips[1], directories)
    if clip_type == "stable_diffusion" and len(clips) == 1 and not t5s:
        return sd1_clip(clips[0], directories)
    found = " and ".join("T5" if text.is_t5 else f"CLIP of width {text.width}" for text, _ in texts)
    wanted = {"flux": "CLIP-L and T5", "sdxl": "CLIP-L and CLIP-G", "stable_diffusion": "CLIP-L"}[clip_type]
    raise ValueError(f"type {clip_type} needs {wanted}, but the files hold {found}")


def _read_text(path: Path) -> TextWeights:
    weights = component_weights(path) if path.is_dir() else load_state_dict(path)
    config = read_json(path / "config.json") if path.is_dir() else None
    with made_of(path):
        return read_text_weights(weights, config)


def load_clip_vision(path: str | Path) -> ClipVisionModel:
    """Return the CLIP_VISION of a file or folder."""
    path = Path(path)
    sd: StateDict = component_weights(path) if path.is_dir() else load_state_dict(path)
    config = read_json(path / "config.json") if path.is_dir() else None
    with made_of(path):
        return make_clip_vision(sd, config)
