"""ModelsLab: the community endpoints of text to image and ControlNet.

Their parameters are those of the enterprise endpoint and a few more, of the pages "LoRA" (v6/images/text2img) and
"ControlNet Main Endpoint", and of the service's public client.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..bodies.parameters import NOT_YET, Approximated, NoEffect, To
from ..drawing import control_networks
from ..drawing.recipe import FindImage, Guide, Recipe
from .modelslab import ModelsLabRequest, YesNo

MOST_STEPS = 20
UPSCALED = 2.0


class CommunityRequest(ModelsLabRequest):
    """ModelsLab: text to image with community models."""

    service = "modelslab-community"
    title = "ModelsLab community models"

    num_inference_steps: Annotated[
        int | None,
        Field(ge=1, description="Above 20, 20 is taken, as by the service. The document has no default; 20 is taken."),
        To("sampler.steps"),
    ] = None
    multi_lingual: Annotated[YesNo | None, NoEffect("Prompts are not translated.")] = None
    panorama: Annotated[
        YesNo | None,
        Field(description="The left and right edges meet; the service's method is not public."),
        Approximated("seamless model.tiling"),
    ] = None
    self_attention: Annotated[YesNo | None, NoEffect("The service's method is not public.")] = None
    upscale: Annotated[
        YesNo | None,
        Field(description="Twice the size, with the first file in models/upscale_models."),
        To("enlarge.upscale_model", "enlarge size.width", "enlarge.width", "enlarge.scale_by"),
    ] = None

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = super().recipe(find_image, seed)
        made.steps = min(self.num_inference_steps or MOST_STEPS, MOST_STEPS)
        made.tiling = "horizontal" if self.panorama else ""
        made.enlarge = UPSCALED if self.upscale else 1.0
        return made


class ControlRequest(CommunityRequest):
    """ModelsLab: ControlNet."""

    service = "modelslab-controlnet"
    title = "ModelsLab ControlNet"

    controlnet_model: Annotated[
        str | None,
        Field(description="Names with commas between them, each the first ControlNet file with that word in its name."),
        To(control_networks.NETWORK),
    ] = None
    controlnet_type: Annotated[
        str | None,
        Field(description="As controlnet_model, where that is left out."),
        To(control_networks.NETWORK),
    ] = None
    auto_hint: Annotated[
        YesNo | None,
        Field(description="yes: edges are found in the image for canny; no node finds the others."),
        Approximated("control edges.image"),
    ] = None
    guess_mode: Annotated[YesNo | None, NoEffect("No node guesses a prompt.")] = None
    control_image: Annotated[
        str | None,
        Field(description="As init_image, which is followed instead where it is left out, and not painted over then."),
        To(control_networks.IMAGE, needs="controlnet_model"),
    ] = None

    @property
    def networks(self) -> list[str]:
        """The names of the ControlNets."""
        names = self.controlnet_model or self.controlnet_type or ""
        return [name.strip().lower() for name in names.split(",") if name.strip()]

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        alone = bool(self.networks) and not (self.control_image or self.init_image)
        line = "init_image: missing beside controlnet_model; expected an image in it or in control_image"
        return super().refusals() + [line] * alone

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = super().recipe(find_image, seed)
        file = find_image("control_image", self.control_image) if self.control_image else made.init_image
        if not self.networks or not file:
            return made
        hint = bool(self.auto_hint)
        made.guides = [Guide(file, name, 1.0, 1.0, hint and name == "canny") for name in self.networks]
        if hint and "canny" not in self.networks:
            made.notes["auto_hint"] = (NOT_YET, "no node finds it in the image, which goes in as it is")
        if not self.control_image and not made.mask and self.strength is None:
            made.init_image, made.strength = None, 1.0
        return made
