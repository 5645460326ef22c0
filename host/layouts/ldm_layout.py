"""Key layouts of original checkpoints against those of diffusers.

The tables serve both the loading of checkpoints and the LoRAs that were trained on the original layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import torch

from .state_dicts import StateDict, count_blocks, with_prefix

UNET_PREFIX = "model.diffusion_model."


class Source(NamedTuple):
    """Which rows of which original tensor a diffusers tensor is.

    `part` of the tensor `key`, whose rows are divided in the ratio `sizes`; `swap`: the two halves change places.
    """

    key: str
    part: int = 0
    sizes: tuple[int, ...] = (1,)
    swap: bool = False

    def take(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows, of a tensor whose first axis is the original's."""
        unit = tensor.shape[0] // sum(self.sizes)
        rows = tensor.narrow(0, unit * sum(self.sizes[: self.part]), unit * self.sizes[self.part])
        return torch.cat(rows.chunk(2)[::-1]) if self.swap else rows


# UNet

_UNET_NAMES = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")


def unet_sources(diffusers_keys: Iterable[str]) -> dict[str, Source]:
    """diffusers key -> original key, for the keys of a diffusers UNet."""
    keys = set(diffusers_keys)
    layers = len({key.split(".")[3] for key in keys if key.startswith("down_blocks.0.resnets.")})
    return {key: Source(_unet_source(key, layers, keys)) for key in keys}


def _unet_source(key: str, layers: int, keys: set[str]) -> str:
    match = _UNET_BLOCK.match(key)
    if match is None:
        head = next(name for name in _UNET_NAMES if key.startswith(name + "."))
        place, tail = _UNET_NAMES[head], key[len(head) :]
    else:
        place, tail = _unet_place(match, layers, keys), key[match.end() :]
        tail = tail.replace(".conv.", ".op.") if match[3] == "downsamplers" else tail
    if "resnets" in key:
        name = tail.split(".")[1]
        tail = tail.replace(name, _RESNET_NAMES[name], 1)
    return place + tail


def _unet_place(match: re.Match[str], layers: int, keys: set[str]) -> str:
    side, block, kind, index = match[1], int(match[2]), match[3], int(match[4])
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0"
    has_attention = any(key.startswith(f"up_blocks.{block}.attentions.") for key in keys)
    if kind == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + has_attention}"
    number = block * (layers + 1) + index
    position = 0 if kind == "resnets" else 1
    return f"input_blocks.{number + 1}.{position}" if side == "down" else f"output_blocks.{number}.{position}"


def original_block(resnet: str, layers: int) -> tuple[str, int]:
    """The block of an original UNet that holds a diffusers resnet: "up_blocks.1.resnets.0" -> ("output", 3).

    Args:
        resnet: its path.
        layers: resnets in each block of the way down.
    """
    match = _UNET_BLOCK.match(resnet)
    if match is None:
        return "middle", 0
    side, number = _unet_place(match, layers, set()).split(".")[:2]
    return side.removesuffix("_blocks"), int(number)


def convert_unet(state_dict: StateDict) -> StateDict:
    """An original UNet (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: some weights have no place there.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    layers = 0
    while f"input_blocks.{layers + 1}.0.in_layers.0.weight" in state_dict:
        layers += 1
    config = {"layers_per_block": layers, "addition_embed_type": None}
    if "label_emb.0.0.weight" in state_dict:
        config["addition_embed_type"] = "text_time"
    out = convert_ldm_unet_checkpoint({UNET_PREFIX + key: t for key, t in state_dict.items()}, config)
    if len(out) != len(state_dict):
        used = {id(tensor) for tensor in out.values()}
        unknown = next(key for key, tensor in state_dict.items() if id(tensor) not in used)
        raise ValueError(f"the UNet has {unknown}, which Stable Diffusion 1.5 and XL do not have")
    return out


def convert_controlnet(state_dict: StateDict) -> StateDict:
    """An original ControlNet (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: weights are missing, or have no place there.
    """
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    layers = 0
    while f"input_blocks.{layers + 1}.0.in_layers.0.weight" in state_dict:
        layers += 1
    out = convert_controlnet_checkpoint(state_dict, {"layers_per_block": layers})
    sizes = {name: old for name, old in _UNET_NAMES.items() if name.startswith("add_embedding")}
    out |= {
        f"{name}.{kind}": state_dict[f"{old}.{kind}"]
        for name, old in sizes.items()
        for kind in ("weight", "bias")
        if f"{old}.{kind}" in state_dict
    }
    missing = next((key for key, tensor in out.items() if tensor is None), None)
    if missing or len(out) != len(state_dict):
        raise ValueError(
            f"the ControlNet has {len(state_dict)} weights, of which {len(out)} are known"
            + (f", and lacks {missing}" if missing else "")
            + "; it is of another architecture or incomplete"
        )
    return out


# VAE

_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def convert_vae(state_dict: StateDict) -> StateDict:
    """A VAE (keys without prefix) in diffusers' layout, from the original's or from that of diffusers before 0.15."""
    if any(key.startswith("decoder.up_blocks.") for key in state_dict):
        return {_rename_old_attention(key): tensor for key, tensor in state_dict.items()}
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    levels = [""] * count_blocks(state_dict, "encoder.down.")
    config = {"down_block_types": levels, "up_block_types": levels}
    return convert_ldm_vae_checkpoint({"first_stage_model." + k: t for k, t in state_dict.items()}, config)


def _rename_old_attention(key: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        key = key.replace(old, new)
    return key


# Flux

_QKV = (1, 1, 1)
# Query, key, value and the four times wider MLP.
_LINEAR1 = (1, 1, 1, 4)
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
    """diffusers key -> original key, for a Flux transformer of so many double and single blocks."""
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
    """An original Flux transformer (keys without prefix) in diffusers' layout, of any size.

    Raises:
        ValueError: a tensor is missing.
    """
    blocks = count_blocks(state_dict, "double_blocks."), count_blocks(state_dict, "single_blocks.")
    sources = flux_sources(*blocks, guidance="guidance_in.in_layer.weight" in state_dict)
    missing = [source.key for source in sources.values() if source.key not in state_dict]
    if missing:
        raise ValueError(f"the Flux transformer has no {missing[0]}; it is of another layout or incomplete")
    return {key: source.take(state_dict[source.key]) for key, source in sources.items()}


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
    """A text encoder in OpenCLIP's layout (keys without prefix) in Hugging Face's."""
    out = _convert_openclip(state_dict, "text_model.", _OPENCLIP_TOP)
    if "text_projection" in state_dict:
        out["text_projection.weight"] = state_dict["text_projection"].T.contiguous()
    elif "text_projection.weight" in state_dict:
        out["text_projection.weight"] = state_dict["text_projection.weight"]
    return out


def convert_openclip_vision(state_dict: StateDict) -> StateDict:
    """An image encoder in OpenCLIP's layout (keys `visual.`) in Hugging Face's."""
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
