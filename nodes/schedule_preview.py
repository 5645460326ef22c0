"""The answer to the interface that plots a scheduler's noise levels while its widgets change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..samplers.preview import FAMILIES, preview
from .scheduler_inputs import AUTO, OWN

PATH = "/tessera/schedule"


def schedule_preview(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the levels of a scheduler on a model family, which options apply to it, and the families.

    Args:
        query: the inputs of Scheduler (diffusers) as text, and `family`.
    """
    try:
        typed = {name: type(own)(query[name]) for name, own in OWN.items() if name in query}
        steps, denoise = int(query["steps"]), float(query.get("denoise", 1.0))
        scheduler = query["scheduler"]
    except (KeyError, ValueError) as error:
        return {"families": list(FAMILIES), "options": list(OWN), "error": f"found {error}; expected numbers"}
    family = query.get("family", "")
    return {"families": list(FAMILIES)} | preview(
        family if family in FAMILIES else next(iter(FAMILIES)),
        scheduler,
        steps,
        denoise,
        query.get("spacing", AUTO),
        query.get("final_sigma", "zero"),
        {name: value for name, value in typed.items() if value != OWN[name]},
    )
