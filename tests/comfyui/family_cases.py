"""Small random denoisers of each family, in the files that ComfyUI's users have, and how they are sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tiny_models as tiny
import torch
from tessera.host.layouts.ldm_layout import Source, flux_sources, joined
from tessera.host.layouts.sd3_layout import sd3_sources
from tessera.host.models.families import FAMILIES
from tiny_models import StateDict

FAMILIES_BY_NAME = {family.name: family for family in FAMILIES}
SIDE = 16
"""Latents along a side."""

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 320],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD2 = UNET | {"cross_attention_dim": 1024, "attention_head_dim": 5, "use_linear_projection": True}
LOTUS = SD2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
UNCLIP = SD2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
SD2_DEEP = SD2 | {
    "block_out_channels": [320, 320, 320, 320],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SIZED = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
}
SSD1B = SIZED | {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 320, 320],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 2048,
    "attention_head_dim": 5,
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "projection_class_embeddings_input_dim": 2816,
}
KOALA = SSD1B | {
    "layers_per_block": 1,
    "mid_block_type": None,
    "transformer_layers_per_block": [1, 2, 5],
    "reverse_transformer_layers_per_block": [5, 2, 1],
}
REFINER = SIZED | {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [384, 384, 384, 384],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 1280,
    "attention_head_dim": 6,
    "transformer_layers_per_block": 4,
    "projection_class_embeddings_input_dim": 2560,
}


@dataclass(frozen=True)
class Case:
    """A denoiser and how it is sampled.

    `weights`: in the layout of its file. `context`: width of the text. `pooled`: width of the pooled text, 0 for none.
    `channels`: of latents. `values`: more of the conditioning, made with a generator. `cfg`: guidance scale.
    `frames`: whether ComfyUI's latents are those of a video.
    """

    weights: Callable[[], StateDict]
    context: int
    pooled: int = 0
    channels: int = 4
    values: Callable[[torch.Generator], dict[str, Any]] = field(default=lambda generator: {})
    cfg: float = 4.0
    scheduler: str = "normal"
    length: int = 77
    frames: bool = False


def unet(config: dict[str, Any]) -> Callable[[], StateDict]:
    return lambda: tiny.original_unet(tiny.unet_weights(config))


def _inpainting(generator: torch.Generator) -> dict[str, Any]:
    image = torch.randn(1, 4, SIDE, SIDE, generator=generator)
    return {"concat_latent_image": image, "concat_mask": torch.rand(1, 1, 8 * SIDE, 8 * SIDE, generator=generator)}


def _editing(generator: torch.Generator) -> dict[str, Any]:
    return {"concat_latent_image": torch.randn(1, 4, SIDE // 2, SIDE, generator=generator)}


def _encoded(generator: torch.Generator) -> dict[str, Any]:
    output = SimpleNamespace(image_embeds=torch.randn(1, 1024, generator=generator))
    return {"unclip_conditioning": [{"clip_vision_output": output, "strength": 0.8, "noise_augmentation": 0.3}]}


def flux(channels: int) -> Callable[[], StateDict]:
    def make() -> StateDict:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        config = tiny.FLUX | {"in_channels": 4 * channels, "out_channels": 64}
        weights = tiny.random_weights(FluxTransformer2DModel.from_config(config), 2)
        return original(weights, flux_sources(1, 2, guidance=True))

    return make


def scaled(make: Callable[[], StateDict], factors: bool) -> Callable[[], StateDict]:
    """The matrices of blocks in float8, with a factor each or as they are."""

    def eighths() -> StateDict:
        made: StateDict = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)} if factors else {}
        for key, tensor in make().items():
            if "_blocks." not in key or tensor.ndim < 2:
                made[key] = tensor
                continue
            factor = tensor.abs().max() / 448 if factors else torch.ones(())
            made[key] = (tensor / factor).to(torch.float8_e4m3fn)
            if factors:
                made[key.replace(".weight", ".scale_weight")] = factor.reshape(1)
        return made

    return eighths


def _seen(masked: bool) -> Callable[[torch.Generator], dict[str, Any]]:
    def values(generator: torch.Generator) -> dict[str, Any]:
        image = torch.randn(1, 16, SIDE, SIDE, generator=generator)
        mask = torch.rand(1, 1, 8 * SIDE, 8 * SIDE, generator=generator)
        return {"concat_latent_image": image, **({"concat_mask": mask} if masked else {}), "guidance": 30.0}

    return values


def _references(method: str | None) -> Callable[[torch.Generator], dict[str, Any]]:
    def values(generator: torch.Generator) -> dict[str, Any]:
        sizes = ((SIDE, SIDE // 2), (6, 9), (SIDE, SIDE))
        shown = [torch.randn(1, 16, *size, generator=generator) for size in sizes]
        return {"reference_latents": shown, **({"reference_latents_method": method} if method else {})}

    return values


def _weighed(generator: torch.Generator) -> dict[str, Any]:
    mask = torch.zeros(1, 78, 78, dtype=torch.float16)
    mask[:, :50, 50:77] = mask[:, 77:, 50:77] = -1.5
    return {"attention_mask": mask, "attention_mask_img_shape": (1, 1)}


def original(weights: StateDict, sources: dict[str, Source]) -> StateDict:
    """Weights of diffusers in the original layout."""
    parts: dict[str, list[tuple[Source, torch.Tensor]]] = {}
    for key, source in sources.items():
        parts.setdefault(source.key, []).append((source, weights[key]))
    return {key: joined(found) for key, found in parts.items()}


def sd3(dual: tuple[int, ...], normed: bool) -> Callable[[], StateDict]:
    def make() -> StateDict:
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        config = {"num_layers": 2, "num_attention_heads": 2, "caption_projection_dim": 128, "joint_attention_dim": 64}
        config |= {"pooled_projection_dim": 32, "pos_embed_max_size": 16, "dual_attention_layers": dual}
        module = SD3Transformer2DModel.from_config(config | {"qk_norm": "rms_norm" if normed else None})
        return original(tiny.random_weights(module), sd3_sources(2, set(dual), normed))

    return make


def flux2(guided: bool = False) -> StateDict:
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    config = {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 48}
    weights = tiny.random_weights(Flux2Transformer2DModel.from_config(config | {"guidance_embeds": guided}))
    return original(weights, dict(FAMILIES_BY_NAME["Flux.2"].lora_sources(set(weights))))


def chroma() -> StateDict:
    from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel

    config = {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 48}
    config |= {"approximator_hidden_dim": 64, "approximator_layers": 2}
    weights = tiny.random_weights(ChromaTransformer2DModel.from_config(config))
    return original(weights, dict(FAMILIES_BY_NAME["Chroma"].lora_sources(set(weights))))


def _pages(method: str | None) -> Callable[[torch.Generator], dict[str, Any]]:
    def values(generator: torch.Generator) -> dict[str, Any]:
        shown = [torch.randn(1, 128, *size, generator=generator) for size in ((SIDE, SIDE // 2), (6, 9))]
        return {"reference_latents": shown, **({"reference_latents_method": method} if method else {})}

    return values


def _beside(generator: torch.Generator) -> dict[str, Any]:
    shown = [torch.randn(1, 16, *size, generator=generator) for size in ((2 * SIDE + 2, SIDE // 2), (6, 9))]
    return {"reference_latents": shown}


def _without_noise(generator: torch.Generator) -> dict[str, Any]:
    return {**_beside(generator), "reference_latents_method": "index_timestep_zero"}


def qwen_image_2511() -> StateDict:
    return qwen_image() | {"__index_timestep_zero__": torch.zeros(0)}


def qwen_image() -> StateDict:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    config = {"num_layers": 2, "num_attention_heads": 2, "joint_attention_dim": 48}
    return tiny.random_weights(QwenImageTransformer2DModel.from_config(config))


def z_image(heads: int = 9) -> StateDict:
    """ComfyUI takes Z-Image of some widths for another model."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    config = {"dim": 128 * heads, "n_layers": 2, "n_refiner_layers": 2, "n_heads": heads, "n_kv_heads": heads}
    axes = {"axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "cap_feat_dim": 64}
    weights = tiny.random_weights(ZImageTransformer2DModel.from_config(config | axes))
    return original(weights, dict(FAMILIES_BY_NAME["Z-Image"].lora_sources(set(weights))))


CASES = {
    "sd15": Case(unet(UNET), 768),
    "sd15-wide": Case(unet(UNET | {"block_out_channels": [320, 640]}), 768),
    "sd15-inpainting": Case(unet(UNET | {"in_channels": 9}), 768, values=_inpainting),
    "sd15-inpainting-blank": Case(unet(UNET | {"in_channels": 9}), 768),
    "sd15-edit": Case(unet(UNET | {"in_channels": 8}), 768, values=_editing),
    "sd2": Case(unet(SD2), 1024),
    "sd2-v": Case(unet(SD2_DEEP), 1024),
    "sd2-inpainting": Case(unet(SD2 | {"in_channels": 9}), 1024, values=_inpainting),
    "ssd-1b": Case(unet(SSD1B), 2048, 1280),
    "koala": Case(unet(KOALA), 2048, 1280),
    "sdxl-refiner": Case(unet(REFINER), 1280, 1280, values=lambda generator: {"aesthetic_score": 5.0, "width": 512}),
    "sd2-unclip": Case(unet(UNCLIP), 1024, values=_encoded),
    "sd2-unclip-none": Case(unet(UNCLIP), 1024),
    "lotus": Case(unet(LOTUS), 1024, cfg=1.0),
    "flux": Case(flux(16), 32, 64, 16, cfg=1.5, scheduler="simple"),
    "flux-fp8": Case(scaled(flux(16), False), 32, 64, 16, cfg=1.5, scheduler="simple"),
    "flux-fp8-scaled": Case(scaled(flux(16), True), 32, 64, 16, cfg=1.5, scheduler="simple"),
    "flux-fill": Case(flux(96), 32, 64, 16, _seen(True), 1.5, "simple"),
    "flux-depth": Case(flux(32), 32, 64, 16, _seen(False), 1.5, "simple"),
    "flux-control": Case(flux(16), 32, 64, 16, _seen(False), 1.5, "simple"),
    "flux-kontext": Case(flux(16), 32, 64, 16, _references(None), 1.5, "simple"),
    "flux-kontext-index": Case(flux(16), 32, 64, 16, _references("index"), 1.5, "simple"),
    "flux-kontext-uxo": Case(flux(16), 32, 64, 16, _references("uxo"), 1.5, "simple"),
    "flux-redux": Case(flux(16), 32, 64, 16, _weighed, 1.5, "simple"),
    "sd3": Case(sd3((), False), 64, 32, 16, scheduler="simple"),
    "z-image": Case(z_image, 64, 0, 16, cfg=1.5, scheduler="simple"),
    "z-image-short": Case(z_image, 64, 0, 16, cfg=1.5, scheduler="simple", length=9),
    "chroma": Case(chroma, 48, 0, 16, cfg=3.0, scheduler="simple"),
    "chroma-guided": Case(chroma, 48, 0, 16, lambda generator: {"guidance": 2.0}, 3.0, "simple", 9),
    "flux2": Case(flux2, 48, 0, 128, cfg=1.5, scheduler="simple"),
    "flux2-dev": Case(partial(flux2, True), 48, 0, 128, lambda generator: {"guidance": 2.5}, 1.0, "simple"),
    "flux2-edit": Case(flux2, 48, 0, 128, _pages(None), 1.5, "simple", 512),
    "flux2-without-noise": Case(flux2, 48, 0, 128, _pages("index_timestep_zero"), 1.5, "simple", 512),
    "flux2-offset": Case(flux2, 48, 0, 128, _pages("offset"), 1.5, "simple", 512),
    "qwen-image-reference": Case(qwen_image, 48, 0, 16, _beside, 1.5, "simple", frames=True),
    "qwen-image-without-noise": Case(qwen_image, 48, 0, 16, _without_noise, 1.5, "simple", frames=True),
    "qwen-image-2511": Case(qwen_image_2511, 48, 0, 16, _beside, 1.5, "simple", frames=True),
    "qwen-image": Case(qwen_image, 48, 0, 16, cfg=1.5, scheduler="simple", frames=True),
    "sd35": Case(sd3((0,), True), 64, 32, 16, scheduler="simple"),
    "sd35-large": Case(sd3((), True), 64, 32, 16, scheduler="simple"),
}


def write(folder: Path, names: list[str]) -> None:
    """Write the files of some cases."""
    for name in names:
        tiny.save(folder / f"{name}.safetensors", CASES[name].weights())


def prompts(case: Case) -> tuple[list[list[Any]], list[list[Any]], torch.Tensor]:
    """A positive and a negative conditioning, and noise; the same ones at every call."""
    generator = torch.Generator().manual_seed(5)
    values = case.values(generator)
    made = []
    for _ in range(2):
        pooled = {"pooled_output": torch.randn(1, case.pooled, generator=generator)} if case.pooled else {}
        made.append([[torch.randn(1, case.length, case.context, generator=generator), {**values, **pooled}]])
    noise = torch.randn(1, case.channels, SIDE, SIDE, generator=generator)
    return made[0], made[1], noise
