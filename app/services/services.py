"""The services whose requests can be imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ...host.errors import GraphError, closest, listed, shown
from . import leonardo, modelslab, octoai, scenario
from .parameters import Parameter
from .recipe import PictureFinder, Recipe

if TYPE_CHECKING:
    from .request import Request


@dataclass(frozen=True)
class Service:
    """One endpoint: its name on the command line, its title, its parameters, and what it forbids across them,
    what a request asks for, and the family of its models where nothing tells another."""

    name: str
    title: str
    parameters: Sequence[Parameter]
    refusals: Callable[[Request], list[str]]
    recipe: Callable[[Request, PictureFinder, int], Recipe]
    family: str | None = None

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}


SERVICES = {
    service.name: service
    for service in (
        Service("scenario-texture", "Scenario txt2img-texture", scenario.TEXTURE, scenario.refusals, scenario.recipe),
        Service(
            "scenario-ip-adapter",
            "Scenario txt2img-ip-adapter",
            scenario.IP_ADAPTER,
            scenario.refusals,
            scenario.recipe,
        ),
        Service("modelslab", "ModelsLab", modelslab.PARAMETERS, modelslab.refusals, modelslab.recipe),
        Service("octoai", "OctoAI Generate SDXL", octoai.PARAMETERS, octoai.refusals, octoai.recipe, "sdxl"),
        Service(
            "leonardo",
            "Leonardo Create a Generation of Images",
            leonardo.PARAMETERS,
            leonardo.refusals,
            leonardo.recipe,
        ),
    )
}


def find_service(name: str) -> Service:
    """The service of a name.

    Raises:
        GraphError: there is none.
    """
    if name not in SERVICES:
        hint = closest(name, SERVICES) or f"; expected one of {listed(SERVICES)}"
        raise GraphError([f"{shown(name)}: no such service{hint}"])
    return SERVICES[name]
