"""From a request body to a workflow and a report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...host.errors import GraphError
from .bodies.images import RequestImages
from .bodies.request import Request
from .drawing import geometry, idle, models, upscaling
from .drawing.build import build
from .drawing.cuts import Cuts
from .drawing.graph_layout import LaidOutGraph, Node
from .drawing.model_names import family_of
from .drawing.recipe import FindImage, Recipe
from .report import Line, Report

MODEL_NAMES = ("baseModelId", "modelId", "model_id", "checkpoint", "sd_version", "baseModel", "model")
"""Parameters that name a model, the telling one first."""


@dataclass
class _Finder:
    """Finds images as `images` does, and remembers them."""

    images: RequestImages
    known: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)

    def __call__(self, parameter: str, value: str) -> str:
        self.known[value] = self.images(parameter, value)
        self.parameters[self.known[value]] = parameter
        return self.known[value]

    def again(self, parameter: str, value: str) -> str:
        """Return the file name of an image; one that was not read has a name of its own."""
        return self.known.get(value) or f"unread-{hashlib.sha256(value.encode()).hexdigest()[:16]}.png"


@dataclass(frozen=True)
class _Import:
    """What requests to a service are drawn with.

    Attributes: those of `convert`.
    """

    service: type[Request]
    info: Mapping[str, Mapping[str, Any]]
    seed: int
    model: str | None
    family: str | None
    text_model: str
    background_model: str
    cuts: Cuts

    def family_for(self, asked: Mapping[str, Any]) -> str | None:
        """Return the family of the model that is asked for."""
        names = [asked.get(name) for name in MODEL_NAMES]
        said = self.family or family_of(*(name for name in names if isinstance(name, str)))
        # A demo model replaces the request's own; it does not change what the service's document says.
        demo = self.model in models.choices(self.info, "TesseraDemoCheckpoint", "name")
        return (
            said or (self.service.usual_family if demo else None) or family_of(self.model) or self.service.usual_family
        )

    def without(self, request: Request, name: str) -> Request:
        """Return a request without one of its parameters."""
        asked = {key: request[key] for key in request.given - {name}}
        return request.without(name, self.family_for(asked))

    def draw(self, request: Request, find: FindImage) -> tuple[Recipe, LaidOutGraph]:
        """Return what a request asks for, and its graph."""
        recipe = request.recipe(find, self.seed)
        recipe.model = self.model or recipe.model
        recipe.text_model = self.text_model
        recipe.background_model = self.background_model
        idle.leave_out(recipe)
        unit = models.side_unit(self.info, recipe.model, request.family)
        if recipe.upscale and recipe.init_image:
            upscaling.size(recipe, self.cuts.size_of(recipe.init_image), unit)
        geometry.repeat(recipe, unit)
        geometry.tell_margins(recipe)
        self.cuts.check(recipe)
        return recipe, build(recipe, self.info, request.family)

    def redraw(self, request: Request, find: FindImage) -> Mapping[str, Node] | None:
        """Return the nodes that act for a request; None where it cannot be drawn."""
        try:
            return self.draw(request, find)[1].acting()
        except GraphError:
            return None


def convert(
    service: type[Request],
    document: Any,
    info: Mapping[str, Mapping[str, Any]],
    images: RequestImages,
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
        images: takes the request's images.
        seed: for a request that names none.
        model: the checkpoint to use instead of the request's.
        family: of the model that was asked for; None tells it by its name.
        strict: refuse what would be approximated, left out or without effect.
        text_model: the folder in models/text_generation that writes prompts better.
        background_model: the file in models/background_removal that finds the foreground.

    Returns:
        The UI-format file, and a line for each parameter that the request sets or that has a default.

    Raises:
        GraphError: the request is not what the service documents, or strict and not wholly possible.
    """
    document = service.flat(document)
    asked = document if isinstance(document, dict) else {}
    find = _Finder(images)
    cuts = Cuts(images.found, find.parameters)
    drawn = _Import(service, info, seed, model, family, text_model, background_model, cuts)
    request = service.read(document, drawn.family_for(asked))
    recipe, graph = drawn.draw(request, find)
    report = Report(
        request,
        recipe,
        graph,
        redraw=lambda other: drawn.redraw(other, find.again),
        without=lambda name: drawn.without(request, name),
        named=model is not None,
    )
    lines = report.lines()
    if strict and (refused := [line for line in lines if line.refused]):
        raise GraphError(f"{line}; refused with --strict" for line in refused)
    return graph.document("\n".join(map(str, lines))), lines
