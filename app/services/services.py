"""The services whose requests can be imported."""

from __future__ import annotations

from ...host.errors import GraphError, closest, listed, shown
from . import leonardo, modelslab, octoai, scenario
from .tables import Service

SERVICES = {
    service.service: service
    for service in (
        scenario.TextureRequest,
        scenario.IPAdapterRequest,
        modelslab.ModelsLabRequest,
        octoai.OctoAIRequest,
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
