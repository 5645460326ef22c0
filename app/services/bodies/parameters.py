"""What a parameter of a service is annotated with, beside the type and the limits that pydantic knows.

A field of a request names where its value goes: `Annotated[int, Field(ge=1, le=150), To("sampler.steps")] = 30`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUseDefault, core_schema

from ....host.errors import listed, shown
from .nested import Keys

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

MAPPED, APPROXIMATED, NOT_YET, MEANINGLESS = "mapped", "approximated", "not yet possible", "without meaning"
NO_EFFECT = "without effect here"
"""Outcome of a parameter about the image that changes nothing in the workflow. MEANINGLESS is about the service."""
# A name in a request that its service does not document.
UNKNOWN = "unknown"

FAMILIES = {"sd15": "SD 1.5", "sdxl": "SDXL", "flux-dev": "Flux dev", "flux-pro": "Flux pro"}

# Behind a refusal that depends on the family.
OTHER_FAMILY = "; say with --family which other family the model is of"

MOST_ITEMS = 128
"""Largest number of items in a list of a request."""
WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    int | list[int]: "a whole number or a list of them",
    list[str]: "a list of texts",
    list[float]: "a list of numbers",
    list[dict[str, Any]]: "a list of objects",
    dict[str, float]: "an object of names and numbers",
    dict[str, str]: "an object of names and texts",
    dict[str, list[str]]: "an object of names and lists of images",
}

Range = tuple[float | None, float | None]


class To:
    """Marks a parameter by what becomes of it: the workflow does what the service does.

    Attributes:
        places: where the value goes, each "role.input"; a role is the title of one node of the imported workflow.
        needs: what the parameter does nothing without, in words.
        instead: the parameter that replaces a deprecated one.
        reason: why there are no places.
    """

    outcome: ClassVar[str] = MAPPED

    def __init__(self, *places: str, needs: str = "", instead: str = "", reason: str = "") -> None:
        self.places, self.needs, self.instead, self.reason = places, needs, instead, reason

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        told = {"description": self.reason} if self.reason else {}
        return handler(schema) | told | ({"deprecated": True} if self.instead else {})


class Approximated(To):
    """The workflow does something like what the service does."""

    outcome = APPROXIMATED


class NoEffect(To):
    """The parameter is about the image, and no node does it."""

    outcome = NO_EFFECT

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason)


class Meaningless(NoEffect):
    """The parameter is about the service."""

    outcome = MEANINGLESS


@dataclass(frozen=True)
class Words:
    """Says what a type takes, where its name in WORDS does not."""

    text: str


@dataclass(frozen=True)
class Nearest:
    """A list of numbers; one beside them stands for the nearest of them."""

    numbers: tuple[float, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._nearest, handler(source))

    def _nearest(self, value: float) -> float:
        return min(self.numbers, key=lambda each: abs(each - value))

    def note(self, given: Any, taken: Any) -> str:
        """Say which number is taken; "" where it is the given one, or that as text."""
        return "" if _is_one(given, self.numbers) else f"{self._beside(given)}; the nearest is taken, {shown(taken)}"

    def _beside(self, given: Any) -> str:
        return f"{shown(given)} is none of {listed(self.numbers)}"


@dataclass(frozen=True)
class Known:
    """The known texts of a list that a document does not print. Another text gives the default of the field."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, value: str) -> str:
        found = self.spelled(value)
        if found is None:
            raise PydanticUseDefault
        return found

    def spelled(self, value: str) -> str | None:
        """Return a text as it is known, if it is."""
        return spelled(value, self.names)


@dataclass(frozen=True)
class ByFamily:
    """Limits and defaults that differ by model family (keys of FAMILIES), within those of all families."""

    within: Mapping[str, Range] = field(default_factory=dict)
    default: Mapping[str, float] = field(default_factory=dict)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: float, info: core_schema.ValidationInfo) -> float:
        low, high = self.within.get(str((info.context or {}).get("family")), (None, None))
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError("beyond the range of the family")
        return value


def within(limits: Range, **more: Any) -> Any:
    """Return the field of a number from limits[0] to limits[1]; `more` is what pydantic's Field takes."""
    return Field(ge=limits[0], le=limits[1], **more)


MODEL = To("model.ckpt_name", "model.name", "model.unet_name")
MODEL_FILE = Field(
    description="The file of that name, or the one given with --model; a demo model replaces one that is missing."
)


def spelled(name: str, names: Iterable[str]) -> str | None:
    """Return a name as it stands among others, if it does but for capital letters and signs."""
    return next((each for each in names if _spelling(each) == _spelling(name)), None)


def _spelling(name: str) -> str:
    """Return what two spellings of a name have in common: letters and digits, without "Scheduler" at the end."""
    return re.sub(r"[^a-z0-9+]", "", name.lower()).removesuffix("scheduler")


def _is_one(value: Any, numbers: tuple[float, ...]) -> bool:
    """Whether a number, or one written as text, is among others."""
    try:
        return float(value) in numbers
    except OverflowError:
        return False


def split(value: Any) -> Any:
    """Return the parts of a text with commas, or a lone number, as a list."""
    return value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value


@dataclass(frozen=True)
class Parameter:
    """One parameter of a service: what a field of its request says, for messages and pages.

    Attributes:
        name: as it stands in a request.
        type: of its values, without None and without what they are annotated with.
        info: the field.
    """

    name: str
    type: Any
    info: FieldInfo

    @cached_property
    def marks(self) -> list[Any]:
        """What the field, or the type of its items, is annotated with."""
        return [*_marks(self.info.metadata), *_nested(self.info.annotation)]

    def _mark(self, kind: type[Any]) -> Any:
        return next((each for each in self.marks if isinstance(each, kind)), None)

    @cached_property
    def to(self) -> To:
        """What becomes of it."""
        return self._mark(To)

    @cached_property
    def outcome(self) -> str:
        """MAPPED, APPROXIMATED, NO_EFFECT or MEANINGLESS."""
        return self.to.outcome

    @cached_property
    def how(self) -> str:
        """What is done with it, or why nothing is."""
        return self.info.description or self.to.reason

    @cached_property
    def required(self) -> bool:
        """Whether a request without it is refused."""
        return self.info.is_required()

    @cached_property
    def default(self) -> Any:
        """What an omitted parameter gets; None where the service documents none, or it is required."""
        return None if self.required else self.info.default

    @cached_property
    def nearest(self) -> Nearest | None:
        """The list of numbers that it takes."""
        return self._mark(Nearest)

    @cached_property
    def known(self) -> Known | None:
        """The known texts of an open list."""
        return self._mark(Known)

    @cached_property
    def keys(self) -> Keys | None:
        """The names in its objects."""
        return self._mark(Keys)

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """The values of a list; nothing where there is none."""
        found = self.nearest.numbers if self.nearest else self.known.names if self.known else None
        return found or (get_args(self.type) if get_origin(self.type) is Literal else ())

    def _limit(self, name: str) -> Any:
        return next((getattr(each, name) for each in self.marks if hasattr(each, name)), None)

    @cached_property
    def step(self) -> int | None:
        """Values are multiples of it."""
        return self._limit("multiple_of")

    @cached_property
    def above(self) -> bool:
        """Whether the least value itself is not allowed."""
        return self._limit("gt") is not None

    @cached_property
    def within(self) -> Range:
        """The least and the greatest value, of each item in a list."""
        return self._limit("gt" if self.above else "ge"), self._limit("le")

    @cached_property
    def by_family(self) -> ByFamily:
        """What differs by family."""
        return self._mark(ByFamily) or ByFamily()

    def range_for(self, family: str | None) -> Range:
        """Return the range for models of a family; the general one where the family is not known."""
        return self.by_family.within.get(family or "", self.within)

    def expected(self, family: str | None = None) -> str:
        """Say what it takes."""
        own = self._mark(Words)
        words = own.text if own else WORDS.get(self.type, "")
        if self.nearest:
            return f"{words}, of which the nearest of {listed(self.choices)} is taken"
        if self.known:
            return f"text, of which are known {listed(self.choices)}"
        if self.choices:
            return f"one of {listed(self.choices)}"
        step = f", a multiple of {self.step}" if self.step else ""
        of_family = f" for {FAMILIES[family]}" if family and family in self.by_family.within else ""
        return words + _range_in_words(self.range_for(family), self.above) + step + of_family


def _marks(found: Any) -> Iterator[Any]:
    for each in found:
        yield from each.metadata if isinstance(each, FieldInfo) else [each]


def _nested(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _marks(annotation.__metadata__)
    for each in get_args(annotation):
        yield from _nested(each)


def _range_in_words(within: Range, above: bool) -> str:
    low, high = ("" if bound is None else f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in within)
    if low and high:
        return f" above {low} and up to {high}" if above else f" from {low} to {high}"
    return f" of at most {high}" if high else f" of at least {low}" if low else ""
