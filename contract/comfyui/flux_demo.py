# pyright: reportMissingImports=false
"""A demo checkpoint of the Flux kind as ComfyUI's own objects, from a diffusers folder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.text_encoders.flux
import comfy.utils
import folder_paths
import torch
from comfy.sd1_clip import SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sd3_clip import T5XXLModel

from ..protocols import CLIP, MODEL

Config = dict[str, Any]

ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh"}
"""transformers' names of activations in T5, and ComfyUI's."""


def load_model(folder: Path) -> MODEL:
    """Build the denoiser; ComfyUI itself knows diffusers' layout of Flux and reads its shape from the weights."""
    weights = _weights(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return comfy.sd.load_diffusion_model_state_dict(weights)


def load_clip(folder: Path, clip_encoder: type) -> CLIP:
    """Build both text encoders and tokenizers as a `comfy.sd.CLIP`.

    Args:
        folder: the diffusers folder.
        clip_encoder: ComfyUI's CLIP text encoder for a vocabulary of its own size.

    Raises:
        RuntimeError: a weight is missing, or has no place.
    """
    configs = [_config(folder / part / "config.json") for part in ("text_encoder", "text_encoder_2")]
    weights = [_weights(folder / part / "model.safetensors") for part in ("text_encoder", "text_encoder_2")]
    weights[0] = {f"text_model.{key.removeprefix('text_model.')}": weight for key, weight in weights[0].items()}
    target = ClipTarget(
        partial(_Tokenizer, folder=folder, clip_config=configs[0], t5_config=configs[1]),
        partial(_TextEncoders, clip_encoder=clip_encoder, clip_config=configs[0], t5_config=configs[1]),
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(comfy.utils.calculate_parameters(part) for part in weights),
    )
    for part in weights:
        missing, unplaced = clip.load_sd(part)
        lacking = set(missing) - {"text_projection.weight", "logit_scale"}
        if lacking or unplaced:
            raise RuntimeError(
                f"The demo model's text encoders do not fit: {len(lacking)} weights missing, {len(unplaced)} without a "
                f"place ({', '.join([*lacking, *unplaced][:3])}); install the pack again."
            )
    return clip


class _Tokenizer(comfy.text_encoders.flux.FluxTokenizer):
    """Flux's tokenizers with vocabularies and a padding of their own."""

    def __init__(
        self, embedding_directory: Any, tokenizer_data: Config, folder: Path, clip_config: Config, t5_config: Config
    ) -> None:
        self.clip_l = SDTokenizer(
            str(folder / "tokenizer"),
            max_length=clip_config["max_position_embeddings"],
            embedding_directory=embedding_directory,
            embedding_size=clip_config["hidden_size"],
        )
        self.t5xxl = SDTokenizer(
            str(folder / "tokenizer_2"),
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=t5_config["d_model"],
            embedding_key="t5xxl",
            tokenizer_class=comfy.text_encoders.flux.T5TokenizerFast,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=_config(folder / "tokenizer_2" / "tokenizer_config.json")["model_max_length"],
        )


class _TextEncoders(comfy.text_encoders.flux.FluxClipModel):
    """Flux's text encoders with shapes of their own."""

    def __init__(
        self, device: Any, dtype: Any, model_options: Config, clip_encoder: type, clip_config: Config, t5_config: Config
    ) -> None:
        torch.nn.Module.__init__(self)
        shape = t5_config | {"dense_act_fn": ACTIVATIONS[t5_config["dense_act_fn"]]}
        options = model_options | {"t5xxl_model_config": shape}
        self.clip_l = clip_encoder(device, dtype, model_options, clip_config)
        self.t5xxl = T5XXLModel(device=device, dtype=dtype, model_options=options)
        self.dtypes = {dtype}


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return comfy.utils.load_torch_file(str(path), safe_load=True)


def _config(path: Path) -> Config:
    return json.loads(path.read_text(encoding="utf-8"))
