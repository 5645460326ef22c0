"""Image encoders (drop-in replacement for `comfy.clip_vision`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layouts.ldm_layout import convert_openclip_vision
from ..layouts.state_dicts import StateDict, name_keys
from ..runtime import devices
from ..runtime.running import make_patcher, running
from .architectures import build_clip_vision, build_siglip

Colour = tuple[float, float, float]
MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
STD: Colour = (0.26862954, 0.26130258, 0.27577711)
HALVES: Colour = (0.5, 0.5, 0.5)
"""Mean and deviation of SigLIP's images."""
SIGLIP = "vision_model.embeddings.patch_embedding.bias"
"""A weight that SigLIP's image encoders have and CLIP's have not."""


class ClipVisionOutput:
    """What an image encoder says of images: `image_embeds` (B, P), `last_hidden_state` and
    `penultimate_hidden_states` (B, 1 + patches, D), all on the CPU."""

    def __init__(self, image_embeds: Tensor, last_hidden_state: Tensor, penultimate_hidden_states: Tensor) -> None:
        self.image_embeds = image_embeds
        self.last_hidden_state = last_hidden_state
        self.penultimate_hidden_states = penultimate_hidden_states

    def __getitem__(self, key: str) -> Tensor:
        return getattr(self, key)


class ClipVisionModel:
    """CLIP's image encoder (transformers' `CLIPVisionModelWithProjection`), or SigLIP's.

    Args:
        model: the network.
        mean: of the colours that it was trained with.
        std: deviation of these colours.
    """

    def __init__(self, model: torch.nn.Module, mean: Colour = MEAN, std: Colour = STD) -> None:
        self.model: Any = model
        self.image_mean, self.image_std = mean, std
        self.patcher = make_patcher(model)
        self.load_device = self.patcher.load_device
        self.image_size: int = self.model.config.image_size

    def encode_image(self, image: Tensor, crop: bool = True) -> ClipVisionOutput:
        """Encode images (B, H, W, C) in 0..1.

        Args:
            image: cropped to their middle square, or squeezed into a square when `crop` is false.
        """
        pixels = clip_preprocess(image.to(self.load_device), self.image_size, crop, self.image_mean, self.image_std)
        with running(self.patcher), torch.no_grad():
            out = self.model(pixel_values=pixels.to(self.model.dtype), output_hidden_states=True)
        found = (out.image_embeds, out.last_hidden_state, out.hidden_states[-2])
        return ClipVisionOutput(*(tensor.float().cpu() for tensor in found))


def clip_preprocess(
    image: Tensor, size: int = 224, crop: bool = True, mean: Colour = MEAN, std: Colour = STD
) -> Tensor:
    """Return images (B, H, W, C) in 0..1 as CLIP takes them: (B, 3, size, size), rounded to 8 bits and normed."""
    pixels = image[..., :3].movedim(-1, 1)
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        shape = (round(scale * height), round(scale * width)) if crop else (size, size)
        pixels = F.interpolate(pixels, shape, mode="bicubic", antialias=True)
        top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
        pixels = pixels[:, :, top : top + size, left : left + size]
    pixels = (255.0 * pixels).clip(0, 255).round() / 255.0
    middle, spread = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (mean, std))
    return (pixels - middle) / spread


def make_clip_vision(sd: StateDict, config: dict[str, Any] | None = None) -> ClipVisionModel:
    """Return the CLIP_VISION of weights in OpenCLIP's or Hugging Face's layout.

    Raises:
        ValueError: they hold no image encoder of CLIP or SigLIP.
    """
    if SIGLIP in sd and "visual_projection.weight" not in sd:
        kept = {k: t for k, t in sd.items() if k.startswith("vision_model.") and not k.startswith("vision_model.head.")}
        return ClipVisionModel(build_siglip(kept, devices.text_encoder_dtype()), HALVES, HALVES)
    if "visual.transformer.resblocks.0.attn.in_proj_weight" in sd:
        sd = convert_openclip_vision(sd)
    kept = {key: t for key, t in sd.items() if key.startswith(("vision_model.", "visual_projection."))}
    if not {"vision_model.embeddings.patch_embedding.weight", "visual_projection.weight"} <= set(kept):
        raise ValueError(
            f"no image encoder of CLIP: it has {name_keys(sd)}, expected vision_model.* and visual_projection"
        )
    return ClipVisionModel(build_clip_vision(kept, devices.text_encoder_dtype(), config))
