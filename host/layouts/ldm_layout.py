"""Names of weights in original checkpoints of Flux and of text encoders, and in those of diffusers and transformers.

The tables serve both the loading of checkpoints and the LoRAs that were trained on the original layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from .state_dicts import StateDict, count_blocks, with_prefix


class Source(NamedTuple):
    """Which rows of which original tensor a diffusers tensor is.

    `part` of the tensor `key`, whose rows are divided in the ratio `sizes`; `swap`: the two halves change places.
    """

    key: str
    part: int = 0
    sizes: tuple[int, ...] = (1,)
    swap: bool = False

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the rows, of a tensor whose first axis is the original's."""
        unit = tensor.shape[0] // sum(self.sizes)
        rows = tensor.narrow(0, unit * sum(self.sizes[: self.part]), unit * self.sizes[self.part])
        return torch.cat(rows.chunk(2)[::-1]) if self.swap else rows


def joined(parts: Iterable[tuple[Source, torch.Tensor]]) -> torch.Tensor:
    """Return an original tensor of all that were taken from it, in any order."""
    rows = [torch.cat(rows.chunk(2)[::-1]) if source.swap else rows for source, rows in sorted(parts, key=_place)]
    return torch.cat(rows)


def _place(taken_from: tuple[Source, torch.Tensor]) -> int:
    return taken_from[0].part


# Flux

_QKV = (1, 1, 1)
_LINEAR1 = (1, 1, 1, 4)
"""Query, key, value and the four times wider MLP."""

_FLUX_DOUBLE = {
    "norm1.linear": Source("img_mod.lin"),
    "norm1_context.linear": Source("txt_mod.lin"),
    "attn.to_q": Source("img_attn.qkv", 0, _QKV),
    "attn.to_k": Source("img_attn.qkv", 1, _QKV),
    "attn.to_v": Source("img_attn.qkv", 2, _QKV),
    "attn.add_q_proj": Source("txt_attn.qkv", 0, _QKV),
    "attn.add_k_proj": Source("txt_attn.qkv", 1, _QKV),
    "attn.add_v_proj": Source("txt_attn.qkv", 2, _QKV),
    "attn.to_out.0": Source("img_attn.proj"),
    "attn.to_add_out": Source("txt_attn.proj"),
    "ff.net.0.proj": Source("img_mlp.0"),
    "ff.net.2": Source("img_mlp.2"),
    "ff_context.net.0.proj": Source("txt_mlp.0"),
    "ff_context.net.2": Source("txt_mlp.2"),
}
_FLUX_DOUBLE_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_FLUX_SINGLE = {
    "norm.linear": Source("modulation.lin"),
    "attn.to_q": Source("linear1", 0, _LINEAR1),
    "attn.to_k": Source("linear1", 1, _LINEAR1),
    "attn.to_v": Source("linear1", 2, _LINEAR1),
    "proj_mlp": Source("linear1", 3, _LINEAR1),
    "proj_out": Source("linear2"),
}
_FLUX_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}
_FLUX_TOP = {
    "time_text_embed.timestep_embedder.linear_1": Source("time_in.in_layer"),
    "time_text_embed.timestep_embedder.linear_2": Source("time_in.out_layer"),
    "time_text_embed.text_embedder.linear_1": Source("vector_in.in_layer"),
    "time_text_embed.text_embedder.linear_2": Source("vector_in.out_layer"),
    "time_text_embed.guidance_embedder.linear_1": Source("guidance_in.in_layer"),
    "time_text_embed.guidance_embedder.linear_2": Source("guidance_in.out_layer"),
    "context_embedder": Source("txt_in"),
    "x_embedder": Source("img_in"),
    "proj_out": Source("final_layer.linear"),
    "norm_out.linear": Source("final_layer.adaLN_modulation.1", swap=True),
}


def flux_sources(double: int, single: int, guidance: bool) -> dict[str, Source]:
    """Return original keys by diffusers' keys, for a Flux transformer of so many double and single blocks."""
    top = {k: s for k, s in _FLUX_TOP.items() if guidance or "guidance" not in k}
    linears = {"": ("", top)}
    linears |= {f"transformer_blocks.{i}.": (f"double_blocks.{i}.", _FLUX_DOUBLE) for i in range(double)}
    linears |= {f"single_transformer_blocks.{i}.": (f"single_blocks.{i}.", _FLUX_SINGLE) for i in range(single)}
    norms = {f"transformer_blocks.{i}.": (f"double_blocks.{i}.", _FLUX_DOUBLE_NORMS) for i in range(double)}
    norms |= {f"single_transformer_blocks.{i}.": (f"single_blocks.{i}.", _FLUX_SINGLE_NORMS) for i in range(single)}
    sources = {
        f"{to}{name}.{kind}": source._replace(key=f"{prefix}{source.key}.{kind}")
        for to, (prefix, table) in linears.items()
        for name, source in table.items()
        for kind in ("weight", "bias")
    }
    return sources | {
        f"{to}{name}.weight": Source(f"{prefix}{key}.scale")
        for to, (prefix, table) in norms.items()
        for name, key in table.items()
    }


def convert_flux(state_dict: StateDict) -> StateDict:
    """Return an original Flux transformer (keys without prefix) in diffusers' layout, of any size.

    Raises:
        ValueError: a tensor is missing.
    """
    blocks = count_blocks(state_dict, "double_blocks."), count_blocks(state_dict, "single_blocks.")
    sources = flux_sources(*blocks, guidance="guidance_in.in_layer.weight" in state_dict)
    return taken(state_dict, sources, "Flux")


def taken(state_dict: StateDict, sources: Mapping[str, Source], what: str) -> StateDict:
    """Return the tensors of sources in an original transformer (keys without prefix).

    Newer files call the scales of norms weights.

    Raises:
        ValueError: a tensor is missing.
    """
    found = {re.sub(r"_norm\.weight$", "_norm.scale", key): tensor for key, tensor in state_dict.items()}
    missing = [source.key for source in sources.values() if source.key not in found]
    if missing:
        raise ValueError(f"the {what} transformer has no {missing[0]}; it is of another layout or incomplete")
    return {key: source.take(found[source.key]) for key, source in sources.items()}


# Text encoders

_OPENCLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPENCLIP_TOP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_VISION_TOP = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    **{f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")},
    **{f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")},
}


def convert_openclip(state_dict: StateDict) -> StateDict:
    """Return a text encoder in OpenCLIP's layout (keys without prefix) in Hugging Face's."""
    out = _convert_openclip(state_dict, "text_model.", _OPENCLIP_TOP)
    if "text_projection" in state_dict:
        out["text_projection.weight"] = state_dict["text_projection"].T.contiguous()
    elif "text_projection.weight" in state_dict:
        out["text_projection.weight"] = state_dict["text_projection.weight"]
    return out


def convert_openclip_vision(state_dict: StateDict) -> StateDict:
    """Return an image encoder in OpenCLIP's layout (keys `visual.`) in Hugging Face's."""
    visual = with_prefix(state_dict, "visual.")
    out = _convert_openclip(visual, "vision_model.", _VISION_TOP)
    if "proj" in visual:
        out["visual_projection.weight"] = visual["proj"].T.contiguous()
    return out


def _convert_openclip(state_dict: StateDict, prefix: str, top: dict[str, str]) -> StateDict:
    out = {prefix + new: state_dict[old] for old, new in top.items() if old in state_dict}
    for key, tensor in state_dict.items():
        match = re.match(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$", key)
        if match is None:
            continue
        layer, name, kind = f"{prefix}encoder.layers.{match[1]}.", match[2], match[3]
        if name == "attn.in_proj":
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{layer}self_attn.{part}_proj.{kind}"] = rows
        else:
            out[f"{layer}{_OPENCLIP_LAYER[name]}.{kind}"] = tensor
    return out
