"""Requests checked against what the services document, by pydantic models that are made from the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ...host.errors import GraphError, closest, listed, shown
from .parameters import FAMILIES, OTHER_FAMILY, ByFamily, Known, Nearest, Range, To, _range_in_words
from .recipe import FindImage, Recipe

if TYPE_CHECKING:
    from pydantic import BaseModel

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

_TYPES: dict[str, Any] = {
    **dict.fromkeys(("text", "choice"), str),
    **dict.fromkeys(("whole", "seed"), int),
    "number": float,
    "flag": bool,
    "yes/no": bool,
    "seeds": int | list[int],
    "texts": list[str],
    "numbers": list[float],
    "objects": list[dict[str, Any]],
    "weights": dict[str, float],
    "names": dict[str, str],
    "samples": dict[str, list[str]],
    "strengths": list[float],
}


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
    def type(self) -> Any:
        return _TYPES[self.kind]

    @property
    def to(self) -> To:
        return To(*self.goes, needs=self.needs, instead=self.instead)

    @property
    def by_family(self) -> ByFamily:
        return ByFamily(self.family_within, self.family_default)

    @property
    def nearest(self) -> Nearest | None:
        return Nearest(self.choices) if self.takes_nearest else None

    @property
    def known(self) -> Known | None:
        return Known(self.choices) if self.is_open else None

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


MOST_NUMBERS = 128
MOST_NESTED = 32


@dataclass(frozen=True, eq=False)
class Service:
    """One endpoint of a hosted service.

    Attributes:
        name: on the command line.
        title: in messages and pages.
        parameters: what its document names, in that order.
        refusals: the lines on what the document forbids across parameters.
        recipe: what a request asks for; takes the request, the finder of images and a seed.
        family: of its models, where nothing tells another.
    """

    name: str
    title: str
    parameters: Sequence[Parameter]
    refusals: Callable[[Request], list[str]]
    recipe: Callable[[Request, FindImage, int], Recipe]
    family: str | None = None

    @property
    def service(self) -> str:
        return self.name

    @property
    def usual_family(self) -> str | None:
        return self.family

    def table(self) -> dict[str, Parameter]:
        return self.by_name

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    def defaults(self, family: str | None) -> dict[str, Any]:
        """Return what omitted parameters get for models of a family; "" for required ones."""
        needed = {parameter.name: "" for parameter in self.parameters if parameter.required}
        parsed = _model(self, family).model_validate(needed)
        return {parameter.name: getattr(parsed, parameter.name) for parameter in self.parameters}


@dataclass(frozen=True)
class Request:
    """A request that its service would take.

    Attributes:
        service: the service it is for.
        family: the family of its model, a key of FAMILIES; None where it is not known.
        values: every parameter's value; omitted ones have their default, or None.
        given: the names of the parameters that the request sets.
        unknown: names that the service does not document.
        moved: the names of numbers that are none of those which the service lists, and what became of them, in words.
        strange: unknown texts of open lists, by the names of their parameters, which have their defaults instead.
    """

    service: Service
    family: str | None
    values: dict[str, Any]
    given: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    strange: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def table(self) -> dict[str, Parameter]:
        return self.service.by_name

    @property
    def title(self) -> str:
        return self.service.title

    def beside_list(self, name: str) -> str:
        if name in self.strange:
            known = listed(self.service.by_name[name].choices)
            return f"left out: {shown(self.strange[name])} is none of {known}"
        return self.moved.get(name, "")

    def is_strange(self, name: str) -> bool:
        return name in self.strange

    def without(self, name: str, family: str | None) -> Request:
        """Return the same request where a parameter is left out, for models of `family`; nothing is checked."""
        given = self.given - {name}
        defaults = self.service.defaults(family)
        values = {key: value if key in given else defaults[key] for key, value in self.values.items()}
        return replace(self, family=family, values=values, given=given)

    def changed(self, name: str, value: Any) -> Request:
        """Return the same request with another value of a parameter; nothing is checked."""
        return replace(self, values=self.values | {name: value}, given=self.given | {name})


def parse(service: Any, document: Any, family: str | None = None) -> Any:
    """Check a request body. null is a parameter that is left out, in every service.

    Raises:
        GraphError: a line for each value that the service's document does not allow.
    """
    if isinstance(service, type):
        return service.read(document, family)  # pyright: ignore
    if not _is_shallow(document):
        raise GraphError([f"found lists more than {MOST_NESTED} deep; expected the JSON object that a service takes"])
    if not isinstance(document, dict):
        raise GraphError([f"found {shown(document)}; expected the JSON object that is sent to {service.title}"])
    given = {name: value for name, value in document.items() if value is not None}
    if broken := [name for name, value in given.items() if not _is_unicode([name, value])]:
        raise GraphError(f"{name}: found half of a surrogate pair; expected Unicode text" for name in broken)
    model = _model(service, family)
    from pydantic import ValidationError

    try:
        parsed = model.model_validate(given)
    except ValidationError as error:
        raise GraphError(_lines(service, error.errors(include_url=False), family)) from None
    values = {parameter.name: getattr(parsed, parameter.name) for parameter in service.parameters}
    names = set(given) & service.by_name.keys()
    values, strange = _known(service, values, service.defaults(family))
    moved = _moved(service, given, values)
    request = Request(service, family, values, names, sorted(given.keys() - service.by_name.keys()), moved, strange)
    if wrong := service.refusals(request):
        raise GraphError(wrong)
    return request


def hint_at(service: Service, name: str) -> str:
    """What an undocumented name may have meant."""
    return closest(name, service.by_name)


def _moved(service: Service, given: dict[str, Any], values: dict[str, Any]) -> dict[str, str]:
    """The numbers for which the nearest listed one was taken."""
    return {
        parameter.name: f"{shown(given[parameter.name])} is none of {listed(parameter.choices)}; the nearest is taken, "
        f"{shown(values[parameter.name])}"
        for parameter in service.parameters
        if parameter.takes_nearest and parameter.name in given and not _is_one(given[parameter.name], parameter.choices)
    }


def _known(service: Service, values: dict[str, Any], defaults: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Spell the texts of open lists as they are known, and take the unknown ones out."""
    strange = {}
    for parameter in service.parameters:
        value = values[parameter.name]
        if parameter.is_open and value is not None:
            found = next((each for each in parameter.choices if _spelling(each) == _spelling(value)), None)
            values = values | {parameter.name: defaults[parameter.name] if found is None else found}
            strange |= {parameter.name: value} if found is None else {}
    return values, strange


def _spelling(name: str) -> str:
    """Return what two spellings of a name have in common: letters and digits, without "Scheduler" at the end."""
    return re.sub(r"[^a-z0-9+]", "", name.lower()).removesuffix("scheduler")


def _is_one(value: Any, numbers: Sequence[float]) -> bool:
    """Whether a number, or one written as text, is among others."""
    try:
        return float(value) in numbers
    except OverflowError:
        return False


def _lines(service: Service, errors: list[Any], family: str | None) -> list[str]:
    found = {}
    for error in errors:
        name = error["loc"][0]
        what = "missing" if error["type"] == "missing" else f"found {shown(error['input'])}"
        parameter = service.by_name[name]
        hint = OTHER_FAMILY if family in parameter.family_within else ""
        found.setdefault(name, f"{name}: {what}; expected {parameter.expected(family)}{hint}")
    return list(found.values())


@cache
def _model(service: Service, family: str | None) -> type[BaseModel]:
    """Make the pydantic model of a service's requests, for models of a family."""
    try:
        import pydantic
    except ModuleNotFoundError as error:
        line = 'pydantic is not installed, which reads requests; install it: pip install "tessera-nodes[host]"'
        raise GraphError([line]) from error
    fields: dict[str, Any] = {
        parameter.name: (
            (_type(parameter, family), ...)
            if parameter.required
            else (_type(parameter, family) | None, parameter.default_for(family))
        )
        for parameter in service.parameters
    }
    config = pydantic.ConfigDict(protected_namespaces=(), validate_default=True)
    return pydantic.create_model(service.name, __config__=config, **fields)


def _type(parameter: Parameter, family: str | None) -> Any:
    """The annotated type of a parameter's values; numbers may be written as text, as the services' own pages do."""
    from pydantic import AfterValidator, BeforeValidator, Field

    low, high = parameter.range_for(family)
    bounds: dict[str, Any] = {"gt" if parameter.above else "ge": low, "le": high, "multiple_of": parameter.step}
    within = Field(**{name: bound for name, bound in bounds.items() if bound is not None})
    no_flag = BeforeValidator(_no_flag)
    whole: Any = Annotated[int, no_flag, within]
    number: Any = Annotated[float, no_flag, Field(allow_inf_nan=False), within]
    if parameter.takes_nearest:
        found = whole if parameter.kind == "whole" else number
        return Annotated[
            found, AfterValidator(lambda value: min(parameter.choices, key=lambda each: abs(each - value)))
        ]
    if parameter.is_open:
        return str
    if parameter.choices and parameter.kind != "yes/no":
        return Literal[parameter.choices]
    types: dict[str, Any] = {
        "text": str,
        "whole": whole,
        "number": number,
        "flag": bool,
        "yes/no": bool,
        "seed": whole,
        "seeds": whole | Annotated[list[whole], Field(min_length=1, max_length=MOST_NUMBERS)],
        "texts": Annotated[list[str], Field(max_length=MOST_NUMBERS)],
        "numbers": Annotated[list[number], Field(max_length=MOST_NUMBERS)],
        "objects": Annotated[list[dict[str, Any]], Field(max_length=MOST_NUMBERS)],
        "weights": dict[str, number | None],
        "names": dict[str, str | None],
        "samples": dict[str, list[str] | None],
        "strengths": Annotated[list[number], BeforeValidator(_split), Field(max_length=MOST_NUMBERS)],
    }
    return types[parameter.kind]


def _is_shallow(document: Any) -> bool:
    level = [document]
    for _ in range(MOST_NESTED):
        level = [item for each in level for item in _items(each)]
    return not level


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a flag is no number")
    return value


def _split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
