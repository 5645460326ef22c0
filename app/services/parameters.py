"""How a documented parameter of a service is described: its values, and what becomes of it in a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...host.errors import listed

MAPPED, APPROXIMATED, NOT_YET, MEANINGLESS = "mapped", "approximated", "not yet possible", "without meaning"
NO_EFFECT = "without effect here"
"""Outcome of a parameter about the image that changes nothing in the workflow. MEANINGLESS is about the service."""
# A name in a request that its service does not document.
UNKNOWN = "unknown"

FAMILIES = {"sd15": "SD 1.5", "sdxl": "SDXL", "flux-dev": "Flux dev", "flux-pro": "Flux pro"}

# Behind a refusal that depends on the family.
OTHER_FAMILY = "; say with --family which other family the model is of"

KINDS = {
    "text": "text",
    "whole": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "yes/no": '"yes" or "no"',
    "choice": "text",
    "seed": "a whole number",
    "seeds": "a whole number or a list of them",
    "texts": "a list of texts",
    "numbers": "a list of numbers",
    "objects": "a list of objects",
    "weights": "an object of names and numbers",
    "names": "an object of names and texts",
    "samples": "an object of names and lists of images",
    "strengths": "numbers with commas between them",
}

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class Parameter:
    """One parameter as its service documents it.

    Attributes:
        name: as it stands in a request.
        kind: a key of KINDS.
        outcome: MAPPED, APPROXIMATED, NOT_YET, NO_EFFECT or MEANINGLESS.
        goes: where its value goes, each "role.input"; a role names one node of the imported workflow.
        how: what is done with it, or why nothing is.
        default: what an omitted parameter gets; None where the service documents none.
        within: the least and the greatest value, of each item in a list.
        above: the least value itself is not allowed.
        step: values are multiples of it.
        family_within, family_default: what differs by model family (keys of FAMILIES).
        choices: the values it takes; of numbers, the one that is nearest to the given one.
        required: a request without it is refused.
        instead: the parameter that replaces a deprecated one.
        needs: what it does nothing without, in words.
        is_open: the document prints no list of its texts; `choices` are known ones, and another is left out.
    """

    name: str
    kind: str
    outcome: str
    goes: tuple[str, ...] = ()
    how: str = ""
    default: Any = None
    within: Range = (None, None)
    above: bool = False
    step: int | None = None
    family_within: Mapping[str, Range] = field(default_factory=dict)
    family_default: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[Any, ...] = ()
    required: bool = False
    instead: str = ""
    needs: str = ""
    is_open: bool = False

    @property
    def takes_nearest(self) -> bool:
        """Whether numbers beside those that the document lists stand for the nearest of them; names never do."""
        return bool(self.choices) and self.kind in ("whole", "number")

    def range_for(self, family: str | None) -> Range:
        """The range for models of a family; the general one where the family is not known."""
        return self.family_within.get(family or "", self.within)

    def default_for(self, family: str | None) -> Any:
        """The default for models of a family."""
        return self.family_default.get(family or "", self.default)

    def expected(self, family: str | None = None) -> str:
        """In words, what it takes."""
        if self.takes_nearest:
            return f"{KINDS[self.kind]}, of which the nearest of {listed(self.choices)} is taken"
        if self.is_open:
            return f"text, of which are known {listed(self.choices)}"
        if self.choices:
            return f"one of {listed(self.choices)}"
        step = f", a multiple of {self.step}" if self.step else ""
        of_family = f" for {FAMILIES[family]}" if family and family in self.family_within else ""
        return KINDS[self.kind] + _range_in_words(self.range_for(family), self.above) + step + of_family


def _range_in_words(within: Range, above: bool) -> str:
    low, high = ("" if bound is None else f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in within)
    if low and high:
        return f" above {low} and up to {high}" if above else f" from {low} to {high}"
    return f" of at most {high}" if high else f" of at least {low}" if low else ""
