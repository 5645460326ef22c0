"""Image prompts as the user describes them, and the references that a model makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..patching.schedule import ScheduleRange
from . import projectors
from .faces import Face, face_tokens
from .features import Sight, see
from .formats import FACES, KINDS, TIMED, Adapter
from .known import Encoded, KnownImages
from .layers import Layer, layers_of
from .presets import BlockWeights, against_of_type, by_layer, parse_block_weights, weights_of_type
from .reference import ActiveReference, Place, Reference, check_finite, check_fit, precompute
from .timed import TimedAdapter, TimedImage

MOST = 100
"""Most images in one stack."""


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """An image and how it acts.

    Attributes:
        source: the image (1, H, W, 3) in 0..1, several of one size that are averaged, or a precomputed reference.
        scale: 0..1.
        type: one of `presets.TYPES`.
        start: fraction of the schedule at which it begins to act.
        end: fraction of the schedule at which it ceases to.
        mask: where it acts (H, W) in 0..1.
        blocks: weights of the blocks as text, instead of the type.
        fit: one of `features.FITS`.
        unconditional: one of `features.UNCONDITIONALS`.
        face: the face in the image, for FaceID adapters.
        negative: an image (1, H, W, 3) that guidance pushes away from, instead of the unconditional one.
        limit: -1..3, what a scale of 1 means; below 0 the image is subtracted.
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
    negative: Tensor | None = None
    limit: float = 1.0

    def block_weights(self, layers: list[Layer]) -> BlockWeights:
        """Return the weights of a model's blocks."""
        return parse_block_weights(self.blocks, layers) if self.blocks.strip() else weights_of_type(self.type, layers)


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An IP_ADAPTER.

    Attributes:
        adapter: the weights.
        encoder: the CLIP_VISION that belongs to them, None for adapters that read faces alone.
        known: what the two have computed.
        timed: by dtype, the weights that timed adapters need while sampling.
    """

    adapter: Adapter
    encoder: Any
    known: KnownImages = field(default_factory=KnownImages)
    timed: dict[torch.dtype, TimedAdapter] = field(default_factory=dict)

    def timed_in(self, dtype: torch.dtype) -> TimedAdapter:
        """Return the weights in a dtype, made once."""
        if dtype not in self.timed:
            self.timed[dtype] = TimedAdapter(self.adapter, dtype)
        return self.timed[dtype]


def check_count(prompts: Sequence[Any]) -> None:
    """Raise ValueError when a stack holds no images, or more than MOST."""
    if not 0 < len(prompts) <= MOST:
        remedy = "leave some out, or average a batch to one reference (batch)" if prompts else "connect an Image Prompt"
        raise ValueError(f"The stack holds {len(prompts)} image prompts, expected 1 to {MOST}; {remedy}.")


def activate_all(
    prompts: Sequence[ImagePrompt],
    loaded: LoadedAdapter | None,
    layers: list[Layer],
    combine: str = "sum",
    place: Place = Place(),  # noqa: B008 - immutable
) -> list[ActiveReference]:
    """Return the references of a model with these layers, without those that act nowhere.

    Args:
        prompts: the images.
        loaded: needed for images; references that were saved do without.
        layers: of the model.
        combine: one of `attend.COMBINES`.
        place: where keys and values are computed.

    Raises:
        ValueError: no images or too many, an image without an adapter, or a reference for another model or adapter.
    """
    check_count(prompts)
    weighed = [(prompt, *_weights(prompt, _own_layers(prompt, loaded, layers))) for prompt in prompts]
    if combine == "share" and any(w < 0 for _, weights, _ in weighed for w in weights.values()):
        raise ValueError("combine share divides the strength among images, which takes scales above 0; choose sum.")
    for prompt in prompts:
        _check(prompt, loaded, layers)
    acting = [(prompt, weights, against) for prompt, weights, against in weighed if weights or against]
    pictures = [(p, [*w, *a]) for p, w, a in acting if not isinstance(p.source, Reference)]
    made = iter(make_references(pictures, loaded, place) if loaded is not None and pictures else ())
    found = [p.source if isinstance(p.source, Reference) else next(made) for p, _, _ in acting]
    return [
        ActiveReference(r.keys_values, w, combine, ScheduleRange(p.start, p.end), p.mask, a, r.joint, r.timed)
        for r, (p, w, a) in zip(found, acting, strict=True)
    ]


def _own_layers(prompt: ImagePrompt, loaded: LoadedAdapter | None, layers: list[Layer]) -> list[Layer]:
    """Return the layers for which the adapter of a prompt was made."""
    if isinstance(prompt.source, Reference):
        return layers_of(prompt.source.layer_count, layers)
    return layers if loaded is None else layers_of(len(loaded.adapter.layers), layers)


def _weights(prompt: ImagePrompt, layers: list[Layer]) -> tuple[dict[int, float], dict[int, float]]:
    """Return the weights by layer where prompts see the image, and where negative ones alone do."""
    strength = prompt.scale * prompt.limit
    return by_layer(prompt.block_weights(layers), layers, strength), by_layer(
        {} if prompt.blocks.strip() else against_of_type(prompt.type, layers), layers, strength
    )


def _check(prompt: ImagePrompt, loaded: LoadedAdapter | None, layers: list[Layer]) -> None:
    """Raise ValueError when a prompt does not go with the adapter, or either with the model."""
    if isinstance(prompt.source, Reference):
        _check_saved(prompt.source, loaded, layers)
        return
    if loaded is None:
        raise ValueError("The image prompts hold an image, which needs ip_adapter; connect an IPAdapter Loader node.")
    adapter = loaded.adapter
    if (adapter.kind == TIMED) != layers[0].in_sd3:
        made = "Stable Diffusion 3.5" if adapter.kind == TIMED else "another kind of model"
        raise ValueError(
            f"{adapter.name} is an IP-Adapter for {made}, but the model is {layers[0].model}; use one for this model."
        )
    channels = {n: keys.shape[0] for n, (keys, _) in adapter.layers.items()}
    check_fit(adapter.name, adapter.width, len(adapter.layers), channels, layers)
    _check_face(prompt, adapter)


def _check_face(prompt: ImagePrompt, adapter: Adapter) -> None:
    if (adapter.kind in FACES) != (prompt.face is not None):
        what = f"a FaceID adapter and reads {KINDS[adapter.kind]}" if prompt.face is None else "not a FaceID adapter"
        remedy = "choose a file with 512 numbers" if prompt.face is None else "choose none"
        raise ValueError(f"{adapter.name} is {what}; {remedy} as face_embedding of the image prompt.")


def _check_saved(reference: Reference, loaded: LoadedAdapter | None, layers: list[Layer]) -> None:
    if loaded is not None and loaded.adapter.fingerprint != reference.fingerprint:
        raise ValueError(
            f"The saved reference was made with {reference.name} ({reference.fingerprint}), but {loaded.adapter.name} "
            f"({loaded.adapter.fingerprint}) is connected; apply it in a node of its own without ip_adapter, or save "
            "it again."
        )
    channels = {n: pair[0].shape[-1] for n, pair in reference.keys_values.items()}
    check_fit(reference.name, reference.width, reference.layer_count, channels, layers)


def make_references(
    wanted: Sequence[tuple[ImagePrompt, Sequence[int]]],
    loaded: LoadedAdapter,
    place: Place = Place(),  # noqa: B008 - immutable
) -> list[Reference]:
    """Encode images or faces as keys and values of layers; what the adapter has computed before is not repeated.

    Args:
        wanted: prompts with images, and the numbers of the layers where each acts.
        loaded: the adapter.
        place: where keys and values are computed.

    Raises:
        ValueError: the adapter reads faces and a prompt has none, or the other way round.
    """
    adapter = loaded.adapter
    for prompt, _ in wanted:
        _check_face(prompt, adapter)
    if adapter.made and (place.projection is None or place.projection.widths != (adapter.made, adapter.width)):
        raise ValueError(
            f"{adapter.name} makes tokens of width {adapter.made} that its model projects to {adapter.width} "
            "(encoder_hid_proj), which only Kolors does; load Kolors, and apply the adapter to it directly."
        )
    keys = [_content(prompt, place) for prompt, _ in wanted]
    known = {key: found for key in keys if (found := loaded.known.get(key)) is not None}
    new = {key: prompt for key, (prompt, _) in zip(keys, wanted, strict=True) if key not in known}
    known |= {
        key: Encoded(tokens) for key, tokens in zip(new, tokens_of(list(new.values()), loaded, place), strict=True)
    }
    about = adapter.width, len(adapter.layers), adapter.fingerprint, adapter.name, adapter.joint
    if adapter.kind == TIMED:
        loaded.known.put(known)
        weights = loaded.timed_in(place.dtype)
        return [Reference({}, *about, TimedImage(weights, known[key].tokens)) for key in keys]
    _complete([(key, numbers) for key, (_, numbers) in zip(keys, wanted, strict=True)], known, adapter, place)
    loaded.known.put(known)
    return [
        Reference({n: known[key].keys_values[n] for n in numbers}, *about)
        for key, (_, numbers) in zip(keys, wanted, strict=True)
    ]


def _complete(
    wanted: Sequence[tuple[str, Sequence[int]]], known: dict[str, Encoded], adapter: Adapter, place: Place
) -> None:
    """Compute the keys and values that are missing, images that lack the same in one batch."""
    missing: dict[tuple[int, ...], list[str]] = {}
    for key, numbers in wanted:
        lacking = tuple(n for n in dict.fromkeys(numbers) if n not in known[key].keys_values)
        if lacking and key not in missing.setdefault(lacking, []):
            missing[lacking].append(key)
    for numbers, lacking in missing.items():
        for group in _alike(lacking, known):
            tokens = torch.stack([known[key].tokens for key in group])
            for key, found in zip(group, precompute(tokens, adapter, numbers, place), strict=True):
                known[key].keys_values |= found


def _alike(keys: list[str], known: dict[str, Encoded]) -> list[list[str]]:
    """Group what has equally many tokens."""
    groups: dict[torch.Size, list[str]] = {}
    for key in keys:
        groups.setdefault(known[key].tokens.shape, []).append(key)
    return list(groups.values())


def tokens_of(prompts: list[ImagePrompt], loaded: LoadedAdapter, place: Place) -> list[Tensor]:
    """Compute the tokens (2, T, D) of each prompt and of its unconditional image, in one batch of the encoder.

    Of timed adapters what the encoder sees, in their place: (1 + k, P, E), first the unconditional image, then k tiles.
    """
    adapter = loaded.adapter
    if not prompts:
        return []
    seen = see(adapter, loaded.encoder, _sights(prompts)) if adapter.features else []
    if adapter.kind in FACES:
        pairs = [torch.cat([image[:1], blank]) for image, blank in seen] or [None] * len(prompts)
        return [_face_tokens(adapter, prompt, pair, place) for prompt, pair in zip(prompts, pairs, strict=True)]
    if adapter.kind == TIMED:
        found = [torch.cat([blank, tiles]) for tiles, blank in seen]
        check_finite(torch.cat(found))
        return found
    every = torch.cat([part for pair in seen for part in pair]).to(place.device, place.working)
    tokens = getattr(projectors, adapter.kind)(adapter.image_proj, every).cpu()
    parts = iter(tokens.split([len(part) for pair in seen for part in pair]))
    return [_pair(next(parts), next(parts)) for _ in seen]


def _sights(prompts: list[ImagePrompt]) -> list[Sight]:
    return [Sight(p.source, p.fit, p.unconditional, p.negative) for p in prompts if isinstance(p.source, Tensor)]


def _face_tokens(adapter: Adapter, prompt: ImagePrompt, patches: Tensor | None, place: Place) -> Tensor:
    assert prompt.face is not None
    at = {"device": place.device, "dtype": place.working}
    face = replace(prompt.face, embedding=prompt.face.embedding.to(**at))
    return face_tokens(adapter, face, None if patches is None else patches.to(**at)).cpu()


def _pair(tiles: Tensor, blank: Tensor) -> Tensor:
    """Return tokens of tiles (k, T, D) side by side, and the unconditional ones (1, T, D) as often: (2, k * T, D)."""
    return torch.stack([tiles.flatten(0, 1), blank.expand_as(tiles).flatten(0, 1)])


def _content(prompt: ImagePrompt, place: Place) -> str:
    """Return a name that prompts share whose keys and values are the same."""
    face = prompt.face
    found = hashlib.blake2b(digest_size=20)
    for tensor in (prompt.source, prompt.negative, None if face is None else face.embedding):
        if isinstance(tensor, Tensor):
            found.update(str((tensor.shape, tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        found.update(b"|")
    how = None if face is None else (face.version, face.structure)
    found.update(repr((prompt.fit, prompt.unconditional, how, place)).encode())
    return found.hexdigest()
