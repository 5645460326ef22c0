"""ComfyUI's core nodes that load text encoders, and checkpoints with an image encoder."""

from __future__ import annotations

from typing import Any

import torch

from .. import folder_paths
from ..models import loaders
from ..models.control_loading import load_controlnet
from ..schema import io
from ..schema.declare import Nodes, choice

NODES = Nodes("model/loaders")
CLIP_TYPES = [
    *("stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos", "lumina2"),
    *("wan", "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image", "flux2", "ovis", "longcat_image"),
    *("cogvideox", "lens", "pixeldit", "ideogram4", "boogu", "krea2", "joyimage", "mage", "minimax"),
]
"""ComfyUI's own list, so that saved workflows keep their value; the loader refuses what it cannot load."""


def _files(*names: str) -> list[io.Input]:
    found = folder_paths.get_filename_list("text_encoders")
    return [choice(name, found, tooltip="The file in models/text_encoders.") for name in names]


def load_encoders(names: tuple[str, ...], kind: str, device: str = "default") -> Any:
    """Return text encoders of a type, which run on the device "default" or "cpu"."""
    paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in names]
    clip = loaders.load_clip(paths, kind, folder_paths.get_folder_paths("embeddings"))
    if device == "cpu":
        clip.patcher.load_device = clip.patcher.offload_device = torch.device("cpu")
    return clip


def known_type(type: str | None) -> bool | str:
    """Return whether text encoders of a type can be loaded, or what to do; a linked one is None."""
    known = loaders.clip_types()
    if type is None or type in known:
        return True
    return f"type {type} is not supported here, expected one of {', '.join(known)}; run it in ComfyUI (--engine)"


@NODES(
    "CLIPLoader",
    "Load CLIP",
    lambda: [
        *_files("clip_name"),
        choice("type", CLIP_TYPES, tooltip="The model family."),
        choice("device", ["default", "cpu"], optional=True, advanced=True, tooltip="Where it runs."),
    ],
    [io.Clip],
    validate=known_type,
)
def load_clip(clip_name: str, type: str = "stable_diffusion", device: str = "default") -> Any:
    """Load a text encoder."""
    return load_encoders((clip_name,), type, device)


@NODES(
    "TripleCLIPLoader",
    "Load CLIP (Triple)",
    lambda: _files("clip_name1", "clip_name2", "clip_name3"),
    [io.Clip],
)
def load_three(clip_name1: str, clip_name2: str, clip_name3: str) -> Any:
    """Load the three text encoders of Stable Diffusion 3, in any order."""
    return load_encoders((clip_name1, clip_name2, clip_name3), "sd3")


@NODES(
    "QuadrupleCLIPLoader",
    "Load CLIP (Quadruple)",
    lambda: _files("clip_name1", "clip_name2", "clip_name3", "clip_name4"),
    [io.Clip],
    validate=lambda clip_name1: known_type("hidream"),
)
def load_four(clip_name1: str, clip_name2: str, clip_name3: str, clip_name4: str) -> Any:
    """Load the four text encoders of HiDream, which needs ComfyUI."""
    return load_encoders((clip_name1, clip_name2, clip_name3, clip_name4), "hidream")


@NODES(
    "unCLIPCheckpointLoader",
    "Load unCLIP Checkpoint",
    lambda: [
        choice("ckpt_name", folder_paths.get_filename_list("checkpoints"), tooltip="The file in models/checkpoints.")
    ],
    [io.Model, io.Clip, io.Vae, io.ClipVision],
)
def load_unclip(ckpt_name: str) -> tuple[Any, ...]:
    """Load a model with its text encoder, its VAE and its image encoder."""
    path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
    model, clip, vae = loaders.load_checkpoint(path, folder_paths.get_folder_paths("embeddings"))
    return model, clip, vae, loaders.load_image_encoder(path)


@NODES(
    "DiffControlNetLoader",
    "Load ControlNet Model (diff)",
    lambda: [
        io.Model.Input("model", tooltip="The model that the network was made for."),
        choice(
            "control_net_name", folder_paths.get_filename_list("controlnet"), tooltip="The file in models/controlnet."
        ),
    ],
    [io.ControlNet],
)
def load_control(model: Any, control_net_name: str) -> Any:
    """Load a control network; one that is saved as a difference to its model needs ComfyUI."""
    return load_controlnet(folder_paths.get_full_path_or_raise("controlnet", control_net_name))
