"""Requests checked against what the services document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from ....host.errors import GraphError, listed, shown
from ..drawing.recipe import FindImage, Recipe
from .parameters import MOST_ITEMS, OTHER_FAMILY, Parameter, spelled

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_NESTED = 32

MOST = Field(max_length=MOST_ITEMS)
Texts = Annotated[list[str], MOST]
Objects = Annotated[list[dict[str, Any]], MOST]


class Request(BaseModel):
    """A request that its service would take: a subclass has a field for each parameter of one endpoint.

    Attributes:
        service: its name on the command line.
        title: its name in messages and pages.
        usual_family: of its models, where nothing tells another.
        answer: what its answers call a parameter, where that is another name.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=(), allow_inf_nan=False)

    service: ClassVar[str]
    title: ClassVar[str]
    usual_family: ClassVar[str | None] = None
    answer: ClassVar[Mapping[str, str]] = {}

    _family: str | None = PrivateAttr(None)
    _sent: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    @cache
    def table(cls) -> dict[str, Parameter]:
        """Return the parameters by name, in the order of the document."""
        return {name: Parameter(name, _plain(info.annotation), info) for name, info in cls.model_fields.items()}

    @classmethod
    def flat(cls, document: Any) -> Any:
        """Return a body whose parameters are all at its top, as they are in most services."""
        return document

    @classmethod
    def read(cls, document: Any, family: str | None = None) -> Self:
        """Check a request body. null is a parameter that is left out, in every service.

        Args:
            family: of the model that is asked for, a key of FAMILIES; None where it is not known.

        Raises:
            GraphError: a line for each value that the service's document does not allow.
        """
        sent = _sent(cls.flat(document), cls.title)
        try:
            made = cls.model_validate(cls._usual(family) | sent, context={"family": family})
        except ValidationError as error:
            raise GraphError(_lines(cls, error.errors(include_url=False), family)) from None
        made = made._of(family, sent)
        if wrong := made.refusals():
            raise GraphError(wrong)
        return made

    @classmethod
    @cache
    def _usual(cls, family: str | None) -> dict[str, Any]:
        """Return the defaults that models of a family have."""
        of_family = {name: parameter.by_family.default for name, parameter in cls.table().items()}
        return {name: default[family] for name, default in of_family.items() if family and family in default}

    def _of(self, family: str | None, sent: dict[str, Any]) -> Self:
        self._family, self._sent = family, sent
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _take_no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        is_flag = any(isinstance(each, bool) for each in items)
        if is_flag and _has_numbers(cls.table()[info.field_name or ""].type):
            raise ValueError("a flag is not a number")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _spell_as_documented(cls, value: Any, info: ValidationInfo) -> Any:
        parameter = cls.table()[info.field_name or ""]
        if isinstance(value, str) and get_origin(parameter.type) is Literal:
            return spelled(value, parameter.choices) or value
        return value

    def refusals(self) -> list[str]:
        """Return a line for each thing that the document forbids across parameters."""
        return []

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for; `seed` is taken where it names none."""
        raise NotImplementedError

    @property
    def family(self) -> str | None:
        """The family of its model, a key of FAMILIES; None where it is not known."""
        return self._family

    @property
    def given(self) -> set[str]:
        """The names of the parameters that the request sets."""
        return self._sent.keys() & self.table().keys()

    @property
    def unknown(self) -> list[str]:
        """The names that the service does not document."""
        return sorted(self._sent.keys() - self.table().keys())

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def asked(self, name: str) -> Any:
        """Return the value of a parameter as the request has it, where it has one, spelled as in its list."""
        value, known = self._sent.get(name, self[name]), self.table()[name].known
        return known.spelled(value) or value if known and isinstance(value, str) else value

    def beside_list(self, name: str) -> str:
        """Say what became of a value that is not in the list of its parameter; "" where it is."""
        parameter, given = self.table()[name], self._sent.get(name)
        if given is None:
            return ""
        if parameter.nearest:
            return parameter.nearest.note(given, self[name])
        return f"left out: {shown(given)} is none of {listed(parameter.choices)}" if self.is_strange(name) else ""

    def is_strange(self, name: str) -> bool:
        """Whether the request has an unknown text of an open list, instead of which the default is taken."""
        known, given = self.table()[name].known, self._sent.get(name)
        return known is not None and given is not None and known.spelled(given) is None

    def without(self, name: str, family: str | None) -> Self:
        """Return the same request where a parameter is left out, for models of `family`; nothing is checked."""
        values = {key: self[key] for key in self.given - {name}}
        left: dict[str, Any] = self._usual(family) | ({name: ""} if self.table()[name].required else {})
        made = self.model_construct(None, **left | values)
        return made._of(family, {key: value for key, value in self._sent.items() if key != name})

    def changed(self, name: str, value: Any) -> Self:
        """Return the same request with another value of a parameter; nothing is checked."""
        return self.model_copy(update={name: value})._of(self.family, self._sent | {name: value})


def _sent(document: Any, title: str) -> dict[str, Any]:
    """Return what a body sets."""
    if not _is_shallow(document):
        raise GraphError([f"found lists more than {MOST_NESTED} deep; expected the JSON object that a service takes"])
    if not isinstance(document, dict):
        raise GraphError([f"found {shown(document)}; expected the JSON object that is sent to {title}"])
    sent = {name: value for name, value in document.items() if value is not None}
    if broken := [name for name, value in sent.items() if not _is_unicode([name, value])]:
        raise GraphError(f"{name}: found half of a surrogate pair; expected Unicode text" for name in broken)
    return sent


def _lines(service: type[Request], errors: list[Any], family: str | None) -> list[str]:
    found = {}
    for error in errors:
        name = error["loc"][0]
        what = "missing" if error["type"] == "missing" else f"found {shown(error['input'])}"
        parameter = service.table()[name]
        hint = OTHER_FAMILY if family in parameter.by_family.within else ""
        found.setdefault(name, f"{name}: {what}; expected {parameter.expected(family)}{hint}")
    return list(found.values())


def _plain(hint: Any) -> Any:
    """Return a type without None, and without what it and its parts are annotated with."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _plain(parts[0])
    if origin in (Union, UnionType):
        return reduce(or_, [_plain(each) for each in parts if each is not type(None)])
    if origin is list:
        return list[_plain(parts[0])]
    return dict[parts[0], _plain(parts[1])] if origin is dict else hint


def _has_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(_has_numbers, get_args(hint)))


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
