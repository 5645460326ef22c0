"""Image prompts on a host's MODEL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..patching.attention import Attention
from ..patching.networks import describe
from ..patching.residents import Manage, place_of
from ..patching.wrappers import option, set_option
from .faces import lora_of
from .formats import Adapter
from .hooks import install
from .layers import Layer, find_layers
from .prompts import ImagePrompt, LoadedAdapter, activate_all
from .reference import Place

LORAS = "tessera_face_loras"
"""Option of a MODEL: fingerprints of the adapters whose own LoRA is in it."""


class Host(NamedTuple):
    """What a host gives.

    Attributes:
        attention: its `optimized_attention`.
        add_lora: from a MODEL, weights with kohya's names and a strength to a clone with the LoRA.
        manage: puts a module under its memory management; None where it has none.
    """

    attention: Attention
    add_lora: Callable[[Any, dict[str, Any], float], Any]
    manage: Manage | None = None


def apply_prompts(
    model: Any,
    loaded: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str,
    host: Host,
    apart: bool = False,
    face_lora: float = 0.0,
) -> Any:
    """Return a clone of a host's MODEL that sees the images, or the model itself when no image acts anywhere.

    Args:
        model: the MODEL; it stays as it is.
        loaded: needed for images; references that were saved do without.
        prompts: the images.
        combine: one of `attend.COMBINES`.
        host: what the host gives.
        apart: whether group norms normalise the masked areas one by one.
        face_lora: strength of the LoRA that FaceID files hold besides the adapter, 0..1.

    Raises:
        ValueError: the model, the adapter and the images do not fit; the message says where.
    """
    layers = find_layers(describe(model).module)
    if apart and layers[0].in_flux:
        raise ValueError("keep_apart is for UNets: it changes group norms, which this model lacks; switch it off.")
    references = activate_all(prompts, loaded, layers, combine, Place(*place_of(model)))
    if not references:
        return model
    applied = install(model, references, host.attention, layers, apart, host.manage)
    if loaded is None or not loaded.adapter.lora or not face_lora:
        return applied
    return _with_lora(applied, loaded.adapter, host, face_lora, layers)


def _with_lora(model: Any, adapter: Adapter, host: Host, strength: float, layers: list[Layer]) -> Any:
    """Add a FaceID adapter's own LoRA, once however many nodes apply the adapter."""
    added: tuple[str, ...] = option(model, LORAS) or ()
    if adapter.fingerprint in added:
        return model
    changed = host.add_lora(model, lora_of(adapter, layers), strength)
    set_option(changed, LORAS, (*added, adapter.fingerprint))
    return changed
