"""ComfyUI's core nodes that show images to a model: encoded, as tokens of a prompt, or beside the latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import folder_paths
from ..models.clip_vision import ClipVisionModel, ClipVisionOutput
from ..models.style_model import StyleModel, load_style_model
from ..sampling.conds import Conditioning, with_values
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, switch
from .vae import checked_vae, crop_to_multiple

NODES = Nodes("model/conditioning")
PIXELS_PER_LATENT = 8
BOTH = [
    io.Conditioning.Input("positive", tooltip="What the image should show."),
    io.Conditioning.Input("negative", tooltip="What it should not show."),
]
PAIR = [("positive", io.Conditioning), ("negative", io.Conditioning), ("latent", io.Latent)]
Made = tuple[Conditioning, Conditioning, dict[str, Any]]


@NODES(
    "CLIPVisionEncode",
    "CLIP Vision Encode",
    [
        io.ClipVision.Input("clip_vision"),
        io.Image.Input("image"),
        choice("crop", ["center", "none"], tooltip="Whether the middle square is seen, or all of it squeezed."),
    ],
    [io.ClipVisionOutput],
)
def encode(clip_vision: ClipVisionModel, image: Tensor, crop: str) -> ClipVisionOutput:
    """Encode images."""
    return clip_vision.encode_image(image, crop == "center")


@NODES(
    "unCLIPConditioning",
    "unCLIPConditioning",
    [
        io.Conditioning.Input("conditioning"),
        io.ClipVisionOutput.Input("clip_vision_output"),
        decimal("strength", 1.0, -10.0, 10.0),
        decimal("noise_augmentation", 0.0, 0.0, 1.0, tooltip="How little of the image is kept."),
    ],
    [io.Conditioning],
)
def unclip(
    conditioning: Conditioning, clip_vision_output: ClipVisionOutput, strength: float, noise_augmentation: float
) -> Conditioning:
    """Let an image guide an unCLIP model; several nodes in a row mix several images."""
    if strength == 0:
        return conditioning
    image = {
        "clip_vision_output": clip_vision_output,
        "strength": strength,
        "noise_augmentation": noise_augmentation,
    }
    return with_values(conditioning, append=True, unclip_conditioning=[image])


@NODES(
    "StyleModelLoader",
    "Load Style Model",
    lambda: [
        choice(
            "style_model_name",
            folder_paths.get_filename_list("style_models"),
            tooltip="The file in models/style_models.",
        )
    ],
    [io.StyleModel],
    "model/loaders",
)
def load_style(style_model_name: str) -> StyleModel:
    """Load what turns an encoded image into tokens of a prompt, such as Flux.1 Redux."""
    return load_style_model(folder_paths.get_full_path_or_raise("style_models", style_model_name))


@NODES(
    "StyleModelApply",
    "Apply Style Model",
    [
        io.Conditioning.Input("conditioning"),
        io.StyleModel.Input("style_model"),
        io.ClipVisionOutput.Input("clip_vision_output"),
        decimal("strength", 1.0, 0.0, 10.0, 0.001),
        choice("strength_type", ["multiply", "attn_bias"], tooltip="Whether tokens are scaled, or weigh less or more."),
    ],
    [io.Conditioning],
    search_aliases=["style transfer"],
)
def apply_style(
    conditioning: Conditioning,
    style_model: StyleModel,
    clip_vision_output: ClipVisionOutput,
    strength: float,
    strength_type: str,
) -> Conditioning:
    """Append an image to a prompt."""
    tokens = style_model.get_cond(clip_vision_output).flatten(0, 1)[None]
    biased = strength_type == "attn_bias"
    tokens = tokens if biased else tokens * strength
    bias = float(torch.tensor(strength if biased else 1.0).log())
    out: Conditioning = []
    for text, values in conditioning:
        changed = dict(values)
        if "attention_mask" in values or (biased and strength != 1.0):
            changed |= _weighed(text, values, tokens.shape[1], bias)
        out.append([torch.cat([text, tokens.to(text)], 1), changed])
    return out


def _weighed(text: Tensor, values: dict[str, Any], count: int, bias: float) -> dict[str, Any]:
    """Return the mask of text, new tokens and image, in which the new ones weigh `bias` to all others."""
    size = values.get("attention_mask_img_shape", (1, 1))
    length, image = text.shape[1], size[0] * size[1]
    mask = values.get("attention_mask")
    if mask is None:
        mask = torch.zeros(text.shape[0], length + image, length + image, dtype=torch.float16)
    if mask.dtype == torch.bool:
        mask = mask.half().log()
    old = torch.tensor([*range(length), *range(length + count, length + count + image)])
    total = length + count + image
    made = torch.zeros(text.shape[0], total, total, dtype=torch.float16)
    made[:, old[:, None], old] = mask.half()
    made[:, old, length : length + count] = bias
    return {"attention_mask": made, "attention_mask_img_shape": size}


@NODES(
    "InpaintModelConditioning",
    "InpaintModelConditioning",
    [
        *BOTH,
        io.Vae.Input("vae"),
        io.Image.Input("pixels", tooltip="The image."),
        io.Mask.Input("mask", tooltip="White where the image is repainted."),
        switch("noise_mask", True, tooltip="Whether the rest is kept exactly."),
    ],
    PAIR,
)
def inpaint(
    positive: Conditioning, negative: Conditioning, pixels: Tensor, vae: Any, mask: Tensor, noise_mask: bool = True
) -> Made:
    """Give an inpainting model the image without its masked part."""
    mask = F.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=pixels.shape[1:3], mode="bilinear")
    mask = crop_to_multiple(mask, PIXELS_PER_LATENT)
    cropped = crop_to_multiple(pixels.movedim(-1, 1), PIXELS_PER_LATENT).movedim(1, -1)
    kept = (1.0 - mask.round()).movedim(1, -1)
    colors = (cropped[..., :3] - 0.5) * kept + 0.5
    shown = checked_vae(vae).encode(torch.cat([colors, cropped[..., 3:]], -1))
    latent = {"samples": vae.encode(pixels), **({"noise_mask": mask} if noise_mask else {})}
    one, two = (with_values(each, concat_latent_image=shown, concat_mask=mask) for each in (positive, negative))
    return one, two, latent


@NODES(
    "InstructPixToPixConditioning",
    "InstructPixToPixConditioning",
    [*BOTH, io.Vae.Input("vae"), io.Image.Input("pixels", tooltip="The image to edit.")],
    PAIR,
    "model/conditioning/instructpix2pix",
)
def edit(positive: Conditioning, negative: Conditioning, pixels: Tensor, vae: Any) -> Made:
    """Give an edit model the image to edit."""
    shown = checked_vae(vae).encode(crop_to_multiple(pixels.movedim(-1, 1), PIXELS_PER_LATENT).movedim(1, -1))
    one, two = (with_values(each, concat_latent_image=shown) for each in (positive, negative))
    return one, two, {"samples": torch.zeros_like(shown)}
