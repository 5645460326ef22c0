"""Weight patches of a host's MODEL, such as LoRAs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

HELD_IN = ("func", "args", "__self__", "formula", "weights")
"""Where functions, methods and adapters of hosts keep their matrices."""


class PatchPlace(NamedTuple):
    """Where a patch is in a MODEL: the weight, and its number among the patches of that weight."""

    weight: str
    number: int


def place_of_patch(model: Any, patched: Any) -> PatchPlace | None:
    """Return one place where a clone of a MODEL has a patch more, None where it has none."""
    counts = ((key, len(model.patches.get(key, ())), len(patches)) for key, patches in patched.patches.items())
    return next((PatchPlace(key, after - 1) for key, before, after in counts if after > before), None)


def has_same_patch(model: Any, patched: Any, place: PatchPlace) -> bool:
    """Return whether a MODEL has the patch already that a clone has at a place, whatever its strength."""
    new = list(_tensors(patched.patches[place.weight][place.number]))
    return any(_alike(new, list(_tensors(patch))) for patch in model.patches.get(place.weight, ()))


def has_copy(model: Any, place: PatchPlace) -> bool:
    """Return whether another patch of the same weight is the one at a place, whatever its strength."""
    found = [list(_tensors(patch)) for patch in model.patches.get(place.weight, ())]
    others = (each for number, each in enumerate(found) if number != place.number)
    return place.number < len(found) and any(_alike(found[place.number], each) for each in others)


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether tensors are the same up to the rounding of half precision."""
    return (
        bool(one)
        and len(one) == len(other)
        and all(
            a.shape == b.shape and (a.float() - b.float()).abs().max() <= 1e-2 * a.float().abs().max()
            for a, b in zip(one, other, strict=True)
        )
    )


def _tensors(patch: Any, depth: int = 8) -> Iterator[Tensor]:
    """Yield the matrices inside a patch, in whatever form a host keeps it: tuples, adapters, functions."""
    if isinstance(patch, Tensor):
        if patch.ndim > 1:
            yield patch
    elif depth:
        for part in _parts(patch):
            yield from _tensors(part, depth - 1)


def _parts(patch: Any) -> list[Any]:
    if isinstance(patch, Mapping):
        return list(patch.values())
    if isinstance(patch, (tuple, list)):
        return list(patch)
    cells = [cell.cell_contents for cell in getattr(patch, "__closure__", None) or ()]
    return [*cells, *(getattr(patch, name) for name in HELD_IN if hasattr(patch, name))]
