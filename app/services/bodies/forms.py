"""The bodies in what holds them: what HTTP clients wrap around one, lists of them, code, and answers of services."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ....files.reading import parse_json
from ....host.errors import GraphError, shown
from .parameters import MEANINGLESS
from .request import MOST_NESTED, Request
from .snippets import Expression, literal, objects

MOST_BODIES = 1000
"""Largest number of bodies in one file."""
FEWEST_OF_ANSWERS = 2
"""An object with so many names of answers is one, and not a request with a slip."""
EMPTY: Mapping[str, Any] = MappingProxyType({})
_OPENED = ("{", "[")


def bodies(content: bytes, service: type[Request]) -> list[Any]:
    """Return the request bodies in the content of a file, as JSON values.

    A body is an object with all parameters that the service requires. Where there is none, the object that comes
    nearest is returned, so that what it lacks can be said.

    Args:
        content: JSON, JSON Lines, a curl command, or code in Python or JavaScript.

    Raises:
        GraphError: there is no object in it, or there are too many bodies.
    """
    document = _document(content)
    found = list(_bodies(document, service))
    if not found:
        nearest = max(_objects(document), key=lambda each: len(_known(each, service)), default=None)
        found = [document if nearest is None or not _known(nearest, service) else nearest]
    if len(found) > MOST_BODIES:
        raise GraphError([f"found {len(found)} bodies; expected at most {MOST_BODIES}; split the file"])
    return [_without_code(each, service) for each in found]


def _document(content: bytes) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        reason = f"not JSON ({error})"
    text = content.decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [json.loads(line) for line in lines if line.lstrip().startswith("{")] or _code(text, reason)
    except (ValueError, RecursionError):
        return _code(text, reason)


def _code(text: str, reason: str) -> Any:
    whole = text.lstrip().startswith(_OPENED)
    found = literal(text) if whole else objects(text)
    if not found:
        raise GraphError([f"{reason}, and no object in it; expected a request body, or a command or code with one"])
    return found


def _bodies(value: Any, service: type[Request], around: Mapping[str, Any] = EMPTY, depth: int = 0) -> Iterator[Any]:
    """Find the bodies in a value; `around` is what the objects around it set of a request."""
    if depth > MOST_NESTED:
        return
    if isinstance(value, list):
        for each in value:
            yield from _bodies(each, service, around, depth + 1)
    elif isinstance(value, str | Expression):
        for each in _inside(value):
            yield from _bodies(each, service, around, depth + 1)
    elif isinstance(value, dict):
        if (body := _body(value, service, around)) is not None:
            yield body
            return
        known = {**around, **_known(value, service), **_seed(value)}
        for name, each in value.items():
            # Objects of a parameter, such as the LoRAs of a request, are no bodies, although they name a model.
            if name not in service.table() or service.table()[name].keys is None:
                yield from _bodies(each, service, known, depth + 1)


def _body(value: dict[str, Any], service: type[Request], around: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the body that an object is, or that an answer in it echoes."""
    required = {name for name, parameter in service.table().items() if parameter.required}
    value = service.flat(value)
    if required <= value.keys() and len(value.keys() & service.answer.keys()) < FEWEST_OF_ANSWERS:
        return {"seed": around["seed"], **value} if "seed" in around else value
    known = {**{name: each for name, each in around.items() if name in required | {"seed"}}, **_known(value, service)}
    return known if required <= known.keys() and required & value.keys() else None


def _known(value: Mapping[str, Any], service: type[Request]) -> dict[str, Any]:
    """Return what an object sets of a request, under the names of its document or of the service's answers."""
    named = {service.answer.get(name, name): each for name, each in value.items()}
    return {name: each for name, each in named.items() if name in service.table() and each not in (None, "")}


def _seed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seed of the first of an answer's images."""
    lists = [items for name, items in value.items() if "image" in name.lower() and isinstance(items, list)]
    seeds = [each.get("seed") for items in lists for each in items if isinstance(each, dict)]
    return {"seed": seeds[0]} if seeds and isinstance(seeds[0], int | str) else {}


def _inside(value: str | Expression) -> list[Any]:
    """Return the objects in a text that is JSON, or in code."""
    if isinstance(value, Expression):
        return value.objects()
    if not value.lstrip().startswith(_OPENED):
        return []
    try:
        return [json.loads(value)]
    except (ValueError, RecursionError):
        return []


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if depth > MOST_NESTED:
        return
    if isinstance(value, dict):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    items = _inside(value) if isinstance(value, str | Expression) else items
    for each in items:
        yield from _objects(each, depth + 1)


def _without_code(body: Any, service: type[Request]) -> Any:
    """Return a body without the code in it, such as a key from the environment, which must not be about the image.

    Raises:
        GraphError: a line for each parameter that code gives a value.
    """
    if not isinstance(body, dict):
        return body
    wrong = []
    for name, value in body.items():
        code = next(iter(_expressions(value)), None)
        told = name in service.table() and service.table()[name].outcome != MEANINGLESS
        if code and told:
            wrong.append(f"{name}: found the code {shown(code.code)}; expected its value")
    if wrong:
        raise GraphError(wrong)
    return {name: value for name, value in body.items() if not list(_expressions(value))}


def _expressions(value: Any) -> Iterator[Expression]:
    if isinstance(value, Expression):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    for each in items:
        yield from _expressions(each)
