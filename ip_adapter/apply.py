"""Image prompts on a host's MODEL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..patching.attention import SINGLE, Attention
from ..patching.networks import describe
from ..patching.residents import Manage, place_of
from .face_lora import AddLora, with_own_lora
from .hooks import images_in, install
from .layers import Layer, find_layers
from .prompts import ImagePrompt, LoadedAdapter, activate_all
from .reference import ActiveReference, Place, find_projection


class Host(NamedTuple):
    """What a host gives.

    Attributes:
        attention: its `optimized_attention`.
        add_lora: see `face_lora.AddLora`.
        manage: puts a module under its memory management; None where it has none.
    """

    attention: Attention
    add_lora: AddLora
    manage: Manage | None = None


def apply_prompts(
    model: Any,
    loaded: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str,
    host: Host,
    apart: bool = False,
    face_lora: float = 0.0,
) -> tuple[Any, str]:
    """Return a clone of a host's MODEL that sees the images, or the model itself when no image acts; and a report.

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
    network = describe(model).module
    layers = find_layers(network)
    if apart and not layers[0].in_unet:
        raise ValueError("keep_apart is for UNets: it changes group norms, which this model lacks; switch it off.")
    place = Place(*place_of(model), find_projection(network))
    references = activate_all(prompts, loaded, layers, combine, place)
    if not references:
        return model, "No image acts: every scale, or every weight of blocks, is 0."
    applied = install(model, references, host.attention, layers, apart, host.manage)
    report = _report(images_in(applied), layers, place)
    if loaded is None or not loaded.adapter.lora:
        return applied, report
    applied, lora = with_own_lora(applied, loaded.adapter, host.add_lora, face_lora, layers)
    return applied, f"{report}\n{lora}"


def _report(images: Sequence[ActiveReference], layers: list[Layer], place: Place) -> str:
    """Say how many images act, in how many layers, and what they take on the device."""
    acting = [layer for layer in layers if any(each.acts_at(layer.number) for each in images)]
    joint = any(each.joint for each in images)
    every = [layer for layer in layers if joint or layer.key[0] != SINGLE]
    count = f"{len(images)} image{'s' if len(images) > 1 else ''} in {len(acting)} of {len(every)}"
    if layers[0].in_sd3:
        weights = sum({each.timed.adapter: each.timed.adapter.size for each in images if each.timed}.values())
        made = f"the adapter, which makes keys and values at every step, takes {weights / 2**20:.1f} MB on the device"
        return f"{count} blocks; {made}."
    kept = sum(_kept(each, layer.number, place) for each in images for layer in acting)
    return f"{count} cross-attention layers; keys and values take {kept / 2**20:.1f} MB on the device."


def _kept(image: ActiveReference, layer: int, place: Place) -> int:
    """Return the bytes of an image's keys and values at a layer."""
    times = (layer in image.weights) + (layer in image.against)
    return times * 2 * image.keys_values[layer][0].numel() * place.dtype.itemsize if times else 0
