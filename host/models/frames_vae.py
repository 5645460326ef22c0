"""VAEs of videos, which Qwen-Image uses for single images: diffusers' AutoencoderKLQwenImage, or in Wan's layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layouts.state_dicts import StateDict, fill
from ..runtime.running import make_patcher
from .vae import VAE

WAN = "decoder.middle.0.residual.0.gamma"
"""A key of Wan's own layout."""

MULTIPLES = (1, 2, 4, 4)


class FramesVAE(VAE):
    """A VAE of videos, for images as videos of one frame."""

    def __init__(self, first_stage_model: torch.nn.Module) -> None:
        self.first_stage_model: Any = first_stage_model
        self.patcher = make_patcher(first_stage_model)
        self.latent_channels: int = self.first_stage_model.config.z_dim
        self.latent_dim = 2
        self.output_channels = 3
        self.downscale_ratio = self.upscale_ratio = 2 ** (len(MULTIPLES) - 1)

    def _decode(self, samples: Tensor) -> Tensor:
        frames = samples.to(self.device, self.vae_dtype)[:, :, None]
        return self.first_stage_model.decode(frames).sample[:, :, 0].to("cpu", torch.float32)

    def _encode(self, pixels: Tensor) -> Tensor:
        frames = (pixels * 2.0 - 1.0).to(self.device, self.vae_dtype)[:, :, None]
        return self.first_stage_model.encode(frames).latent_dist.mode()[:, :, 0].to("cpu", torch.float32)


def is_frames_vae(sd: StateDict) -> bool:
    """Return whether weights are those of a VAE of videos."""
    first = sd.get("encoder.conv_in.weight")
    return WAN in sd or (first is not None and first.ndim == 5)


def frames_channels(sd: StateDict) -> int:
    """Return how many channels the latents of a VAE of videos have."""
    return sd["conv2.weight" if WAN in sd else "post_quant_conv.weight"].shape[0]


def build_frames_vae(sd: StateDict, dtype: torch.dtype) -> torch.nn.Module:
    """Return diffusers' `AutoencoderKLQwenImage` with weights in its layout or in Wan's."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

    if WAN in sd:
        sd = convert_wan_vae_to_diffusers(dict(sd))
    config = {
        "base_dim": sd["encoder.conv_in.weight"].shape[0],
        "z_dim": sd["post_quant_conv.weight"].shape[0],
        "dim_mult": list(MULTIPLES),
        "input_channels": sd["encoder.conv_in.weight"].shape[1],
    }
    with torch.device("meta"):
        module = AutoencoderKLQwenImage.from_config(config)
    return fill(module, sd, dtype, "the VAE")
