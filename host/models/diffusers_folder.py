"""Models in diffusers' folder layout: a folder for each part, with its configuration and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..layouts.state_dicts import StateDict, load_state_dict, read_json
from ..runtime.patcher import ModelPatcher
from ..text.clip import CLIP
from ..text.clip_tokens import load_clip_tokenizer
from ..text.loading import TextWeights, read_text_weights
from ..text.tokenizer import PromptTokenizer, clip_prompt_tokenizer
from .families import FAMILIES, make_model, make_vae, names, of_class, of_model
from .families.base import TextKind, TextSource
from .model_base import ModelType
from .vae import VAE

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
ENDINGS = (
    ".safetensors",
    ".fp16.safetensors",
    ".safetensors.index.json",
    ".bin",
    ".fp16.bin",
    ".bin.index.json",
)
FOLDERS = tuple(dict.fromkeys(family.folder for family in FAMILIES))
PREDICTIONS = {"epsilon": ModelType.EPS, "v_prediction": ModelType.V_PREDICTION, "sample": ModelType.X0}
SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear"}
"""diffusers' names of noise schedules, and those of the original code."""


def component_weights(folder: Path) -> StateDict:
    """Return the weights of one part.

    Raises:
        FileNotFoundError: the folder has none.
    """
    return load_state_dict(component_file(folder))


def component_file(folder: Path) -> Path:
    """Return the file of one part, or the index of several.

    Raises:
        FileNotFoundError: the folder has none.
    """
    candidates = [folder / (stem + ending) for stem in STEMS for ending in ENDINGS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has no weights, expected {STEMS[0]}.safetensors or {STEMS[1]}.safetensors there"
        )
    return found


def load_folder(path: Path, directories: list[str]) -> tuple[ModelPatcher, CLIP, VAE]:
    """Return the MODEL, CLIP and VAE of a diffusers folder.

    Args:
        path: of the folder that holds `model_index.json`.
        directories: of embeddings.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: a part is damaged or its architecture is not supported.
    """
    index = read_json(path / "model_index.json")
    denoiser = denoiser_folder(path)
    if denoiser is None:
        raise ValueError(f"{path} is a {index.get('_class_name')} without unet or transformer, expected {names()}")
    model = load_component(denoiser, path / "scheduler", path / "vae")
    return model, load_text(path, directories, of_model(model.model).text), load_vae_folder(path / "vae")


def denoiser_folder(path: Path) -> Path | None:
    """Return the part of a folder that denoises."""
    return next((path / name for name in FOLDERS if (path / name).is_dir()), None)


def load_component(folder: Path, scheduler: Path | None = None, vae: Path | None = None) -> ModelPatcher:
    """Return the MODEL of the folder of a denoiser.

    Args:
        folder: with `config.json` and weights.
        scheduler: the folder that says what the denoiser predicts.
        vae: the folder that says how latents are scaled.

    Raises:
        ValueError: the architecture is not supported.
    """
    config = read_json(folder / "config.json")
    if not of_class(config.get("_class_name")):
        known = dict.fromkeys(family.diffusers_class for family in FAMILIES)
        raise ValueError(f"{folder} is a {config.get('_class_name')}, expected one of {', '.join(known)}")
    if config["_class_name"] != "UNet2DConditionModel":
        return make_model(component_weights(folder), config)
    model_type, settings = _sampling(scheduler)
    vae_config = read_json(vae / "config.json") if vae and (vae / "config.json").is_file() else {}
    return make_model(component_weights(folder), config, model_type, settings, vae_config.get("scaling_factor"))


def _sampling(folder: Path | None) -> tuple[ModelType | None, dict[str, Any] | None]:
    path = folder / "scheduler_config.json" if folder else None
    if path is None or not path.is_file():
        return None, None
    config = read_json(path)
    prediction, schedule = config.get("prediction_type", "epsilon"), config.get("beta_schedule", "scaled_linear")
    if prediction not in PREDICTIONS or schedule not in SCHEDULES:
        raise ValueError(
            f"{path} says {prediction} and {schedule}, "
            f"expected one of {', '.join(PREDICTIONS)} and one of {', '.join(SCHEDULES)}"
        )
    return PREDICTIONS[prediction], {
        "beta_schedule": SCHEDULES[schedule],
        "linear_start": config.get("beta_start", 0.00085),
        "linear_end": config.get("beta_end", 0.012),
        "timesteps": config.get("num_train_timesteps", 1000),
        "zsnr": config.get("rescale_betas_zero_snr", False),
    }


def load_vae_folder(folder: Path) -> VAE:
    """Return the VAE of its folder."""
    return make_vae(component_weights(folder), read_json(folder / "config.json"))


def text_folder(folder: Path) -> TextWeights:
    """Return a text encoder of its folder."""
    return read_text_weights(component_weights(folder), read_json(folder / "config.json"))


def load_text(path: Path, directories: list[str], kind: TextKind) -> CLIP:
    """Return the CLIP of a diffusers folder."""
    numbers = ["", *(f"_{number}" for number in range(2, len(kind.roles) + 1))]
    folders = {role: path / f"tokenizer{number}" for role, number in zip(kind.roles, numbers, strict=True)}
    parts = {role: path / f"text_encoder{number}" for role, number in zip(kind.roles, numbers, strict=True)}
    parts = {role: part for role, part in parts.items() if part.is_dir() or role not in kind.optional}
    texts = {role: text_folder(part) for role, part in parts.items()}
    clips = {role: text for role, text in texts.items() if text.kind == "clip"}
    tokenizers = {role: _tokenizer(folders[role], text, role, directories) for role, text in clips.items()}
    return kind.make(texts, TextSource(directories, path, folders, tokenizers))


def _tokenizer(folder: Path, text: TextWeights, key: str, directories: list[str]) -> PromptTokenizer:
    tokenizer, pad = load_clip_tokenizer(folder)
    length = text.full_config()["max_position_embeddings"]
    return clip_prompt_tokenizer(tokenizer, pad, length, key, directories)
