"""Models from files and folders, by what they hold and not by their names.

Drop-in replacement for the loaders of `comfy.sd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...weights.files import shards
from ..layouts.state_dicts import StateDict, load_state_dict, made_of, read_json, with_prefix
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from ..text.loading import TextWeights, read_text_weights
from .clip_vision import ClipVisionModel, make_clip_vision
from .diffusers_folder import component_weights, load_component, load_folder, load_vae_folder
from .families import assign, clip_types, make_text, make_vae, text_kinds
from .families.base import TextKind, TextSource
from .single_file import VAE_PREFIXES, load_single_denoiser, load_single_file
from .vae import VAE

UNCLIP_VISION = "embedder.model.visual."
ROLES = {
    "clip_l": "CLIP-L",
    "clip_g": "CLIP-G",
    "clip_h": "CLIP-H",
    "t5xxl": "T5",
    "qwen3_4b": "Qwen3 4B",
    "qwen3_8b": "Qwen3 8B",
    "qwen25_7b": "Qwen2.5-VL",
    "mistral3_24b": "Mistral Small 3",
}
"""Text encoders as messages call them."""


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
    kinds = text_kinds(clip_type)
    if not kinds:
        raise ValueError(
            f'text encoders of type "{clip_type}" are not supported, expected one of {", ".join(clip_types())}'
        )
    texts = {Path(path): _read_text(Path(path)) for path in paths}
    for kind in kinds:
        found = assign(texts.values(), kind)
        if found is not None:
            places = {role: next(path for path, text in texts.items() if text is found[role]) for role in found}
            folders = {role: path if path.is_dir() else path.parent for role, path in places.items()}
            first = Path(paths[0])
            return make_text(found, kind, TextSource(list(embedding_directories), first.parent, folders))
    given = " and ".join(str(text) for text in texts.values())
    wanted = " or ".join(_in_words(kind) for kind in kinds)
    raise ValueError(f"type {clip_type} needs {wanted}, but the files hold {given}")


def _in_words(kind: TextKind) -> str:
    names = [ROLES.get(role, role) for role in kind.roles]
    return f"any of {', '.join(names)}" if set(kind.optional) == set(kind.roles) else " and ".join(names)


def _read_text(path: Path) -> TextWeights:
    weights = component_weights(path) if path.is_dir() else load_state_dict(path)
    config = read_json(path / "config.json") if path.is_dir() else None
    with made_of(path):
        return read_text_weights(weights, config)


def load_image_encoder(path: str | Path) -> ClipVisionModel | None:
    """Return the CLIP_VISION of an unCLIP checkpoint, None where it holds none."""
    path = Path(path)
    if path.is_dir():
        return load_clip_vision(path / "image_encoder") if (path / "image_encoder").is_dir() else None
    sd = with_prefix(load_state_dict(path), UNCLIP_VISION)
    with made_of(path):
        return make_clip_vision({f"visual.{key}": tensor for key, tensor in sd.items()}) if sd else None


def load_clip_vision(path: str | Path) -> ClipVisionModel:
    """Return the CLIP_VISION of a file or folder."""
    path = Path(path)
    files = [path] if path.is_dir() else shards(path)
    sd: StateDict = {}
    for each in files:
        sd |= component_weights(each) if each.is_dir() else load_state_dict(each)
    config = read_json(path / "config.json") if path.is_dir() else None
    with made_of(path):
        return make_clip_vision(sd, config)
