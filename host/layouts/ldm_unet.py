"""Names of weights in original UNets and ControlNets, and in those of diffusers.

The tables serve both the loading of checkpoints and the LoRAs that were trained on the original layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .ldm_layout import Source
from .state_dicts import StateDict

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
UNCLIP_CONTEXT = 1024
"""What a UNet of this context is told beside the text is an encoded image; others are told pooled text and sizes."""

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
    """Return original keys by diffusers' keys, for the keys of a diffusers UNet."""
    keys = set(diffusers_keys)
    unclip = {key.replace("class_embedding.", "add_embedding."): key for key in keys}
    if unclip.keys() != keys:
        return {unclip[key]: source for key, source in unet_sources(unclip).items()}
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
    """Return the block of an original UNet that holds a diffusers resnet: "up_blocks.1.resnets.0" -> ("output", 3).

    Args:
        resnet: its path.
        layers: resnets in each block of the way down.
    """
    match = _UNET_BLOCK.match(resnet)
    if match is None:
        return "middle", 0
    side, number = _unet_place(match, layers, set()).split(".")[:2]
    return side.removesuffix("_blocks"), int(number)


_CONTROLNET_NAMES = {
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    "controlnet_mid_block": "middle_block_out.0",
}
_BY_ORIGINAL = {old: new for new, old in (_UNET_NAMES | _CONTROLNET_NAMES).items()}
_RESNETS_BY_ORIGINAL = {old: new for new, old in _RESNET_NAMES.items()}
_ORIGINAL_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")
_HINT_BLOCK = re.compile(r"input_hint_block\.(\d+)\.(weight|bias)")
_ZERO_CONVOLUTION = re.compile(r"zero_convs\.(\d+)\.0\.(weight|bias)")


def convert_unet(state_dict: StateDict) -> StateDict:
    """Return an original UNet (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: some weights have no place there.
    """
    layers = _layers(state_dict)
    names = {key: _diffusers_name(key, layers) for key in state_dict}
    unknown = next((key for key, name in names.items() if name is None), None)
    if unknown is not None:
        raise ValueError(f"the UNet has {unknown}, which Stable Diffusion 1.5 and XL do not have")
    found = {name: state_dict[key] for key, name in names.items() if name is not None}
    if "add_embedding.linear_1.weight" not in found or _context(found) != UNCLIP_CONTEXT:
        return found
    return {key.replace("add_embedding.", "class_embedding."): tensor for key, tensor in found.items()}


def _context(found: StateDict) -> int | None:
    return next((found[key].shape[1] for key in found if key.endswith("attn2.to_k.weight")), None)


def convert_controlnet(state_dict: StateDict) -> StateDict:
    """Return an original ControlNet (keys without prefix) in diffusers' layout.

    Raises:
        ValueError: some weights have no place there.
    """
    layers = _layers(state_dict)
    names = {key: _controlnet_name(key) or _diffusers_name(key, layers) for key in state_dict}
    known = {name: state_dict[key] for key, name in names.items() if name is not None}
    if len(known) != len(state_dict):
        raise ValueError(
            f"the ControlNet has {len(state_dict)} weights, of which {len(known)} are known; it is of another "
            "architecture or incomplete"
        )
    return known


def _layers(state_dict: StateDict) -> int:
    """Return how many resnets each block of the way down has."""
    layers = 0
    while f"input_blocks.{layers + 1}.0.in_layers.0.weight" in state_dict:
        layers += 1
    return layers


def _controlnet_name(key: str) -> str | None:
    """Return diffusers' name of a weight that ControlNets alone have, None for others."""
    if match := _ZERO_CONVOLUTION.fullmatch(key):
        return f"controlnet_down_blocks.{match[1]}.{match[2]}"
    match = _HINT_BLOCK.fullmatch(key)
    if match is None or match[1] in ("0", "14"):
        return None
    # Every second one is an activation.
    return f"controlnet_cond_embedding.blocks.{int(match[1]) // 2 - 1}.{match[2]}"


def _diffusers_name(key: str, layers: int) -> str | None:
    """Return diffusers' name of a weight of a UNet, None where it has none."""
    if match := _ORIGINAL_BLOCK.fullmatch(key):
        if head := _BY_ORIGINAL.get(key.removesuffix(f".{match[4]}")):
            return f"{head}.{match[4]}"
        return _name_in_block(match[1], int(match[2]), match[3], match[4], layers)
    head = next((old for old in _BY_ORIGINAL if key.startswith(f"{old}.")), None)
    if head is None:
        return None
    new, tail = _BY_ORIGINAL[head], key[len(head) + 1 :]
    return _resnet_name(new, tail) if ".resnets." in new else f"{new}.{tail}"


def _name_in_block(side: str, number: int, position: str, tail: str, layers: int) -> str | None:
    """Return diffusers' name of a weight of block `number`, which counts resnets and, downwards, convolutions."""
    down = side == "input"
    block, layer = divmod(number - down, layers + 1)
    prefix = f"{'down' if down else 'up'}_blocks.{block}"
    if down and position == "0" and tail.startswith("op."):
        return f"{prefix}.downsamplers.0.conv.{tail.removeprefix('op.')}"
    if not down and position in "12" and tail.startswith("conv."):
        return f"{prefix}.upsamplers.0.{tail}"
    if position == "0":
        return _resnet_name(f"{prefix}.resnets.{layer}", tail)
    return f"{prefix}.attentions.{layer}.{tail}" if position == "1" else None


def _resnet_name(resnet: str, tail: str) -> str | None:
    part, _, kind = tail.rpartition(".")
    name = _RESNETS_BY_ORIGINAL.get(part)
    return name and f"{resnet}.{name}.{kind}"
