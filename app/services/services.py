"""The services whose requests can be imported."""

from __future__ import annotations

from ...host.errors import GraphError, closest, listed, shown
from .bodies.request import Request
from .hosted import (
    leonardo,
    leonardo_v2,
    modelslab,
    modelslab_control,
    octoai,
    scenario,
    scenario_textures,
    scenario_upscale,
)

SERVICES: dict[str, type[Request]] = {
    made.service: made
    for made in (
        scenario.TextureRequest,
        scenario.IPAdapterRequest,
        scenario_textures.ImageTextureRequest,
        scenario_textures.ControlTextureRequest,
        scenario_textures.TextureConverterRequest,
        scenario_upscale.TextureUpscaleRequest,
        modelslab.ModelsLabRequest,
        modelslab_control.CommunityRequest,
        modelslab_control.ControlRequest,
        octoai.OctoAIRequest,
        leonardo.LeonardoRequest,
        leonardo_v2.LeonardoV2Request,
    )
}


def find_service(name: str) -> type[Request]:
    """Return the service of a name.

    Raises:
        GraphError: there is none.
    """
    if name not in SERVICES:
        hint = closest(name, SERVICES) or f"; expected one of {listed(SERVICES)}"
        raise GraphError([f"{shown(name)}: no such service{hint}"])
    return SERVICES[name]
