"""Weights of the blocks of a UNet, by what of an image the user wants.

Sources: InstantStyle (Wang et al. 2024) names SDXL's style block `up_blocks.0.attentions.1` and its layout block
`down_blocks.2.attentions.1`; for SD 1.5 it takes `up_blocks.1`, and `down_blocks.2` with the middle. A second practice
for SD 1.5, `style_broad`, excludes the layout's blocks and keeps all others. `character` has no definition elsewhere:
here all blocks act, those of style at 0.3, which keeps a subject and leaves the rendering to the prompt.

`style_transfer`, `style_precise` and `composition_precise` have the weights of ComfyUI_IPAdapter_plus. The precise ones
show the image to negative prompts as well, in the blocks of what is not wanted, so that guidance pushes away from it.
"""

from __future__ import annotations

import math

from .layers import Layer

BlockWeights = dict[str, float]
"""Weights by prefix of diffusers' names; the longest prefix that fits counts, "" fits all."""

_LAST = "down_blocks.2.attentions.1"
"""The last attention in front of the middle, in SDXL and SD 1.5: the layout."""

_XL_STYLE, _XL_LAYOUT = "up_blocks.0.attentions.1", _LAST
_SDXL: dict[str, BlockWeights] = {
    "style": {_XL_STYLE: 1.0},
    "character": {"": 1.0, _XL_STYLE: 0.3},
    "composition": {_XL_LAYOUT: 1.0},
    "full": {"": 1.0},
    "style_broad": {"": 1.0, _XL_LAYOUT: 0.0},
    "composition_narrow": {_XL_LAYOUT: 1.0},
    "style_transfer": {_XL_STYLE: 1.0},
    "style_precise": {_XL_STYLE: 1.0},
    "composition_precise": {_XL_LAYOUT: 1.0},
}
_SDXL_AGAINST: dict[str, BlockWeights] = {
    "style_precise": {_XL_LAYOUT: 1.0},
    "composition_precise": {"": 0.1, _XL_STYLE: 1.0, _XL_LAYOUT: 0.0},
}
_DOWN: BlockWeights = {"down_blocks.2.attentions.0": 0.25, _LAST: 1.0}
_TRANSFER: BlockWeights = {
    "": 1.0,
    "down_blocks.2": 0.0,
    "mid_block": 0.0,
    "up_blocks.1.attentions.0": 0.0,
    "up_blocks.1.attentions.1": 0.0,
}
_SD15: dict[str, BlockWeights] = {
    "style": {"up_blocks.1": 1.0},
    "character": {"": 1.0, "up_blocks.1": 0.3},
    "composition": {"down_blocks.2": 1.0, "mid_block": 1.0},
    "full": {"": 1.0},
    "style_broad": {"": 1.0, "down_blocks.2": 0.0},
    "composition_narrow": _DOWN,
    "style_transfer": _TRANSFER,
    "style_precise": _TRANSFER,
    "composition_precise": _DOWN,
}
_SD15_AGAINST: dict[str, BlockWeights] = {
    "style_precise": _DOWN,
    "composition_precise": {
        **_TRANSFER,
        "mid_block": 0.1,
        "up_blocks.1.attentions.0": 0.1,
        "up_blocks.1.attentions.1": 0.1,
    },
}
TYPES = list(_SD15)
"""What of an image is wanted, by name."""


def weights_of_type(kind: str, layers: list[Layer]) -> BlockWeights:
    """Return the weights of a type on a model: SDXL's where transformers are deep, else those of SD 1.5.

    Raises:
        ValueError: the model is a transformer, for whose blocks no types are known, or lacks the blocks of the type.
    """
    if not layers[0].in_unet and kind != "full":
        raise ValueError(
            f'type "{kind}" names blocks of a UNet, but the model is {layers[0].model}; choose full, or write weights '
            f"into blocks, such as all=1, {layers[0].name}=0."
        )
    weights = _fitted((_SDXL if _is_deep(layers) else _SD15)[kind], layers)
    if not any(weight_at(weights, layer) for layer in layers):
        raise ValueError(
            f'type "{kind}" acts in {" and ".join(weights)}, but this model has no cross-attention there; choose full, '
            f"or write weights into blocks, of: {_names(layers)}."
        )
    return weights


def _is_deep(layers: list[Layer]) -> bool:
    return any(layer.key[2] > 0 for layer in layers)


def _fitted(weights: BlockWeights, layers: list[Layer]) -> BlockWeights:
    """Return weights where a block that has one attention takes the weight of the last of two."""
    if _LAST not in weights or any(_fits(_LAST, layer.name) for layer in layers):
        return weights
    return {**weights, "down_blocks.2.attentions.0": weights[_LAST]}


def by_layer(weights: BlockWeights, layers: list[Layer], strength: float) -> dict[int, float]:
    """Return weights times a strength by number of the layer, without those that are 0."""
    found = {layer.number: strength * weight_at(weights, layer) for layer in layers}
    return {number: weight for number, weight in found.items() if weight}


def weight_at(weights: BlockWeights, layer: Layer) -> float:
    """Return the weight at one layer, 0 where no prefix fits."""
    fitting = [prefix for prefix in weights if _fits(prefix, layer.name)]
    return weights[max(fitting, key=len)] if fitting else 0.0


def against_of_type(kind: str, layers: list[Layer]) -> BlockWeights:
    """Return the weights of blocks where negative prompts alone see the image, so that guidance pushes away from it."""
    return _fitted((_SDXL_AGAINST if _is_deep(layers) else _SD15_AGAINST).get(kind, {}), layers)


def parse_block_weights(text: str, layers: list[Layer]) -> BlockWeights:
    """Read weights such as "up_blocks.1=0.5, mid_block=0"; "all" is every block.

    Raises:
        ValueError: a part is not a name and a number, or names no block of this model.
    """
    weights = read_block_weights(text)
    for prefix in weights:
        if not any(_fits(prefix, layer.name) for layer in layers):
            raise ValueError(
                f'blocks: no block is called "{prefix}"; use all, or the beginning of one of: {_names(layers)}.'
            )
    return weights


def _names(layers: list[Layer]) -> str:
    """Name the blocks; those of transformers, which are many, by the first and the last of each kind."""
    names = list(dict.fromkeys(layer.name.split(".transformer")[0] for layer in layers))
    if not layers[0].in_unet:
        kinds = dict.fromkeys(name.split(".")[0] for name in names)
        each = [[name for name in names if name.startswith(kind)] for kind in kinds]
        return ", ".join(f"{found[0]} to {found[-1]}" for found in each)
    return ", ".join(names)


def read_block_weights(text: str) -> BlockWeights:
    """Read weights by name, of any model.

    Raises:
        ValueError: a part is not a name and a finite number.
    """
    weights = {}
    for part in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        weight = _number(number)
        if not name or not math.isfinite(weight):
            raise ValueError(f'blocks: "{part[:80]}" is not a name and a weight; write them like up_blocks.1=0.5.')
        weights["" if name == "all" else name] = weight
    return weights


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _fits(prefix: str, name: str) -> bool:
    return not prefix or name == prefix or name.startswith(prefix + ".")
