"""The LoRA that FaceID files hold besides the adapter: in a MODEL once, however many nodes and loaders bring it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..patching.calls import SamplingRun
from ..patching.weights import PatchPlace, has_copy, has_same_patch, place_of_patch
from ..patching.wrappers import option, set_option
from .faces import lora_of
from .formats import Adapter
from .layers import Layer

LORAS = "tessera_face_loras"
"""Option of a MODEL: an `OwnLora` for each adapter whose own LoRA is in it."""

AddLora = Callable[[Any, dict[str, Any], float], Any]
"""From a MODEL, weights with kohya's names and a strength to a clone with the LoRA."""


class OwnLora(NamedTuple):
    """A LoRA that came with an adapter.

    Attributes:
        name: of the adapter, for messages.
        fingerprint: of the adapter.
        place: of one of its patches in the MODEL.
    """

    name: str
    fingerprint: str
    place: PatchPlace


def with_own_lora(
    model: Any, adapter: Adapter, add_lora: AddLora, strength: float, layers: list[Layer]
) -> tuple[Any, str]:
    """Add a FaceID adapter's own LoRA to a clone of a MODEL, unless it is there, and say what became of it."""
    lead = f"{adapter.name} holds a LoRA besides the adapter"
    if not strength:
        return model, f"{lead}, which is off (face_lora is 0)."
    added: tuple[OwnLora, ...] = option(model, LORAS) or ()
    if any(each.fingerprint == adapter.fingerprint for each in added):
        return model, f"{lead}, which another node has added."
    changed = add_lora(model, lora_of(adapter, layers), strength)
    place = place_of_patch(model, changed)
    if place is None:
        return model, f"{lead}, which fits nothing in this model."
    if has_same_patch(model, changed, place):
        return model, f"{lead}, which the model has already from a LoRA loader; it is not added again."
    set_option(changed, LORAS, (*added, OwnLora(adapter.name, adapter.fingerprint, place)))
    return changed, f"{lead}, added with strength {strength:g}; a LoRA loader with its own file is refused behind it."


def check_once(run: SamplingRun) -> None:
    """Raise ValueError when a LoRA loader behind the node has added the same LoRA again."""
    for each in run.options.get(LORAS, ()):
        if has_copy(run.model, each.place):
            raise ValueError(
                f"The LoRA of {each.name} is in the model twice, from Apply Image Prompts and from a LoRA loader "
                "behind it; set face_lora to 0, or remove the loader."
            )
