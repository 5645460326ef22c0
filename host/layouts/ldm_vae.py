"""Names of weights in original VAEs, and in those of diffusers."""

from __future__ import annotations

import re

from torch import Tensor

from .state_dicts import StateDict, count_blocks

_ATTENTION_BEFORE_0_15 = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_DOWN = re.compile(r"encoder\.down\.(\d+)\.(?:block\.(\d+)|downsample)\.(.+)")
_UP = re.compile(r"decoder\.up\.(\d+)\.(?:block\.(\d+)|upsample)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid\.block_(\d)\.(.+)")
_MIDDLE_ATTENTION = re.compile(r"(encoder|decoder)\.mid\.attn_1\.(\w+)\.(weight|bias)")


def convert_vae(state_dict: StateDict) -> StateDict:
    """Return a VAE (keys without prefix) in diffusers' layout, from the original's or diffusers' own before 0.15."""
    # Flux.2's has these inside of encoder and decoder.
    moved = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
    for old, new in moved.items():
        state_dict = {key.replace(old, new) if key.startswith(old) else key: t for key, t in state_dict.items()}
    if any(key.startswith("decoder.up_blocks.") for key in state_dict):
        return {_rename_old_attention(key): tensor for key, tensor in state_dict.items()}
    levels = count_blocks(state_dict, "decoder.up.")
    return {_name(key, levels): _linear(key, tensor) for key, tensor in state_dict.items() if _is_part(key)}


def _rename_old_attention(key: str) -> str:
    for old, new in _ATTENTION_BEFORE_0_15.items():
        key = key.replace(f".{old}.", f".{new}.")
    return key


def _is_part(key: str) -> bool:
    """Return whether a key is of the VAE, not of the losses that it was trained with."""
    return key.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))


def _linear(key: str, tensor: Tensor) -> Tensor:
    """Return the weights of attention as matrices: the original has convolutions of one pixel there."""
    return tensor.flatten(1) if _MIDDLE_ATTENTION.fullmatch(key) and tensor.ndim > 2 else tensor


def _name(key: str, levels: int) -> str:
    """Return diffusers' name of a weight; the original counts the blocks of the way up from the last one."""
    if match := _DOWN.fullmatch(key):
        name = f"encoder.down_blocks.{match[1]}." + _place(match[2], "downsamplers") + match[3]
    elif match := _UP.fullmatch(key):
        name = f"decoder.up_blocks.{levels - 1 - int(match[1])}." + _place(match[2], "upsamplers") + match[3]
    elif match := _MIDDLE.fullmatch(key):
        name = f"{match[1]}.mid_block.resnets.{int(match[2]) - 1}.{match[3]}"
    elif match := _MIDDLE_ATTENTION.fullmatch(key):
        return f"{match[1]}.mid_block.attentions.0.{_ATTENTION.get(match[2], match[2])}.{match[3]}"
    else:
        return key.replace(".norm_out.", ".conv_norm_out.")
    return name.replace(".nin_shortcut.", ".conv_shortcut.")


def _place(resnet: str | None, sampler: str) -> str:
    return f"{sampler}.0." if resnet is None else f"resnets.{resnet}."
