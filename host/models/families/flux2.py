"""Flux.2 dev, whose text encoder is Mistral, and klein, which reads Qwen3."""

from __future__ import annotations

import re
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from ...layouts.ldm_layout import Source, taken
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...sampling.conds import CONDConstant, CONDList, CONDRegular
from ...text.clip import CLIP
from ...text.loading import MISTRAL, TextWeights, mistral_clip, qwen3_clip
from .. import latent_formats
from ..flux_transformer import (
    PATCHES,
    REPLACED,
    FluxCalls,
    HookedAttention,
    HookedParallelAttention,
    Options,
    block_keywords,
    forward_flux,
)
from ..model_base import Conds, ModelType
from ..references import WITHOUT_NOISE, places
from ..transformer_base import TransformerModel, empty_module
from .base import Family, Sampling, TextKind, TextSource

HEAD_SIZE = 128
SHIFT = {"shift": 2.02}
INDEX_STEP = 10.0
"""From one reference image to the next, along the first axis of positions."""

TEXT_LENGTH, PAD = 512, 151643
ENCODERS = (MISTRAL, "qwen3_4b", "qwen3_8b")
LAYERS, MISTRAL_LAYERS = (9, 18, 27), (10, 20, 30)
MISTRAL_TEMPLATE = (
    "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
    "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]{}[/INST]"
)
"""The instruction that the model was trained with."""

TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_QKV = (1, 1, 1)
_TOP = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "proj_out": "final_layer.linear",
}
_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_FUSED = {
    **{f"attn.to_{part}": ("img_attn.qkv", place) for place, part in enumerate("qkv")},
    **{f"attn.add_{part}_proj": ("txt_attn.qkv", place) for place, part in enumerate("qkv")},
}
_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}
_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)\.weight")


class Flux2Latents(latent_formats.LatentFormat):
    """Flux.2, whose VAE scales its latents itself."""

    latent_channels = 128
    spacial_downscale_ratio = 16


class Flux2Calls(FluxCalls):
    """How diffusers' Flux2Transformer2DModel, whose blocks of a kind share one modulation, is modulated and called.

    Args:
        noisy: how many tokens of the image are as noisy as the time says, while those behind them have no noise; all
            are by default.
    """

    def __init__(self, noisy: int | None = None) -> None:
        self.noisy = noisy

    def vectors(self, transformer: Any, timestep: Tensor, guidance: Tensor | None, y: Tensor | None) -> dict[str, Any]:
        """Return what modulates blocks of each kind, of a time 0..1 (B,) and guidance (B,)."""
        given = None if guidance is None or not transformer.config.guidance_embeds else 1000 * guidance
        times = (timestep,) if self.noisy is None else (timestep, 0 * timestep)
        embedded = [transformer.time_guidance_embed(1000 * time, given) for time in times]
        image, single = (
            tuple(modulation(each) for each in embedded)
            for modulation in (transformer.double_stream_modulation_img, transformer.single_stream_modulation)
        )
        text = transformer.double_stream_modulation_txt(embedded[0])
        return {"double": (image, text), "single": single, "final": embedded[0]}

    def vector(self, vectors: Any, kind: str, index: int = 0) -> Any:
        """Return what modulates the blocks of a kind, those of two streams with a pair."""
        return vectors[kind]

    def double(self, block: Any, args: Options) -> tuple[Tensor, Tensor]:
        """Return the tokens of text (B, L, D) and image (B, N, D) behind a double block."""
        image, text = args["vec"]
        rows = self._rows(image, args["img"].shape[1], 0)
        return block(args["img"], args["txt"], rows, text, args["pe"], block_keywords(args))

    def single(self, block: Any, args: Options, text: int) -> Tensor:
        """Return the tokens of both (B, L + N, D) behind a single block."""
        rows = self._rows(args["vec"], args["img"].shape[1], text)
        return block(args["img"], None, rows, args["pe"], block_keywords(args))

    def _rows(self, modulations: tuple[Any, ...], tokens: int, before: int) -> Any:
        """Return the modulation of all tokens, or one for each where references are without noise."""
        if self.noisy is None:
            return modulations[0]
        first = min(tokens, before + self.noisy)
        return _spread(modulations, first, tokens - first)


def _spread(pair: tuple[Any, ...], first: int, rest: int) -> Any:
    """Return a modulation (B, N, D) of so many tokens after the first of a pair, and of the rest after the second."""
    if isinstance(pair[0], tuple):
        return tuple(_spread(inner, first, rest) for inner in zip(*pair, strict=True))
    rows = (each if each.ndim == 3 else each[:, None] for each in pair)
    return torch.cat([each.expand(-1, count, -1) for each, count in zip(rows, (first, rest), strict=True)], 1)


class Flux2(TransformerModel):
    """A diffusers Flux2Transformer2DModel, with images to edit as more tokens."""

    default_type = ModelType.FLUX
    default_latent_format = Flux2Latents
    patch = 1
    patches, replaced = frozenset(PATCHES), frozenset(REPLACED)
    default_ref_method = "index"

    def __init__(self, diffusion_model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(diffusion_model, *args, **kwargs)
        for block in diffusion_model.transformer_blocks:
            block.attn.set_processor(HookedAttention())
        for block in diffusion_model.single_transformer_blocks:
            block.attn.set_processor(HookedParallelAttention())

    def encode_adm(self, **kwargs: Any) -> None:
        """Return None: there is no pooled text."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add `guidance` (1,) of distillation, and the images to edit; text has at least 512 tokens."""
        out = super().extra_conds(**{**kwargs, "attention_mask": None})
        if kwargs.get("cross_attn") is not None:
            missing = max(0, TEXT_LENGTH - kwargs["cross_attn"].shape[1])
            out["c_crossattn"] = CONDRegular(F.pad(kwargs["cross_attn"], (0, 0, missing, 0)))
        guidance = kwargs.get("guidance", 3.5)
        if guidance is not None:
            out["guidance"] = CONDRegular(torch.tensor([float(guidance)]))
        if kwargs.get("reference_latents") is not None:
            out["ref_latents"] = CONDList([self.process_latent_in(each) for each in kwargs["reference_latents"]])
        if kwargs.get("reference_latents_method") is not None:
            out["ref_latents_method"] = CONDConstant(kwargs["reference_latents_method"])
        return out

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1 (B,), context (B, L, D) -> (B, C, H, W)."""
        height, width = x.shape[2:]
        images, method = [x, *(conds.get("ref_latents") or [])], conds.get("ref_latents_method")
        method = method or self.default_ref_method
        clear, method = method == WITHOUT_NOISE, "index" if method == WITHOUT_NOISE else method
        where = places([(each.shape[2], each.shape[3]) for each in images[1:]], height, width, method, INDEX_STEP)
        tokens = [rearrange(each.to(x), "b c h w -> b (h w) c") for each in images]
        ids = [_positions(each, *place) for each, place in zip(images, [(0.0, 0, 0), *where], strict=True)]
        text_ids = torch.zeros(context.shape[1], 4, device=x.device)
        text_ids[:, 3] = torch.arange(context.shape[1], device=x.device)
        options = {**(conds.get("transformer_options") or {})}
        options["reference_image_num_tokens"] = [each.shape[1] for each in tokens[1:]]
        found = forward_flux(
            self.diffusion_model,
            Flux2Calls(height * width if clear and where else None),
            torch.cat(tokens, 1),
            torch.cat(ids),
            context,
            timestep,
            None,
            conds.get("guidance"),
            None,
            None,
            options,
            text_ids,
        )
        return rearrange(found[:, : height * width], "b (h w) c -> b c h w", h=height)


def _positions(image: Tensor, index: float, top: int, left: int) -> Tensor:
    """Return the positions (H W, 4) of an image's tokens: index, row, column, and the place of text."""
    height, width = image.shape[2:]
    ids = torch.zeros(height, width, 4, device=image.device)
    ids[..., 0] = index
    ids[..., 1] = torch.arange(top, top + height, device=image.device)[:, None]
    ids[..., 2] = torch.arange(left, left + width, device=image.device)
    return ids.flatten(0, 1)


def source(key: str) -> Source:
    """Return the original's name of a weight of diffusers."""
    if key == "norm_out.linear.weight":
        return Source("final_layer.adaLN_modulation.1.weight", swap=True)
    match = _BLOCK.fullmatch(key)
    if match is None:
        return Source(f"{_TOP[key.removesuffix('.weight')]}.weight")
    single, number, name = match.groups()
    prefix = f"{'single' if single else 'double'}_blocks.{number}."
    if not single and name in _FUSED:
        fused, place = _FUSED[name]
        return Source(f"{prefix}{fused}.weight", place, _QKV)
    norms, linears = (_SINGLE_NORMS, _SINGLE) if single else (_NORMS, _DOUBLE)
    return Source(f"{prefix}{norms[name]}.scale" if name in norms else f"{prefix}{linears[name]}.weight")


def convert(sd: StateDict) -> StateDict:
    """Return an original transformer (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: a tensor is missing.
    """
    names = [f"{name}.weight" for name in _TOP if f"{_TOP[name]}.weight" in sd] + ["norm_out.linear.weight"]
    for number in range(count_blocks(sd, "double_blocks.")):
        names += [f"transformer_blocks.{number}.{name}.weight" for name in (*_DOUBLE, *_FUSED, *_NORMS)]
    for number in range(count_blocks(sd, "single_blocks.")):
        names += [f"single_transformer_blocks.{number}.{name}.weight" for name in (*_SINGLE, *_SINGLE_NORMS)]
    return taken(sd, {name: source(name) for name in names}, "Flux.2")


def _detect(sd: StateDict) -> bool:
    return "double_stream_modulation_img.linear.weight" in sd


def config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `Flux2Transformer2DModel` for weights in its layout."""
    width, channels = sd["x_embedder.weight"].shape
    return {
        "in_channels": channels,
        "out_channels": sd["proj_out.weight"].shape[0],
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "num_single_layers": count_blocks(sd, "single_transformer_blocks."),
        "attention_head_dim": HEAD_SIZE,
        "num_attention_heads": width // HEAD_SIZE,
        "joint_attention_dim": sd["context_embedder.weight"].shape[1],
        "guidance_embeds": "time_guidance_embed.guidance_embedder.linear_1.weight" in sd,
    }


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    module = empty_module(Flux2Transformer2DModel, given or config(sd))
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLUX, SHIFT


def _text(parts: dict[str, TextWeights], given: TextSource) -> CLIP:
    ((role, text),) = parts.items()
    if text.kind == MISTRAL:
        return mistral_clip(text, given.tokenizer_folder(role), MISTRAL_TEMPLATE, MISTRAL_LAYERS)
    return qwen3_clip(text, given.tokenizer_folder(role), text.kind, TEMPLATE, LAYERS, TEXT_LENGTH, PAD)


FAMILY = Family(
    name="Flux.2",
    model=Flux2,
    detect=_detect,
    diffusers_class="Flux2Transformer2DModel",
    folder="transformer",
    build=_build,
    originals={"double_stream_modulation_img.lin.weight": convert},
    text=TextKind(ENCODERS, ("flux2",), _text, optional=ENCODERS),
    sampling=_sampling,
    lora_sources=lambda keys: {key: source(key) for key in keys},
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"flux[-_.]?2",
)
