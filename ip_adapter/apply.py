"""Image prompts on a MODEL."""

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
from .prompts import ImagePrompt, LoadedAdapter, check_count, use
from .steps import Stack

LORAS = "tessera_face_loras"
"""Option of a MODEL: the adapters whose own LoRA is in it."""


class FaceLora(NamedTuple):
    """How the LoRA that FaceID files hold besides the adapter gets into a MODEL.

    Args:
        add: of a MODEL, weights with kohya's names and a strength, returns a clone with the LoRA.
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
    """Return a clone of a host's MODEL that sees the images, or the model itself when none of them acts anywhere.

    Args:
        model: the MODEL; it stays as it is.
        loaded: needed for pictures; precomputed references do without.
        prompts: the images.
        combine: one of `attend.COMBINES`.
        attention: the host's `optimized_attention`.
        apart: whether group norms level the masked areas one by one.
        face_lora: how the LoRA of a FaceID adapter gets into a MODEL.

    Raises:
        ValueError: something does not go together; the message says what.
    """
    check_count(prompts)
    layers = find_layers(describe(model).module)
    if apart and layers and layers[0].in_flux:
        raise ValueError("keep_apart is for UNets: it changes group norms, which this model has not; switch it off.")
    uses = tuple(each for each in (use(prompt, loaded, layers) for prompt in prompts) if each is not None)
    if not uses:
        return model
    applied = install(model, Stack(uses, combine, apart), attention, layers)
    if face_lora is None or loaded is None or not loaded.adapter.lora or not face_lora.strength:
        return applied
    return _with_lora(applied, loaded.adapter, face_lora, layers)


def _with_lora(model: Any, adapter: Adapter, face_lora: FaceLora, layers: list[Layer]) -> Any:
    """A MODEL with a FaceID adapter's own LoRA, which is added once however many nodes apply the adapter."""
    added: tuple[str, ...] = option(model, LORAS) or ()
    if adapter.fingerprint in added:
        return model
    changed = face_lora.add(model, lora_of(adapter, layers), face_lora.strength)
    set_option(changed, LORAS, (*added, adapter.fingerprint))
    return changed
