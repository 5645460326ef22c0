"""Scenario: txt2img-texture and txt2img-ip-adapter.

The documents name few of their parameters beside the descriptions; names are those of the public API. The values of the
`scheduler` list are not in the documents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .parameters import APPROXIMATED, MAPPED, MEANINGLESS, NOT_YET, Parameter
from .schedulers import DIFFUSERS

if TYPE_CHECKING:
    from .request import Request

_GUIDANCE = {"flux-dev": 3.5, "flux-pro": 3.0, "sdxl": 6.0, "sd15": 7.5}
_GUIDANCE_RANGES = {"flux-dev": (0.0, 10.0), "flux-pro": (2.0, 5.0), "sdxl": (0.0, 20.0), "sd15": (0.0, 20.0)}
_SIZES = {"sdxl": (512, 2048), "sd15": (64, 1024)}


def _side(name: str) -> Parameter:
    goes = (f"size:EmptyLatentImage.{name}",)
    return Parameter(name, "whole", MAPPED, goes, "", 512, (64, 2048), step=8, family_within=_SIZES)


COMMON = (
    Parameter("originalAssets", "text", MEANINGLESS, how="Files are saved as they were made."),
    Parameter(
        "seed", "seed", MAPPED, ("noise:RandomNoise.noise_seed",), "Random where it is left out.", None, (0, 2**64 - 1)
    ),
    Parameter(
        "modelId",
        "text",
        APPROXIMATED,
        ("model:CheckpointLoaderSimple.ckpt_name",),
        "The checkpoint of that name, or the one given with --model; else the demo model.",
        required=True,
    ),
    Parameter(
        "modelEpoch", "text", NOT_YET, how="Put the epoch's LoRA file into models/loras and name it in concepts."
    ),
    Parameter("hideResults", "flag", MEANINGLESS, how="There is no gallery to hide from.", default=False),
    Parameter(
        "negativePrompt",
        "text",
        MAPPED,
        ("negative:CLIPTextEncode.text",),
        "Without effect where guidance is below 1. Flux needs negativePromptStrength above 0.",
    ),
    Parameter(
        "scheduler",
        "choice",
        MAPPED,
        ("scheduler:TesseraScheduler.scheduler",),
        "Left out: euler on the model's usual noise levels.",
        choices=DIFFUSERS,
    ),
    Parameter(
        "intermediateImages", "flag", NOT_YET, how="No node saves the pictures between steps yet.", default=False
    ),
    Parameter(
        "concepts",
        "objects",
        MAPPED,
        ("lora:LoraLoader.lora_name", "lora:LoraLoader.strength_model"),
        "Each {modelId, scale} is a LoRA file of that name; scale 1 where it is left out.",
    ),
    Parameter(
        "guidance",
        "number",
        MAPPED,
        ("guider:CFGGuider.cfg", "guidance:FluxGuidance.guidance"),
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
        ("scheduler:TesseraScheduler.steps", "sigmas:BasicScheduler.steps"),
        "",
        30,
        (1, 150),
    ),
    Parameter("numSamples", "whole", MAPPED, ("size:EmptyLatentImage.batch_size",), "", 4, (1, 128)),
    _side("width"),
    Parameter(
        "negativePromptStrength",
        "number",
        MAPPED,
        ("flux negative:TesseraFluxNegative.strength",),
        "Flux only. The service takes it for txt2img, img2img and controlnet alone; here it works everywhere.",
        0.0,
        (0.0, 10.0),
    ),
    Parameter(
        "baseModelId",
        "text",
        APPROXIMATED,
        ("model:CheckpointLoaderSimple.ckpt_name",),
        "As modelId, which then names a LoRA on top of it.",
    ),
    Parameter("prompt", "text", MAPPED, ("positive:CLIPTextEncode.text",), required=True),
    _side("height"),
)

TEXTURE = COMMON

_PICTURES = ("image prompt:LoadImage.image",)
_SCALE = ("image prompt:TesseraImagePrompt.scale",)

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
    ),
    Parameter(
        "ipAdapterType",
        "choice",
        MAPPED,
        ("image prompt:TesseraImagePrompt.type",),
        "",
        "style",
        choices=("style", "character"),
    ),
    Parameter(
        "aspectRatio",
        "text",
        APPROXIMATED,
        ("size:EmptyLatentImage.width", "size:EmptyLatentImage.height"),
        "For flux.1.1-pro-ultra where no size is given: that ratio on one megapixel, in steps of 16.",
        "1:1",
    ),
    Parameter(
        "ipAdapterScales",
        "numbers",
        MAPPED,
        _SCALE,
        "One for each picture; a missing one is 0.9.",
        None,
        (0.0, 1.0),
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
