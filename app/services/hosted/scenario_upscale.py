"""Scenario: the texture upscale, which enlarges a texture and samples it again, so that it still repeats.

Names, ranges and defaults are those of the service's pages "Scenario Texture Upscale - API Reference" and "Image
upscale models - Scenario".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..bodies.parameters import MODEL, Approximated, NoEffect, To, within
from ..bodies.request import MOST, Request, Texts
from ..drawing import control_networks
from ..drawing.recipe import MAX_LORA_STRENGTH, FindImage, Guide, Recipe, ReferenceImage

_FILE = "Say which file it is with --image."


class TextureUpscaleRequest(Request):
    """Scenario: the texture upscale."""

    service = "scenario-texture-upscale"
    title = "Scenario Texture Upscale"
    usual_family = "flux-dev"

    image: Annotated[
        str,
        Field(description=f"{_FILE} Its size times upscaleFactor is that of the result."),
        To("init image.image"),
    ]
    upscaleFactor: Annotated[
        float,
        within((2.0, 8.0), description="With the first file in models/upscale_models, around the texture's edges."),
        To("enlarge.upscale_model", "enlarge size.width", "enlarge.width"),
    ] = 2.0
    preset: Annotated[
        Literal["precise", "balanced", "creative"],
        NoEffect("What a preset sets is not public; give strength and controlnetConditioningScale."),
    ] = "balanced"
    loras: Annotated[Texts | None, Field(description="Each is a file in models/loras."), To("lora.lora_name")] = None
    lorasScale: Annotated[
        Annotated[list[float], MOST] | None,
        Field(description="One for each LoRA; a missing one is 1. From -20 to 20."),
        To("lora.strength_model", needs="loras"),
    ] = None
    prompt: Annotated[str, To("positive.text")] = ""
    imagePrompt: Annotated[
        Annotated[list[str], Field(max_length=4)] | None,
        Field(description=f"Up to four. {_FILE}"),
        To("image prompt image.image"),
    ] = None
    imagePromptStrength: Annotated[float, within((0.0, 1.0)), To("image prompt.scale", needs="imagePrompt")] = 0.6
    controlnetConditioningScale: Annotated[
        float,
        within(
            (0.0, 1.0),
            description='The first ControlNet file with "tile" in its name follows the texture; 0 has none.',
        ),
        Approximated(control_networks.STRENGTH, control_networks.NETWORK),
    ] = 0.4
    strength: Annotated[
        float,
        within((0.0, 1.0), description="The part of the noise levels that is run; 1 keeps nothing of the texture."),
        To("sampler.denoise"),
    ] = 0.4
    numInferenceSteps: Annotated[int, within((1, 50)), To("sampler.steps")] = 28
    detailsEnable: Annotated[bool, NoEffect("The service's way to enhance details is not public.")] = True
    baseModel: Annotated[
        Literal["FLUX.1-dev", "FLUX.1-Krea-dev"],
        Field(description="The file of that name, or the one given with --model; a demo model replaces it."),
        MODEL,
    ] = "FLUX.1-dev"
    seed: Annotated[
        int | None,
        within((0, 2**31 - 1), description="Left out: random, or the one given with --seed."),
        To("sampler.seed"),
    ] = None

    def refusals(self) -> list[str]:
        """Return what the nodes do not take."""
        most = MAX_LORA_STRENGTH
        wrong = [each for each in self.lorasScale or [] if abs(each) > most]
        return [f"lorasScale: found {wrong[0]:g}; expected numbers from -{most} to {most}"] if wrong else []

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for; the size is that of the image, which is read later."""
        names = self.loras or []
        scales = [*(self.lorasScale or []), *[1.0] * len(names)]
        made = Recipe(
            prompt=self.prompt,
            size=(0, 0),
            seeds=[seed if self.seed is None else self.seed],
            model=self.baseModel,
            steps=self.numInferenceSteps,
            loras=list(zip(names, scales, strict=False)),
            tiling="both",
            image_prompts=[
                ReferenceImage(find_image("imagePrompt", each), self.imagePromptStrength, "style")
                for each in self.imagePrompt or []
            ],
        )
        if len(self.lorasScale or []) > len(names) > 0:
            made.remarks["lorasScale"] = f"those behind the first {len(names)} have no LoRA"
        if not self.image:
            return made
        made.init_image = find_image("image", self.image)
        made.strength, made.upscale = self.strength, self.upscaleFactor
        if self.controlnetConditioningScale:
            made.guides = [Guide(made.init_image, "tile", self.controlnetConditioningScale, 1.0, False)]
        return made
