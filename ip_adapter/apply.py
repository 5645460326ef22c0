"""Image prompts on a host's MODEL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..patching.attention import Attention
from ..patching.networks import describe
from ..patching.wrappers import option, set_option
from .faces import lora_of
from .formats import Adapter
from .hooks import install
from .layers import Layer, find_layers
from .prompts import ImagePrompt, LoadedAdapter, activate_all

LORAS = "tessera_face_loras"
"""Option of a MODEL: fingerprints of the adapters whose own LoRA is in it."""


class FaceLora(NamedTuple):
    """How a MODEL gets the LoRA that FaceID files hold besides the adapter.

    Attributes:
        add: from a MODEL, weights with kohya's names and a strength to a clone with the LoRA.
        strength: 0..1.
    """

    add: Callable[[Any, dict[str, Any], float], Any]
    strength: float


def apply_prompts(
    model: Any,
    loaded: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str,
    attention: Attention,
    apart: bool = False,
    face_lora: FaceLora | None = None,
) -> Any:
    """Return a clone of a host's MODEL that sees the images, or the model itself when no image acts anywhere.

    Args:
        model: the MODEL; it stays as it is.
        loaded: needed for images; references that were saved do without.
        prompts: the images.
        combine: one of `attend.COMBINES`.
        attention: the host's `optimized_attention`.
        apart: whether group norms normalise the masked areas one by one.
        face_lora: how the MODEL gets the LoRA of a FaceID adapter.

    Raises:
        ValueError: the model, the adapter and the images do not fit; the message says where.
    """
    layers = find_layers(describe(model).module)
    if apart and layers[0].in_flux:
        raise ValueError("keep_apart is for UNets: it changes group norms, which this model lacks; switch it off.")
    references = activate_all(prompts, loaded, layers, combine)
    if not references:
        return model
    applied = install(model, references, attention, layers, apart)
    if face_lora is None or loaded is None or not loaded.adapter.lora or not face_lora.strength:
        return applied
    return _with_lora(applied, loaded.adapter, face_lora, layers)


def _with_lora(model: Any, adapter: Adapter, face_lora: FaceLora, layers: list[Layer]) -> Any:
    """Add a FaceID adapter's own LoRA, once however many nodes apply the adapter."""
    added: tuple[str, ...] = option(model, LORAS) or ()
    if adapter.fingerprint in added:
        return model
    changed = face_lora.add(model, lora_of(adapter, layers), face_lora.strength)
    set_option(changed, LORAS, (*added, adapter.fingerprint))
    return changed
