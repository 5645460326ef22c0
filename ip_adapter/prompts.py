"""Image prompts as the user describes them, and as a model uses them."""

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
from .reference import Reference, check_fit, precompute
from .steps import Use

MOST = 100
"""Images in one stack."""


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """A picture and how it acts.

    Args:
        source: the picture (1, H, W, 3) in 0..1, or a precomputed one.
        scale: 0..1.
        type: one of `presets.TYPES`.
        start: fraction of the schedule at which it begins to act.
        end: fraction of the schedule at which it ceases to.
        mask: where it acts (H, W).
        blocks: weights of the blocks as text, instead of the type.
        fit: one of `encoders.FITS`.
        unconditional: one of `encoders.UNCONDITIONALS`.
        face: whose face the picture shows, for FaceID adapters.
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

    def gains(self, layers: list[Layer]) -> BlockWeights:
        """Weights of the blocks of a UNet."""
        return parse_block_weights(self.blocks, layers) if self.blocks.strip() else weights_of_type(self.type, layers)


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An IP_ADAPTER: the weights and the CLIP_VISION that goes with them, None for those that read faces alone."""

    adapter: Adapter
    encoder: Any


def check_count(prompts: Sequence[ImagePrompt]) -> None:
    """Raise ValueError when a stack holds no images, or more than MOST."""
    if not 0 < len(prompts) <= MOST:
        raise ValueError(f"The stack holds {len(prompts)} image prompts; expected 1 to {MOST}.")


def use(prompt: ImagePrompt, loaded: LoadedAdapter | None, layers: list[Layer]) -> Use | None:
    """What a model needs of a prompt; None when it acts nowhere.

    Raises:
        ValueError: a picture without an adapter, or a precomputed one that does not go with the model or the adapter.
    """
    gains = prompt.gains(layers)
    numbers = [layer.number for layer in layers if prompt.scale * weight_at(gains, layer)]
    reference = _reference(prompt, loaded, numbers, layers)
    if not numbers:
        return None
    return Use(reference, prompt.scale, gains, ScheduleRange(prompt.start, prompt.end), prompt.mask)


def _reference(prompt: ImagePrompt, loaded: LoadedAdapter | None, numbers: list[int], layers: list[Layer]) -> Reference:
    if isinstance(prompt.source, Reference):
        return _checked(prompt.source, loaded, layers)
    if loaded is None:
        raise ValueError("The image prompts hold a picture, which needs ip_adapter; connect a Load IP-Adapter node.")
    adapter = loaded.adapter
    check_fit(
        adapter.name,
        adapter.width,
        len(adapter.layers),
        {n: k.shape[0] for n, (k, _) in adapter.layers.items()},
        layers,
    )
    return make_reference(prompt, loaded, numbers)


def make_reference(prompt: ImagePrompt, loaded: LoadedAdapter, numbers: list[int]) -> Reference:
    """The picture or face of a prompt as keys and values of the numbered cross-attentions.

    Raises:
        ValueError: the adapter wants the other of the two.
    """
    assert isinstance(prompt.source, Tensor)
    adapter, how = loaded.adapter, (prompt.fit, prompt.unconditional)
    if (adapter.kind in FACES) != (prompt.face is not None):
        wants = f"a FaceID adapter and reads {KINDS[adapter.kind]}" if prompt.face is None else "no FaceID adapter"
        what = "choose a file with 512 numbers" if prompt.face is None else "choose none"
        raise ValueError(f"{adapter.name} is {wants}; {what} as face_embedding of the image prompt.")
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
    channels = {n: pair[0].shape[-1] for n, pair in reference.pairs.items()}
    check_fit(reference.name, reference.width, reference.layers, channels, layers)
    return reference
