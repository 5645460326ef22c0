"""Chroma: Flux.1 schnell whose modulation is one small network for all blocks, with T5 alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...layouts.ldm_layout import Source, flux_sources, taken
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...text.clip import CLIP
from ...text.encoders import Chunks, T5TextEncoder
from ...text.loading import TextWeights, t5_encoder
from ...text.tokenizer import MultiTokenizer
from ..architectures import FLUX_HEAD_SIZE, FLUX_ROPE_AXES
from ..flux_transformer import FluxCalls, Options
from ..model_base import Conds, Flux, ModelType
from ..transformer_base import empty_module
from .base import Family, Sampling, TextKind, TextSource

MODULATIONS = 344
"""Shifts, scales and gates that the network gives: of all blocks of the published model, and of what is behind them."""

TIME, PLACE = 16, 32
"""Numbers that a time or the guidance, and the place of a modulation, are embedded in."""

APPROXIMATOR = "distilled_guidance_layer."
_MODULATED = ("norm1.linear.", "norm1_context.linear.", ".norm.linear.", "norm_out.linear.", "time_text_embed.")
_LAYER = {"linear_1": "in_layer", "linear_2": "out_layer"}


class Modulations(NamedTuple):
    """Rows (B, 344, D): 3 of a single block, 6 of a double block for images, 6 for texts; the last 2 are the end's."""

    rows: Tensor
    doubles: int
    singles: int

    def of(self, kind: str, index: int) -> Tensor:
        """Return the rows of a block, those of a double one for images and then for texts."""
        if kind == "final":
            return self.rows[:, -2:]
        if kind == "single":
            return self.rows[:, 3 * index : 3 * index + 3]
        image = 3 * self.singles + 6 * index
        text = image + 6 * self.doubles
        return torch.cat([self.rows[:, image : image + 6], self.rows[:, text : text + 6]], 1)


class ChromaCalls(FluxCalls):
    """How diffusers' ChromaTransformer2DModel is modulated and called."""

    def vectors(self, transformer: Any, timestep: Tensor, guidance: Tensor | None, y: Tensor | None) -> Modulations:
        """Return what modulates blocks, of a time 0..1 (B,) and guidance (B,), 0 in training."""
        guidance = torch.zeros_like(timestep) if guidance is None else guidance.expand(len(timestep))
        moment = torch.cat([_embedded(timestep, TIME), _embedded(guidance, TIME)], 1)
        places = _embedded(torch.arange(MODULATIONS, device=timestep.device), PLACE)
        rows = [moment[:, None].expand(-1, MODULATIONS, -1), places.expand(len(timestep), -1, -1)]
        found = transformer.distilled_guidance_layer(torch.cat(rows, -1).to(timestep.dtype))
        return Modulations(found, len(transformer.transformer_blocks), len(transformer.single_transformer_blocks))

    def vector(self, vectors: Any, kind: str, index: int = 0) -> Tensor:
        """Return the modulations of a block (B, 3 or 12 or 2, D)."""
        return vectors.of(kind, index)

    def double(self, block: Any, args: Options) -> tuple[Tensor, Tensor]:
        """Return the tokens of text (B, L, D) and image (B, N, D) behind a double block."""
        options = {"transformer_options": args.get("transformer_options")}
        return block(args["img"], args["txt"], args["vec"], args["pe"], joint_attention_kwargs=options)

    def single(self, block: Any, args: Options, text: int) -> Tensor:
        """Return the tokens of both (B, L + N, D) behind a single block."""
        options = {"transformer_options": args.get("transformer_options")}
        return block(args["img"], args["vec"], args["pe"], joint_attention_kwargs=options)


def _embedded(values: Tensor, size: int) -> Tensor:
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(1000 * values, size, flip_sin_to_cos=True, downscale_freq_shift=0)


class Chroma(Flux):
    """A diffusers ChromaTransformer2DModel."""

    calls = ChromaCalls()

    def encode_adm(self, **kwargs: Any) -> None:
        """Return None: there is no pooled text."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add `guidance` (1,), which the published model was trained with at 0.

        Raises:
            ValueError: a mask of the text, which its blocks do not take.
        """
        if kwargs.get("attention_mask_img_shape") is not None:
            raise ValueError("style models with a mask are not supported with Chroma here; use ComfyUI")
        return super().extra_conds(**{"guidance": 0.0, **kwargs})


class ChromaTextModel(nn.Module):
    """T5's embedding, without padding."""

    def __init__(self, t5xxl: T5TextEncoder) -> None:
        super().__init__()
        self.t5xxl = t5xxl
        t5xxl.ends_empty = False

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return text embedding (1, L, D)."""
        return self.t5xxl.encode_token_weights(tokens["t5xxl"], layer, projected)


def sources(keys: Collection[str]) -> dict[str, Source]:
    """Return original keys by diffusers' keys, for the keys of a diffusers transformer."""
    found = _blocks(keys, ("transformer_blocks.", "single_transformer_blocks."))
    return found | {key: Source(_original(key)) for key in keys if key.startswith(APPROXIMATOR)}


def _original(key: str) -> str:
    """Return what the original calls a weight of the network of modulations."""
    for ours, original in _LAYER.items():
        key = key.replace(f".{ours}.", f".{original}.")
    return key.replace(".weight", ".scale") if ".norms." in key else key


def convert(sd: StateDict) -> StateDict:
    """Return an original transformer (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: a tensor is missing, or it draws pixels.
    """
    if any(key.startswith("nerf_blocks.") for key in sd):
        raise ValueError("Chroma Radiance, which draws pixels, is not supported here; run it in ComfyUI")
    guide = {_renamed(key): tensor for key, tensor in sd.items() if key.startswith(APPROXIMATOR)}
    return taken(sd, _blocks(sd, ("double_blocks.", "single_blocks.")), "Chroma") | guide


def _renamed(key: str) -> str:
    """Return what diffusers calls a weight of the network of modulations."""
    for ours, original in _LAYER.items():
        key = key.replace(f".{original}.", f".{ours}.")
    return key.replace(".scale", ".weight")


def _blocks(keys: Collection[str], prefixes: tuple[str, str]) -> dict[str, Source]:
    """Return original keys of blocks and what is around them, all of which Flux has, too."""
    double, single = (count_blocks(keys, prefix) for prefix in prefixes)
    found = flux_sources(double, single, guidance=False)
    return {key: source for key, source in found.items() if not any(part in key for part in _MODULATED)}


def _detect(sd: StateDict) -> bool:
    return f"{APPROXIMATOR}in_proj.weight" in sd and "x_embedder.weight" in sd


def config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `ChromaTransformer2DModel` for weights in its layout."""
    width, channels = sd["x_embedder.weight"].shape
    hidden, inputs = sd[f"{APPROXIMATOR}in_proj.weight"].shape
    return {
        "in_channels": channels,
        "out_channels": sd["proj_out.weight"].shape[0],
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "num_single_layers": count_blocks(sd, "single_transformer_blocks."),
        "attention_head_dim": FLUX_HEAD_SIZE,
        "num_attention_heads": width // FLUX_HEAD_SIZE,
        "joint_attention_dim": sd["context_embedder.weight"].shape[1],
        "axes_dims_rope": list(FLUX_ROPE_AXES),
        "approximator_num_channels": inputs,
        "approximator_hidden_dim": hidden,
        "approximator_layers": count_blocks(sd, f"{APPROXIMATOR}layers."),
    }


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel

    module = empty_module(ChromaTransformer2DModel, given or config(sd))
    # Its modulations are computed here, so that guidance counts, too; its own buffer would be on no device.
    module.time_text_embed = nn.Identity()
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLUX, None


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    encoder, tokenizer = t5_encoder(parts["t5xxl"], source.tokenizer_folder("t5xxl"), source.directories, 1)
    return CLIP(ChromaTextModel(encoder), MultiTokenizer(t5xxl=tokenizer))


FAMILY = Family(
    name="Chroma",
    model=Chroma,
    detect=_detect,
    diffusers_class="ChromaTransformer2DModel",
    folder="transformer",
    build=_build,
    originals={f"{APPROXIMATOR}layers.0.in_layer.weight": convert},
    text=TextKind(("t5xxl",), ("chroma",), _text),
    sampling=_sampling,
    lora_sources=sources,
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"chroma(?!.*radiance)",
)
