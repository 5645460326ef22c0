"""The table of parameters as text, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .bodies.parameters import FAMILIES, Parameter
from .bodies.request import Request
from .services import SERVICES

_HEAD = """# Requests of hosted image services as workflows

`tessera import SERVICE request.json -o workflow.json` makes a workflow of a request body, and says of each parameter
what became of it. The file holds the body, or what holds one: a wrapper of an HTTP client (`{"json": ...}`), a `curl`
command, code in Python or JavaScript, or an answer of the service that repeats the request. Of several bodies, each
becomes a workflow: `workflow_1.json`, `workflow_2.json`, ...

This page is what `tessera params --markdown` prints: do not change it by hand.

* **mapped**: the workflow does the same, and another without the parameter would not; a value that the workflow has
  anyway is told "as by default".
* **approximated**: the workflow does something like it, with the value that is told; `--strict` refuses it.
* **not yet possible**: no node does it, or a file is missing; `--strict` refuses it.
* **without effect here**: the workflow is the same without it, for the reason that is told; `--strict` refuses it,
  unless it has its default.
* **without meaning**: it is about the service, not about the image.

Names in the objects of a list have lines of their own, such as `concepts[0].scale`.

`sampler.cfg` is the input `cfg` of the node with the title "Sampler".

Ranges and defaults are those of the services' documents. The pages of Scenario and Leonardo describe most parameters
without their names, and they and OctoAI's leave out the values of some lists: such names and values are those of public
clients.
"""


def text(services: Sequence[type[Request]]) -> str:
    """For a terminal: a line for each parameter."""
    return "\n".join(line for service in services for line in _block(service))


def _block(service: type[Request]) -> Iterator[str]:
    yield f"{service.service} ({service.title})"
    width = max(len(parameter.name) for parameter in service.table().values())
    for parameter in service.table().values():
        what = "; ".join(part for part in (", ".join(parameter.to.places), parameter.how.rstrip(".")) if part)
        yield f"  {parameter.name:<{width}}  {parameter.outcome:<16}  {takes(parameter)}; {what}"


def takes(parameter: Parameter) -> str:
    """The values of a parameter, its default and its replacement in words."""
    families = [parameter.expected(family) for family in parameter.by_family.within]
    defaults = [f"{value:g} for {FAMILIES[family]}" for family, value in parameter.by_family.default.items()]
    if not defaults and parameter.default is not None:
        defaults = [_in_words(parameter, parameter.default)]
    parts = [
        "; ".join(dict.fromkeys([parameter.expected(), *families])),
        "required" if parameter.required else "",
        f"default {', '.join(defaults) or _in_words(parameter, parameter.default)}"
        if defaults or parameter.default is not None
        else "",
        f"deprecated, use {parameter.to.instead}" if parameter.to.instead else "",
    ]
    return ", ".join(part for part in parts if part)


def _in_words(parameter: Parameter, value: Any) -> str:
    if not isinstance(value, bool):
        return str(value)
    return ("no", "yes")[value] if parameter.expected().startswith('"yes"') else str(value).lower()


def markdown() -> str:
    """The page."""
    return _HEAD + "".join(_section(service) for service in SERVICES.values())


def _section(service: type[Request]) -> str:
    rows = "".join(
        f"| `{parameter.name}` | {takes(parameter)} | **{parameter.outcome}**{_where(parameter)} |\n"
        for parameter in service.table().values()
    )
    return f"\n## {service.title}: `{service.service}`\n\n| parameter | takes | here |\n|---|---|---|\n{rows}"


def _where(parameter: Parameter) -> str:
    places = ", ".join(f"`{place}`" for place in parameter.to.places)
    return "".join(f" {part}" for part in (f"to {places}." if places else "", parameter.how) if part)


def records(services: Sequence[type[Request]]) -> dict[str, list[dict[str, Any]]]:
    """For programs."""
    return {
        service.service: [
            {
                "name": parameter.name,
                "takes": takes(parameter),
                "default": parameter.default,
                "outcome": parameter.outcome,
                "goes": list(parameter.to.places),
                "how": parameter.how,
            }
            for parameter in service.table().values()
        ]
        for service in services
    }
