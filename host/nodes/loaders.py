"""ComfyUI's loaders of models."""

from __future__ import annotations

from typing import Any

from .. import folder_paths
from ..models import loaders, lora
from ..schema import io
from ..schema.declare import heed
from .text_loaders import known_type, load_encoders

CATEGORY = "model/loaders"
DUAL_CLIP_TYPES = [
    "sdxl",
    "sd3",
    "flux",
    "hunyuan_video",
    "hidream",
    "hunyuan_image",
    "hunyuan_video_15",
    "kandinsky5",
    "kandinsky5_image",
    "ltxv",
    "newbie",
    "ace",
]
"""ComfyUI's own list, so that saved workflows keep their value; the loader refuses what it cannot load."""

WEIGHT_DTYPES = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]


def _files(kind: str, input_id: str, tooltip: str | None = None) -> io.Combo.Input:
    return io.Combo.Input(input_id, options=folder_paths.get_filename_list(kind), tooltip=tooltip)


def _strength(input_id: str, tooltip: str | None = None) -> io.Float.Input:
    return io.Float.Input(input_id, default=1.0, min=-100.0, max=100.0, step=0.01, tooltip=tooltip)


def known_precision(weight_dtype: str | None) -> bool | str:
    """Return whether weights can be kept in a precision, or what to do; a linked one is None."""
    if weight_dtype in (None, "default"):
        return True
    return f"weight_dtype {weight_dtype} is not supported here; choose default, or run it in ComfyUI (--engine)"


class CheckpointLoaderSimple(io.ComfyNode):
    """ComfyUI's Load Checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CheckpointLoaderSimple",
            display_name="Load Checkpoint",
            category=CATEGORY,
            description="Loads a model, its text encoder and its VAE from one file or from a diffusers folder.",
            search_aliases=["load model", "checkpoint", "model loader", "load checkpoint", "ckpt", "model"],
            inputs=[_files("checkpoints", "ckpt_name", "The file or diffusers folder in models/checkpoints.")],
            outputs=[
                io.Model.Output(tooltip="The model that removes noise from latents."),
                io.Clip.Output(tooltip="The text encoder."),
                io.Vae.Output(tooltip="What turns images into latents and back."),
            ],
        )

    @classmethod
    def execute(cls, ckpt_name: str) -> io.NodeOutput:
        """Load it."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return io.NodeOutput(*loaders.load_checkpoint(path, folder_paths.get_folder_paths("embeddings")))


class UNETLoader(io.ComfyNode):
    """ComfyUI's Load Diffusion Model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="UNETLoader",
            display_name="Load Diffusion Model",
            category=CATEGORY,
            description="Loads a model that comes without text encoder and VAE.",
            inputs=[
                _files("diffusion_models", "unet_name", "The file or folder in models/diffusion_models."),
                io.Combo.Input(
                    "weight_dtype",
                    options=WEIGHT_DTYPES,
                    advanced=True,
                    tooltip="default; the float8 formats are for ComfyUI, which computes with them.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model that removes noise from latents.")],
        )

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str) -> io.NodeOutput:
        """Load it."""
        heed(known_precision(weight_dtype))
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        return io.NodeOutput(loaders.load_diffusion_model(path))

    @classmethod
    def validate_inputs(cls, weight_dtype: str) -> bool | str:
        """Return whether weights can be kept in the precision."""
        return known_precision(weight_dtype)


class DualCLIPLoader(io.ComfyNode):
    """ComfyUI's loader of two text encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="DualCLIPLoader",
            display_name="Load CLIP (Dual)",
            category=CATEGORY,
            description="Loads two text encoders: CLIP-L and CLIP-G for sdxl, CLIP-L and T5 for flux.",
            inputs=[
                _files("text_encoders", "clip_name1", "One of the two, in any order."),
                _files("text_encoders", "clip_name2", "The other one."),
                io.Combo.Input("type", options=DUAL_CLIP_TYPES, tooltip="The model family."),
                io.Combo.Input(
                    "device",
                    options=["default", "cpu"],
                    optional=True,
                    advanced=True,
                    tooltip="Where the text encoders run.",
                ),
            ],
            outputs=[io.Clip.Output(tooltip="The text encoders.")],
        )

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> io.NodeOutput:
        """Load them."""
        return io.NodeOutput(load_encoders((clip_name1, clip_name2), type, device))

    @classmethod
    def validate_inputs(cls, type: str) -> bool | str:
        """Return whether text encoders of the type can be loaded."""
        return known_type(type)


class VAELoader(io.ComfyNode):
    """ComfyUI's Load VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="VAELoader",
            display_name="Load VAE",
            category=CATEGORY,
            description="Loads a VAE in place of the one in a checkpoint.",
            inputs=[_files("vae", "vae_name", "The file or folder in models/vae.")],
            outputs=[io.Vae.Output(tooltip="What turns images into latents and back.")],
        )

    @classmethod
    def execute(cls, vae_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(loaders.load_vae(folder_paths.get_full_path_or_raise("vae", vae_name)))


class CLIPVisionLoader(io.ComfyNode):
    """ComfyUI's Load CLIP Vision."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CLIPVisionLoader",
            display_name="Load CLIP Vision",
            category=CATEGORY,
            description="Loads an image encoder.",
            inputs=[_files("clip_vision", "clip_name", "The file or folder in models/clip_vision.")],
            outputs=[io.ClipVision.Output(tooltip="The image encoder.")],
        )

    @classmethod
    def execute(cls, clip_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(loaders.load_clip_vision(folder_paths.get_full_path_or_raise("clip_vision", clip_name)))


class LoraLoader(io.ComfyNode):
    """ComfyUI's Load LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LoraLoader",
            display_name="Load LoRA (Model and CLIP)",
            category=CATEGORY,
            description="Changes a model and its text encoder by a LoRA; several can follow each other.",
            search_aliases=["lora", "load lora", "apply lora", "lora loader", "lora model"],
            inputs=[
                io.Model.Input("model", tooltip="The model; it is not changed."),
                io.Clip.Input("clip", tooltip="The text encoder; it is not changed."),
                _files("loras", "lora_name", "The file in models/loras."),
                _strength("strength_model", "How much the model changes; below 0 reverses the change."),
                _strength("strength_clip", "How much the text encoder changes; below 0 reverses the change."),
            ],
            outputs=[
                io.Model.Output(tooltip="The changed model."),
                io.Clip.Output(tooltip="The changed text encoder."),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, lora_name: str, strength_model: float, strength_clip: float
    ) -> io.NodeOutput:
        """Patch clones of both."""
        if strength_model == 0 and strength_clip == 0:
            return io.NodeOutput(model, clip)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        return io.NodeOutput(*lora.load_lora_file(model, clip, path, strength_model, strength_clip))


class LoraLoaderModelOnly(io.ComfyNode):
    """ComfyUI's Load LoRA for the model alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="LoraLoaderModelOnly",
            display_name="Load LoRA",
            category=CATEGORY,
            description="Changes a model by a LoRA; several can follow each other.",
            search_aliases=["lora", "load lora", "apply lora", "lora loader", "lora model"],
            inputs=[
                io.Model.Input("model", tooltip="The model; it is not changed."),
                _files("loras", "lora_name", "The file in models/loras."),
                _strength("strength_model", "How much the model changes; below 0 reverses the change."),
            ],
            outputs=[io.Model.Output(tooltip="The changed model.")],
        )

    @classmethod
    def execute(cls, model: Any, lora_name: str, strength_model: float) -> io.NodeOutput:
        """Patch a clone."""
        if strength_model == 0:
            return io.NodeOutput(model)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        return io.NodeOutput(lora.load_lora_file(model, None, path, strength_model, 0.0)[0])


NODES: list[type[io.ComfyNode]] = [
    CheckpointLoaderSimple,
    UNETLoader,
    DualCLIPLoader,
    VAELoader,
    CLIPVisionLoader,
    LoraLoader,
    LoraLoaderModelOnly,
]
