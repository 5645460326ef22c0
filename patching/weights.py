"""Weight patches of a host's MODEL, such as LoRAs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def has_same_patch(model: Any, patched: Any) -> bool:
    """Return whether a MODEL has the patch already that a clone got last, whatever its strength.

    Args:
        model: the MODEL.
        patched: its clone, with one patch more on some weights.
    """
    grown = (key for key, patches in patched.patches.items() if len(patches) > len(model.patches.get(key, ())))
    key = next(grown, None)
    if key is None:
        return False
    new = list(_tensors(patched.patches[key][-1]))
    return any(_alike(new, list(_tensors(patch))) for patch in model.patches.get(key, ()))


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


def _tensors(patch: Any, depth: int = 6) -> Iterator[Tensor]:
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
    return [*cells, *(getattr(patch, name) for name in ("func", "args", "weights") if hasattr(patch, name))]
