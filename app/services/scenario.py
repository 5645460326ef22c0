"""Scenario: txt2img-texture and txt2img-ip-adapter.

The documents name few of their parameters beside the descriptions; names are those of the public API. The values of the
`scheduler` list are not in the documents.
"""

from __future__ import annotations

import re

from ...host.errors import GraphError, shown
from ...images.service_limits import ANY_SIDE, COUNTS, GUIDANCE, SIDES, STEP, STEPS
from .parameters import APPROXIMATED, FAMILIES, MAPPED, MEANINGLESS, NO_EFFECT, Parameter
from .recipe import FindImage, ImagePrompt, Recipe, named_weights
from .request import Request
from .scheduler_names import DIFFUSERS

_FAMILIES = {key: name for key, name in FAMILIES.items() if name in GUIDANCE}
_GUIDANCE = {key: GUIDANCE[name][0] for key, name in _FAMILIES.items()}
_GUIDANCE_RANGES = {key: GUIDANCE[name][1] for key, name in _FAMILIES.items()}
_SIZES = {key: SIDES[name] for key, name in _FAMILIES.items() if name in SIDES}

USUAL_SCALE = 0.9


def _side(name: str) -> Parameter:
    goes = (f"size.{name}",)
    return Parameter(name, "whole", MAPPED, goes, "", 512, ANY_SIDE, step=STEP, family_within=_SIZES)


COMMON = (
    Parameter("originalAssets", "text", MEANINGLESS, how="Files are saved as they were made."),
    Parameter(
        "seed",
        "seed",
        MAPPED,
        ("sampler.seed", "noise.noise_seed"),
        "Left out: random, or the one given with --seed.",
        None,
        (0, 2**64 - 1),
    ),
    Parameter(
        "modelId",
        "text",
        MAPPED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "The file of that name, or the one given with --model; a demo model replaces one that is missing.",
        required=True,
    ),
    Parameter(
        "modelEpoch",
        "text",
        MAPPED,
        ("lora.lora_name",),
        "The LoRA file named modelId-modelEpoch, on top of baseModelId.",
        needs="a LoRA of that epoch",
    ),
    Parameter("hideResults", "flag", MEANINGLESS, how="There is no gallery to hide from.", default=False),
    Parameter(
        "negativePrompt",
        "text",
        MAPPED,
        ("negative.text",),
        "Without effect where guidance is below 1. Flux needs negativePromptStrength above 0.",
    ),
    Parameter(
        "scheduler",
        "choice",
        MAPPED,
        ("sampler.scheduler", "schedule.scheduler"),
        "The document lists no names; these are those of diffusers. Left out: euler on the model's usual noise levels.",
        choices=DIFFUSERS,
        is_open=True,
    ),
    Parameter(
        "intermediateImages",
        "flag",
        MAPPED,
        ("sampler.every", "intermediate images.images"),
        "The image as it stood at each step, saved with names of its own.",
        False,
    ),
    Parameter(
        "concepts",
        "objects",
        MAPPED,
        ("lora.lora_name", "lora.strength_model"),
        "Each {modelId, scale} is a LoRA file of that name; scale 1 where it is left out.",
    ),
    Parameter(
        "guidance",
        "number",
        MAPPED,
        ("sampler.cfg", "guider.cfg", "guidance.guidance"),
        "Stable Diffusion: the guidance scale, where below 1 means none. Flux: the guidance it was trained with.",
        None,
        (0.0, 20.0),
        family_within=_GUIDANCE_RANGES,
        family_default=_GUIDANCE,
    ),
    Parameter(
        "numInferenceSteps",
        "whole",
        MAPPED,
        (
            "sampler.steps",
            "schedule.steps",
        ),
        "",
        30,
        STEPS["Scenario"],
    ),
    Parameter("numSamples", "whole", MAPPED, ("size.batch_size",), "", 4, COUNTS["Scenario"]),
    _side("width"),
    Parameter(
        "negativePromptStrength",
        "number",
        MAPPED,
        ("flux negative.strength",),
        "Flux only. The service takes it for txt2img, img2img and controlnet alone; here it works everywhere.",
        0.0,
        (0.0, 10.0),
        needs="a Flux model and negativePrompt",
    ),
    Parameter(
        "baseModelId",
        "text",
        MAPPED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "As modelId, which then names a LoRA on top of it.",
    ),
    Parameter("prompt", "text", MAPPED, ("positive.text",), required=True),
    _side("height"),
)

TEXTURE = COMMON

_PICTURES = ("image prompt image.image",)
_SCALE = ("image prompt.scale",)

IP_ADAPTER = (
    *COMMON,
    Parameter(
        "ipAdapterImageIds",
        "texts",
        MAPPED,
        _PICTURES,
        "Say which file each is with --image. Ignored beside ipAdapterImages.",
    ),
    Parameter(
        "ipAdapterImageId",
        "text",
        MAPPED,
        _PICTURES,
        "Refused beside ipAdapterImage, ignored beside ipAdapterImageIds.",
        instead="ipAdapterImageIds",
    ),
    Parameter(
        "ipAdapterScale",
        "number",
        MAPPED,
        _SCALE,
        "Ignored beside ipAdapterScales.",
        0.9,
        (0.0, 1.0),
        instead="ipAdapterScales",
        needs="a reference image",
    ),
    Parameter(
        "ipAdapterType",
        "choice",
        MAPPED,
        ("image prompt.type",),
        "",
        "style",
        choices=("style", "character"),
        needs="a reference image",
    ),
    Parameter(
        "aspectRatio",
        "text",
        APPROXIMATED,
        ("size.width", "size.height"),
        "For flux.1.1-pro-ultra where no size is given: that ratio on one megapixel, in steps of 16.",
        "1:1",
    ),
    Parameter(
        "ipAdapterScales",
        "numbers",
        MAPPED,
        _SCALE,
        "One for each image; a missing one is 0.9.",
        None,
        (0.0, 1.0),
        needs="a reference image",
    ),
    Parameter(
        "ipAdapterImage", "text", MAPPED, _PICTURES, "Ignored beside ipAdapterImages.", instead="ipAdapterImages"
    ),
    Parameter("ipAdapterImages", "texts", MAPPED, _PICTURES, "Data URLs, written to the input folder."),
)


def refusals(request: Request) -> list[str]:
    """What the documents forbid across parameters."""
    lines = []
    if (
        request.family in ("flux-dev", "flux-pro")
        and request["negativePrompt"]
        and not request["negativePromptStrength"]
    ):
        lines.append(
            "negativePromptStrength: missing beside negativePrompt; a Flux model needs a number above 0 up to 10"
        )
    if {"ipAdapterImageId", "ipAdapterImage"} <= request.given:
        lines.append("ipAdapterImageId: found beside ipAdapterImage; expected one of the two")
    return lines


def recipe(request: Request, find_image: FindImage, seed: int) -> Recipe:
    """What a request asks for; `seed` is taken where it names none."""
    made = Recipe(
        prompt=request["prompt"],
        size=(request["width"], request["height"]),
        seeds=[seed if request["seed"] is None else request["seed"]],
        negative=request["negativePrompt"] or "",
        negative_strength=request["negativePromptStrength"],
        model=request["baseModelId"] or request["modelId"],
        lora_on_base="-".join(filter(None, [request["modelId"], request["modelEpoch"]]))
        if request["baseModelId"] or request["modelEpoch"]
        else "",
        count=request["numSamples"],
        steps=request["numInferenceSteps"],
        guidance=request["guidance"],
        scheduler=request["scheduler"],
        loras=named_weights("concepts", request["concepts"], "modelId", "scale"),
        tiling=request.service.name == "scenario-texture",
        intermediate=request["intermediateImages"],
    )
    if request.family == "flux-schnell" and request["negativePrompt"]:
        remark = "the service documents it for other Flux models; here it acts on Fast-Flux, too"
        made.remarks |= dict.fromkeys(("negativePrompt", "negativePromptStrength"), remark)
    if request.service.name == "scenario-ip-adapter":
        _reference(request, find_image, made)
    return made


def _reference(request: Request, find_image: FindImage, made: Recipe) -> None:
    """Add the reference images: lists go before their deprecated forms, data URLs before asset ids."""
    name = next((each for each in ("ipAdapterImages", "ipAdapterImageIds") if request[each]), None)
    name = name or next((each for each in ("ipAdapterImage", "ipAdapterImageId") if request[each]), "")
    values = request[name] if name else []
    files = [find_image(name, value) for value in (values if isinstance(values, list) else [values])]
    scales = request["ipAdapterScales"] or [request["ipAdapterScale"]] * len(files)
    scales = [*scales, *[USUAL_SCALE] * len(files)]
    made.image_prompts = [
        ImagePrompt(file, scale, request["ipAdapterType"]) for file, scale in zip(files, scales, strict=False)
    ]
    ignored = {"ipAdapterImages", "ipAdapterImageIds", "ipAdapterImage", "ipAdapterImageId"} - {name}
    made.notes |= dict.fromkeys(ignored & request.given, (NO_EFFECT, f"ignored beside {name}"))
    if request["ipAdapterScales"]:
        made.notes["ipAdapterScale"] = (NO_EFFECT, "ignored beside ipAdapterScales")
    ultra = "ultra" in request["modelId"] and not {"width", "height"} & request.given
    if ultra:
        made.size = size_of_ratio(request["aspectRatio"])
    else:
        made.notes["aspectRatio"] = (NO_EFFECT, "the service takes it for flux.1.1-pro-ultra without a size alone")


def size_of_ratio(ratio: str) -> tuple[int, int]:
    """The size of about one megapixel, in steps of 16, of an aspect ratio "width:height".

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
