"""Scenario: txt2img-texture and txt2img-ip-adapter.

The documents name few of their parameters beside the descriptions; names are those of the public API. The values of the
`scheduler` list are not in the documents.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from ....host.errors import GraphError, shown
from ....images.service_limits import ANY_SIDE, COUNTS, GUIDANCE, SIDES, STEP, STEPS
from ..bodies.nested import Keys
from ..bodies.parameters import (
    FAMILIES,
    MODEL,
    MODEL_FILE,
    NO_EFFECT,
    Approximated,
    ByFamily,
    Known,
    Meaningless,
    To,
    within,
)
from ..bodies.request import MOST, Objects, Request, Texts
from ..drawing.recipe import FindImage, Recipe, ReferenceImage, named_weights
from .scheduler_names import DIFFUSERS

USUAL_SCALE = 0.9

_FAMILIES = {key: name for key, name in FAMILIES.items() if name in GUIDANCE}
_GUIDANCE = ByFamily(
    {key: GUIDANCE[name][1] for key, name in _FAMILIES.items()},
    {key: GUIDANCE[name][0] for key, name in _FAMILIES.items()},
)
_SIDES = ByFamily({key: SIDES[name] for key, name in _FAMILIES.items() if name in SIDES})
_SIDE = within(ANY_SIDE, multiple_of=STEP)
_SCALE = To("image prompt.scale", needs="a reference image")
_IMAGES = "image prompt image.image"


class ScenarioRequest(Request):
    """What the endpoints of Scenario have in common."""

    originalAssets: Annotated[str | None, Meaningless("Files are saved as they were made.")] = None
    seed: Annotated[
        int | None,
        within((0, 2**64 - 1), description="Left out: random, or the one given with --seed."),
        To("sampler.seed", "noise.noise_seed"),
    ] = None
    modelId: Annotated[str, MODEL_FILE, MODEL]
    modelEpoch: Annotated[
        str | None,
        Field(description="The LoRA file named modelId-modelEpoch, on top of baseModelId."),
        To("lora.lora_name", needs="a LoRA of that epoch"),
    ] = None
    hideResults: Annotated[bool, Meaningless("There is no gallery to hide from.")] = False
    negativePrompt: Annotated[
        str | None,
        Field(description="Without effect where guidance is below 1. Flux needs negativePromptStrength above 0."),
        To("negative.text"),
    ] = None
    scheduler: Annotated[
        str | None,
        Field(
            description="The document lists no names; these are those of diffusers. "
            "Left out: euler on the model's usual noise levels."
        ),
        Known(DIFFUSERS),
        To("sampler.scheduler", "schedule.scheduler"),
    ] = None
    intermediateImages: Annotated[
        bool,
        Field(description="The image as it stood at each step, saved with names of its own."),
        To("sampler.every", "intermediate images.images"),
    ] = False
    concepts: Annotated[
        Objects | None,
        Field(description="Each {modelId, scale} is a LoRA file of that name; scale 1 where it is left out."),
        Keys({"modelId": (), "scale": (0.1, 1.0)}),
        To("lora.lora_name", "lora.strength_model"),
    ] = None
    guidance: Annotated[
        float | None,
        within(
            (0.0, 20.0),
            description="Stable Diffusion: the guidance scale, where below 1 means none. "
            "Flux: the guidance it was trained with.",
        ),
        _GUIDANCE,
        To("sampler.cfg", "guider.cfg", "guidance.guidance"),
    ] = None
    numInferenceSteps: Annotated[int, within(STEPS["Scenario"]), To("sampler.steps", "schedule.steps")] = 30
    numSamples: Annotated[int, within(COUNTS["Scenario"]), To("size.batch_size")] = 4
    width: Annotated[int, _SIDE, _SIDES, To("size.width")] = 512
    negativePromptStrength: Annotated[
        float,
        within(
            (0.0, 10.0),
            description="Flux only. The service takes it for txt2img, img2img and controlnet alone; "
            "here it works everywhere.",
        ),
        To("flux negative.strength", needs="a Flux model and negativePrompt"),
    ] = 0.0
    baseModelId: Annotated[
        str | None, Field(description="As modelId, which then names a LoRA on top of it."), MODEL
    ] = None
    prompt: Annotated[str, To("positive.text")]
    height: Annotated[int, _SIDE, _SIDES, To("size.height")] = 512

    def refusals(self) -> list[str]:
        """Return what the documents forbid across parameters."""
        weak = self.negativePrompt and not self.negativePromptStrength
        if self.family not in ("flux-dev", "flux-pro") or not weak:
            return []
        found = "found 0" if "negativePromptStrength" in self.given else "missing"
        return [f"negativePromptStrength: {found} beside negativePrompt; a Flux model needs a number above 0 up to 10"]

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        on_base = self.baseModelId or self.modelEpoch
        made = Recipe(
            prompt=self.prompt,
            size=(self.width, self.height),
            seeds=[seed if self.seed is None else self.seed],
            negative=self.negativePrompt or "",
            negative_strength=self.negativePromptStrength,
            model=self.baseModelId or self.modelId,
            lora_on_base="-".join(filter(None, [self.modelId, self.modelEpoch])) if on_base else "",
            count=self.numSamples,
            steps=self.numInferenceSteps,
            guidance=self.guidance,
            scheduler=self.scheduler,
            loras=named_weights("concepts", self.concepts, "modelId", "scale"),
            intermediate=self.intermediateImages,
        )
        if self.family == "flux-schnell" and self.negativePrompt:
            remark = "the service documents it for other Flux models; here it acts on Fast-Flux, too"
            made.remarks |= dict.fromkeys(("negativePrompt", "negativePromptStrength"), remark)
        return made


class TextureRequest(ScenarioRequest):
    """Scenario: txt2img-texture."""

    service = "scenario-texture"
    title = "Scenario txt2img-texture"

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = super().recipe(find_image, seed)
        made.tiling = "both"
        return made


class IPAdapterRequest(ScenarioRequest):
    """Scenario: txt2img-ip-adapter."""

    service = "scenario-ip-adapter"
    title = "Scenario txt2img-ip-adapter"

    ipAdapterImageIds: Annotated[
        Texts | None,
        Field(description="Say which file each is with --image. Ignored beside ipAdapterImages."),
        To(_IMAGES),
    ] = None
    ipAdapterImageId: Annotated[
        str | None,
        Field(description="Refused beside ipAdapterImage, ignored beside ipAdapterImageIds."),
        To(_IMAGES, instead="ipAdapterImageIds"),
    ] = None
    ipAdapterScale: Annotated[
        float,
        within((0.0, 1.0), description="Ignored beside ipAdapterScales."),
        To(*_SCALE.places, needs=_SCALE.needs, instead="ipAdapterScales"),
    ] = 0.9
    ipAdapterType: Annotated[Literal["style", "character"], To("image prompt.type", needs="a reference image")] = (
        "style"
    )
    aspectRatio: Annotated[
        str,
        Field(
            description="For flux.1.1-pro-ultra where no size is given: that ratio on one megapixel, in steps of 16."
        ),
        Approximated("size.width", "size.height"),
    ] = "1:1"
    ipAdapterScales: Annotated[
        Annotated[list[Annotated[float, within((0.0, 1.0))]], MOST] | None,
        Field(description="One for each image; a missing one is 0.9."),
        _SCALE,
    ] = None
    ipAdapterImage: Annotated[
        str | None, Field(description="Ignored beside ipAdapterImages."), To(_IMAGES, instead="ipAdapterImages")
    ] = None
    ipAdapterImages: Annotated[
        Texts | None, Field(description="Data URLs, written to the input folder."), To(_IMAGES)
    ] = None

    def refusals(self) -> list[str]:
        """Return what the documents forbid across parameters."""
        both = {"ipAdapterImageId", "ipAdapterImage"} <= self.given
        line = "ipAdapterImageId: found beside ipAdapterImage; expected one of the two"
        return super().refusals() + [line] * both

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for: lists go before their deprecated forms, data URLs before asset ids."""
        made = super().recipe(find_image, seed)
        name = next((each for each in _FIRST_TO_LAST if self[each]), "")
        values = self[name] if name else []
        files = [find_image(name, value) for value in (values if isinstance(values, list) else [values])]
        scales = [*(self.ipAdapterScales or [self.ipAdapterScale] * len(files)), *[USUAL_SCALE] * len(files)]
        made.image_prompts = [
            ReferenceImage(file, scale, self.ipAdapterType) for file, scale in zip(files, scales, strict=False)
        ]
        ignored = (set(_FIRST_TO_LAST) - {name}) & self.given
        made.notes |= dict.fromkeys(ignored, (NO_EFFECT, f"ignored beside {name}"))
        if len(self.ipAdapterScales or []) > len(files) > 0:
            made.remarks["ipAdapterScales"] = f"those behind the first {len(files)} have no image"
        if self.ipAdapterScales:
            made.notes["ipAdapterScale"] = (NO_EFFECT, "ignored beside ipAdapterScales")
        if "ultra" in self.modelId and not {"width", "height"} & self.given:
            made.size = size_of_ratio(self.aspectRatio)
        else:
            made.notes["aspectRatio"] = (NO_EFFECT, "the service takes it for flux.1.1-pro-ultra without a size alone")
        return made


_FIRST_TO_LAST = ("ipAdapterImages", "ipAdapterImageIds", "ipAdapterImage", "ipAdapterImageId")
"""Reference images in the order in which they count."""


def size_of_ratio(ratio: str) -> tuple[int, int]:
    """Return the size of about one megapixel, in steps of 16, of an aspect ratio "width:height".

    >>> size_of_ratio("16:9")
    (1360, 768)

    Raises:
        GraphError: it is not of that form, or beyond 4:1.
    """
    found = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", ratio)
    wide = int(found[1]) / int(found[2]) if found else 0.0
    if not 0.25 <= wide <= 4.0:
        line = f'aspectRatio: found {shown(ratio)}; expected "width:height" from 1:4 to 4:1, such as "16:9"'
        raise GraphError([line])
    return round(1024 * wide**0.5 / 16) * 16, round(1024 / wide**0.5 / 16) * 16
