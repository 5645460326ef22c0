"""From a request body to a workflow and a report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...host.errors import GraphError, one_line, shown
from ...host.schema.object_info import inputs_of
from .build import build, choices
from .graph_layout import Drawing
from .images import Pictures
from .model_names import family_of
from .parameters import APPROXIMATED, MAPPED, MEANINGLESS, NOT_YET, UNKNOWN, Parameter
from .recipe import Note, Recipe
from .request import Request, Service, hint_at, parse

# What the table says about a value that is left out.
_DEFAULTS = re.compile(r";?\s*(?:Left out:|The document has no default;).*?(?:\.(?=\s|$)|$)")


@dataclass(frozen=True)
class Line:
    """What became of one parameter."""

    name: str
    outcome: str
    text: str

    def __str__(self) -> str:
        return one_line(f"{self.name}: {self.outcome}; {self.text}" if self.text else f"{self.name}: {self.outcome}")


def convert(
    service: Service,
    document: Any,
    info: Mapping[str, Mapping[str, Any]],
    pictures: Pictures,
    seed: int,
    model: str | None = None,
    family: str | None = None,
    strict: bool = False,
    text_model: str = "",
    background_model: str = "",
) -> tuple[dict[str, Any], list[Line]]:
    """Make a workflow of a request body.

    Args:
        info: the nodes that are there, in the shape of /object_info.
        pictures: takes the request's pictures.
        seed: for a request that names none.
        model: the checkpoint to use instead of the request's.
        family: of the model that was asked for; None tells it by its name.
        strict: refuse what would only be approximated or left out.
        text_model: the folder in models/text_generation that writes prompts better.
        background_model: the file in models/background_removal that tells what is in front.

    Returns:
        The UI-format file, and a line for each parameter that the request sets or that has a default.

    Raises:
        GraphError: the request is not what the service documents, or strict and not wholly possible.
    """
    asked = document if isinstance(document, dict) else {}
    names = [asked.get(name) for name in ("baseModelId", "modelId", "model_id", "checkpoint", "sd_version")]
    said = family or family_of(*(name for name in names if isinstance(name, str)))
    # A demo model stands for the request's own; it does not change what the service's document says.
    demo = model in choices(info, "TesseraDemoCheckpoint", "name")
    family = said or (service.family if demo else None) or family_of(model) or service.family
    request = parse(service, document, family)
    recipe = service.recipe(request, pictures, seed)
    recipe.model = model or recipe.model
    recipe.text_model = text_model
    recipe.background_model = background_model
    graph = build(recipe, info, family)
    lines = [*_lines(request, recipe, graph), *(_unknown(service, name) for name in request.unknown)]
    wrong = [line for line in lines if line.outcome in (APPROXIMATED, NOT_YET, UNKNOWN) and line.name in asked]
    if strict and wrong:
        raise GraphError(f"{line}; refused with --strict" for line in wrong)
    return graph.document("\n".join(map(str, lines))), lines


def _unknown(service: Service, name: str) -> Line:
    return Line(name, UNKNOWN, f"{service.title} documents no such parameter; left out{hint_at(service, name)}")


def _lines(request: Request, recipe: Recipe, graph: Drawing) -> list[Line]:
    said = [
        (parameter, *_outcome(parameter, request, recipe, graph))
        for parameter in request.service.parameters
        if request[parameter.name] is not None
    ]
    return [Line(parameter.name, outcome, _text(parameter, request, text)) for parameter, outcome, text in said]


def _text(parameter: Parameter, request: Request, text: str) -> str:
    if parameter.name in request.given:
        text = _DEFAULTS.sub("", text)
    default = "" if parameter.name in request.given else f"left out, so {shown(request[parameter.name])}"
    deprecated = f"deprecated, use {parameter.instead}" if parameter.instead and parameter.name in request.given else ""
    return "; ".join(part.rstrip(".") for part in (default, text, deprecated) if part)


def _outcome(parameter: Parameter, request: Request, recipe: Recipe, graph: Drawing) -> Note:
    """What became of a parameter in this request."""
    if parameter.name in recipe.notes:
        return recipe.notes[parameter.name]
    nothing_asked = request[parameter.name] is False or (
        not request[parameter.name] and parameter.name not in request.given
    )
    if nothing_asked and parameter.outcome != MEANINGLESS:
        return MAPPED, "off"
    missing = [recipe.missing[role] for role in _roles(parameter) if role in recipe.missing]
    if missing:
        return missing[0]
    places = _places(parameter, graph)
    if places or not parameter.goes:
        moved = request.moved.get(parameter.name, "")
        outcome = APPROXIMATED if moved and parameter.outcome == MAPPED else parameter.outcome
        return outcome, "; ".join(part for part in (", ".join(places), moved, parameter.how) if part)
    return MEANINGLESS, "without effect on this workflow"


def _class(place: str) -> str:
    return place.partition(":")[2].partition(".")[0]


def _roles(parameter: Parameter) -> list[str]:
    return [place.partition(":")[0] for place in parameter.goes]


def _places(parameter: Parameter, graph: Drawing) -> list[str]:
    """The nodes and inputs that a value went to; the roles "lora 5" and "lora" are one."""
    found = {}
    for place in parameter.goes:
        role, _, target = place.partition(":")
        name = target.partition(".")[2]
        # The cfg of a model that has its guidance elsewhere is 1.
        if name == "cfg" and "guidance" in graph.nodes:
            continue
        for each, node in graph.nodes.items():
            same = each == role or (each.startswith(f"{role} ") and node.class_type == _class(place))
            spec = inputs_of(graph.info[node.class_type]).get(name)
            # A widget that something is linked to has its value there.
            linked = spec is not None and spec.is_widget and isinstance(node.inputs.get(name), tuple)
            if same and spec is not None and not linked:
                found[f"node {graph.number(each)} {node.class_type}.{name}"] = None
    return list(found)
