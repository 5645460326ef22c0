"""Image prompts as the user describes them, and the references that a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..patching.schedule import ScheduleRange
from .encoders import encode
from .faces import Face, encode_face
from .formats import FACES, KINDS, Adapter
from .layers import Layer
from .presets import BlockWeights, parse_block_weights, weight_at, weights_of_type
from .reference import ActiveReference, Reference, check_fit, precompute

MOST = 100
"""Most images in one stack."""


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """An image and how it acts.

    Attributes:
        source: the image (1, H, W, 3) in 0..1, or a precomputed reference.
        scale: 0..1.
        type: one of `presets.TYPES`.
        start: fraction of the schedule at which it begins to act.
        end: fraction of the schedule at which it ceases to.
        mask: where it acts (H, W) in 0..1.
        blocks: weights of the blocks as text, instead of the type.
        fit: one of `encoders.FITS`.
        unconditional: one of `encoders.UNCONDITIONALS`.
        face: the face in the image, for FaceID adapters.
    """

    source: Tensor | Reference
    scale: float = 0.9
    type: str = "style"
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None
    blocks: str = ""
    fit: str = "crop"
    unconditional: str = "reference"
    face: Face | None = None

    def block_weights(self, layers: list[Layer]) -> BlockWeights:
        """Return the weights of a model's blocks."""
        return parse_block_weights(self.blocks, layers) if self.blocks.strip() else weights_of_type(self.type, layers)


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An IP_ADAPTER: the weights and the CLIP_VISION that belongs to them, None for adapters that read faces alone."""

    adapter: Adapter
    encoder: Any


def check_count(prompts: Sequence[ImagePrompt]) -> None:
    """Raise ValueError when a stack holds no images, or more than MOST."""
    if not 0 < len(prompts) <= MOST:
        raise ValueError(f"The stack holds {len(prompts)} image prompts; expected 1 to {MOST}.")


def activate_all(
    prompts: Sequence[ImagePrompt], loaded: LoadedAdapter | None, layers: list[Layer], combine: str = "sum"
) -> list[ActiveReference]:
    """Return the references of a model with these layers, without those that act nowhere.

    Raises:
        ValueError: no images or too many, an image without an adapter, or a reference for another model or adapter.
    """
    check_count(prompts)
    found = [_activate(prompt, loaded, layers, combine) for prompt in prompts]
    return [each for each in found if each.weights]


def _activate(prompt: ImagePrompt, loaded: LoadedAdapter | None, layers: list[Layer], combine: str) -> ActiveReference:
    blocks = prompt.block_weights(layers)
    weights = {layer.number: prompt.scale * weight_at(blocks, layer) for layer in layers}
    weights = {number: weight for number, weight in weights.items() if weight}
    reference = _reference(prompt, loaded, list(weights), layers)
    return ActiveReference(
        reference.keys_values, weights, combine, ScheduleRange(prompt.start, prompt.end), prompt.mask
    )


def _reference(prompt: ImagePrompt, loaded: LoadedAdapter | None, numbers: list[int], layers: list[Layer]) -> Reference:
    if isinstance(prompt.source, Reference):
        return _checked(prompt.source, loaded, layers)
    if loaded is None:
        raise ValueError("The image prompts hold an image, which needs ip_adapter; connect a Load IP-Adapter node.")
    adapter = loaded.adapter
    channels = {n: keys.shape[0] for n, (keys, _) in adapter.layers.items()}
    check_fit(adapter.name, adapter.width, len(adapter.layers), channels, layers)
    return make_reference(prompt, loaded, numbers)


def make_reference(prompt: ImagePrompt, loaded: LoadedAdapter, numbers: list[int]) -> Reference:
    """Encode the image or face of a prompt as keys and values of the numbered layers.

    Raises:
        ValueError: the adapter reads the other of the two.
    """
    assert isinstance(prompt.source, Tensor)
    adapter, how = loaded.adapter, (prompt.fit, prompt.unconditional)
    if (adapter.kind in FACES) != (prompt.face is not None):
        what = f"a FaceID adapter and reads {KINDS[adapter.kind]}" if prompt.face is None else "not a FaceID adapter"
        remedy = "choose a file with 512 numbers" if prompt.face is None else "choose none"
        raise ValueError(f"{adapter.name} is {what}; {remedy} as face_embedding of the image prompt.")
    if prompt.face is None:
        tokens, blank = encode(adapter, loaded.encoder, prompt.source, *how)
    else:
        tokens, blank = encode_face(adapter, loaded.encoder, prompt.face, prompt.source, *how)
    return precompute(tokens, blank, adapter, numbers)


def _checked(reference: Reference, loaded: LoadedAdapter | None, layers: list[Layer]) -> Reference:
    if loaded is not None and loaded.adapter.fingerprint != reference.fingerprint:
        raise ValueError(
            f"The saved reference was made with {reference.name} ({reference.fingerprint}), but {loaded.adapter.name} "
            f"({loaded.adapter.fingerprint}) is connected; apply it in a node of its own without ip_adapter, or save "
            "it again."
        )
    channels = {n: pair[0].shape[-1] for n, pair in reference.keys_values.items()}
    check_fit(reference.name, reference.width, reference.layer_count, channels, layers)
    return reference
