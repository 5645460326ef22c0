"""Leonardo: Create a Generation of Images.

The document names few of its parameters beside the descriptions; names are those of the public API, as are the values
of `scheduler`, `sd_version`, `transparency`, `canvasRequestType` and `controlNetType`.
"""

from __future__ import annotations

from ...host.errors import listed, shown
from ...images.service_limits import COUNTS, LARGE, LARGE_COUNT, LEONARDO_SIDE, STEP, STEPS
from . import control_networks, enhance, finishing
from .geometry import margins
from .parameters import APPROXIMATED, MAPPED, MEANINGLESS, NO_EFFECT
from .recipe import FindImage, ImagePrompt, Recipe, named_weights
from .scheduler_names import DIFFUSERS, LEONARDO
from .styles import DEPTH_OF_FIELD, LEONARDO_STYLES, PHOTO_REAL, PHOTO_WORDS, QUALITY, WORDS, described
from .tables import Parameter, Request

_ALCHEMY = "Alchemy is a pipeline of the service that is not public."
_CONTRAST = ("contrast.factor",)
_UNZOOM = tuple(f"unzoom.{side}" for side in ("left", "top", "right", "bottom"))
MOST_UNZOOM = 4.0
"""Largest margin around an image, in parts of its size."""
_CANVAS = "Say which file it is with --image."


def _side(name: str, default: int) -> Parameter:
    return Parameter(name, "whole", MAPPED, (f"size.{name}",), "", default, LEONARDO_SIDE, step=STEP)


def _switch(name: str, outcome: str, how: str, default: bool | None = None, goes: tuple[str, ...] = ()) -> Parameter:
    return Parameter(name, "flag", outcome, goes, how, default)


def _elements(name: str, key: str) -> Parameter:
    goes = ("lora.lora_name", "lora.strength_model")
    return Parameter(name, "objects", MAPPED, goes, f"Each {{{key}, weight}} is a LoRA file of that name.")


PARAMETERS = (
    _switch("alchemy", NO_EFFECT, _ALCHEMY, True),
    Parameter("contrastRatio", "number", APPROXIMATED, _CONTRAST, "A factor from 0.75 to 1.25.", None, (0.0, 1.0)),
    Parameter(
        "contrast",
        "number",
        APPROXIMATED,
        _CONTRAST,
        "3 changes nothing; the factor is 0.6 at 1 and 1.3 at 4.5. Goes before contrastRatio and highContrast.",
        choices=(1.0, 1.3, 1.8, 2.5, 3.0, 3.5, 4.0, 4.5),
    ),
    *control_networks.LEONARDO,
    _elements("elements", "akUUID"),
    _elements("userElements", "userLoraId"),
    _switch("expandedDomain", NO_EFFECT, _ALCHEMY),
    _switch("fantasyAvatar", NO_EFFECT, "A feature of the service that is not public."),
    Parameter(
        "guidance_scale",
        "number",
        MAPPED,
        ("sampler.cfg", "guidance.guidance"),
        "Left out: the recommended 7; for Flux 3.5.",
        None,
        (1.0, 20.0),
    ),
    _side("height", 768),
    _switch("highContrast", APPROXIMATED, "A factor of 1.15.", None, _CONTRAST),
    _switch(
        "highResolution",
        APPROXIMATED,
        "A second pass at twice the size; the service's is not public.",
        None,
        ("second pass.latent_image",),
    ),
    Parameter("imagePrompts", "texts", MAPPED, ("image prompt image.image",), "Say which file each is with --image."),
    Parameter(
        "imagePromptWeight",
        "number",
        MAPPED,
        ("image prompt.scale",),
        "Of every image prompt; the document has no range, 0.9 where it is left out.",
        needs="imagePrompts",
    ),
    Parameter(
        "init_generation_image_id",
        "text",
        MAPPED,
        ("init image.image",),
        "Say which file it is with --image.",
    ),
    Parameter(
        "init_image_id",
        "text",
        MAPPED,
        ("init image.image",),
        "Say which file it is with --image. Ignored beside init_generation_image_id.",
    ),
    Parameter(
        "init_strength",
        "number",
        MAPPED,
        ("sampler.denoise",),
        "How much of the image stays: denoise is 1 minus it. Left out: 0.5.",
        None,
        (0.1, 0.9),
        needs="an init image",
    ),
    Parameter(
        "modelId",
        "text",
        MAPPED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "The file of that name, or the one given with --model; a demo model replaces one that is missing.",
        "b24e16ff-06e3-43eb-8d33-4416c2d75876",
    ),
    Parameter("negative_prompt", "text", MAPPED, ("negative.text",)),
    Parameter(
        "num_images",
        "whole",
        MAPPED,
        ("size.batch_size", "count.amount"),
        "Up to 4 where width or height is above 768.",
        4,
        COUNTS["Leonardo"],
    ),
    Parameter(
        "num_inference_steps",
        "whole",
        MAPPED,
        ("sampler.steps",),
        "",
        15,
        STEPS["Leonardo"],
    ),
    _switch("photoReal", APPROXIMATED, "Words of our own behind the prompt.", None, enhance.PROMPT.places),
    Parameter("photoRealVersion", "choice", NO_EFFECT, how="There is one wording for both.", choices=("v1", "v2")),
    Parameter(
        "photoRealStrength",
        "number",
        APPROXIMATED,
        enhance.PROMPT.places,
        "Depth of field, in words behind the prompt.",
        0.55,
        choices=(0.55, 0.5, 0.45),
        needs="photoReal",
    ),
    Parameter(
        "presetStyle",
        "choice",
        APPROXIMATED,
        enhance.PROMPT.places,
        "Words of our own behind the prompt; DYNAMIC, LEONARDO and NONE add none.",
        "DYNAMIC",
        choices=(*LEONARDO_STYLES, *PHOTO_WORDS),
        is_open=True,
    ),
    Parameter("prompt", "text", MAPPED, enhance.PROMPT.places, "", "A majestic cat in the snow", required=True),
    _switch(
        "promptMagic",
        APPROXIMATED,
        "A fixed rule adds words on quality to the prompt; the service's is not public.",
        None,
        enhance.PROMPT.places,
    ),
    Parameter("promptMagicStrength", "number", NO_EFFECT, how="The fixed rule has no strength.", within=(0.1, 1.0)),
    Parameter("promptMagicVersion", "choice", NO_EFFECT, how="There is one fixed rule.", choices=("v2", "v3")),
    _switch("public", MEANINGLESS, "There is no feed to show it in."),
    Parameter(
        "scheduler",
        "choice",
        MAPPED,
        ("sampler.scheduler",),
        "The names are those of the public client; LEONARDO is not public, DPMSolverMultistepScheduler replaces it.",
        "EULER_DISCRETE",
        choices=(*LEONARDO, *DIFFUSERS),
        is_open=True,
    ),
    Parameter(
        "sd_version",
        "choice",
        APPROXIMATED,
        ("model.ckpt_name", "model.name", "model.unet_name"),
        "The names are those of the public client. Tells the family where modelId is left out; --model names the file.",
        "v1_5",
        choices=(
            "v1_5",
            "v2",
            "v3",
            "SDXL_0_8",
            "SDXL_0_9",
            "SDXL_1_0",
            "SDXL_LIGHTNING",
            "PHOENIX",
            "FLUX",
            "FLUX_DEV",
        ),
        is_open=True,
    ),
    Parameter(
        "seed",
        "seed",
        MAPPED,
        ("sampler.seed",),
        "Left out: random, or the one given with --seed.",
        None,
        (0, 9999999998),
        family_within=dict.fromkeys(("flux-dev", "flux-pro"), (0, 2147483637)),
    ),
    _switch("tiling", MAPPED, "On both axes.", None, ("seamless model.tiling",)),
    finishing.TRANSPARENCY,
    _switch("ultra", NO_EFFECT, "A pipeline of the service that is not public; refused beside alchemy."),
    _switch("unzoom", MAPPED, "Grey all around the image, which is painted.", None, _UNZOOM),
    Parameter(
        "unzoomAmount",
        "number",
        APPROXIMATED,
        _UNZOOM,
        "The document has no unit; taken as the margin in parts of the image, up to 4.",
        within=(0.0, None),
        needs="unzoom and init_image_id",
    ),
    finishing.UPSCALE,
    _side("width", 1024),
    *control_networks.LEONARDO_OLD,
    _switch("canvasRequest", MAPPED, "Turns the four canvas parameters on.", None, ("init image.image",)),
    Parameter(
        "canvasRequestType",
        "choice",
        APPROXIMATED,
        ("init image.image",),
        "INPAINT and OUTPAINT paint what is white in the mask, the public client's SKETCH2IMG and IMG2IMG everything.",
        choices=("INPAINT", "OUTPAINT", "SKETCH2IMG", "IMG2IMG"),
        needs="canvasRequest and canvasMaskId",
    ),
    Parameter("canvasInitId", "text", MAPPED, ("init image.image",), _CANVAS, needs="canvasRequest"),
    Parameter("canvasMaskId", "text", MAPPED, ("mask.image",), _CANVAS, needs="canvasRequest and canvasInitId"),
    _switch("enhancePrompt", MAPPED, str(enhance.HOW.description), None, enhance.SWITCH.places),
    enhance.INSTRUCTIONS,
)


def refusals(request: Request) -> list[str]:
    """What the document forbids across parameters."""
    alchemy = request["alchemy"]
    style = request.strange.get("presetStyle", request["presetStyle"])
    large = max(request["width"], request["height"]) > LARGE
    photo_real = request["photoReal"]
    phoenix = request["sd_version"] == "PHOENIX" or request.family == "phoenix"
    sides = "width or height is"
    wrong = {
        f"num_images: found {request['num_images']}; expected 1 to {LARGE_COUNT} where {sides} above {LARGE}": large
        and request["num_images"] > LARGE_COUNT,
        "ultra: found beside alchemy; expected one of the two": request["ultra"]
        and "alchemy" in request.given
        and alchemy,
        f"presetStyle: found {style}; expected LEONARDO or NONE where alchemy is false": not alchemy
        and "presetStyle" in request.given
        and style not in ("LEONARDO", "NONE"),
        "presetStyle: found LEONARDO; expected another style where alchemy is true, which is its default": alchemy
        and "presetStyle" in request.given
        and style == "LEONARDO",
        f"presetStyle: found {shown(style)}; expected one of {listed(LEONARDO_STYLES)}": alchemy
        and not photo_real
        and style not in LEONARDO_STYLES,
        f"contrast: found {request['contrast']}; expected 2.5 or more for PHOENIX where alchemy is true": alchemy
        and phoenix
        and (request["contrast"] or 2.5) < 2.5,
        "photoReal: found without alchemy; expected both": photo_real and not alchemy,
        "photoReal: found beside modelId; expected no modelId for photoRealVersion v1": photo_real
        and "modelId" in request.given
        and request["photoRealVersion"] == "v1",
        "unzoom: found without unzoomAmount and init_image_id; expected all three": request["unzoom"]
        and not {"unzoomAmount", "init_image_id"} <= request.given,
    }
    return [line for line, is_wrong in wrong.items() if is_wrong]


def recipe(request: Request, find_image: FindImage, seed: int) -> Recipe:
    """What a request asks for; `seed` is taken where it names none."""
    made = Recipe(
        prompt=described(request["prompt"], *_additions(request)),
        size=(request["width"], request["height"]),
        seeds=[seed if request["seed"] is None else request["seed"]],
        negative=request["negative_prompt"] or "",
        model=request["modelId"],
        count=request["num_images"],
        steps=request["num_inference_steps"],
        guidance=request["guidance_scale"],
        scheduler=LEONARDO.get(request["scheduler"], request["scheduler"]),
        loras=[
            *named_weights("elements", request["elements"], "akUUID", "weight"),
            *named_weights("userElements", request["userElements"], "userLoraId", "weight"),
        ],
        tiling=bool(request["tiling"]),
        enhance=bool(request["enhancePrompt"]),
        instructions=request["enhancePromptInstructions"] or "",
    )
    if "modelId" in request.given and request.family is None:
        made.remarks["modelId"] = "its name tells no family; say it with --family"
    if request["guidance_scale"] is None and not (request.family or "").startswith("flux"):
        made.guidance = 7.0
    weight = request["imagePromptWeight"]
    scale = 0.9 if weight is None else min(max(weight, 0.0), 1.0)
    if weight is not None and weight != scale and request["imagePrompts"]:
        made.notes["imagePromptWeight"] = (APPROXIMATED, f"{scale:g} is used; image prompts take 0 to 1")
    made.image_prompts = [
        ImagePrompt(find_image("imagePrompts", each), scale, "full") for each in request["imagePrompts"] or []
    ]
    _first_image(request, find_image, made)
    control_networks.leonardo(request, find_image, made)
    made.contrast = _contrast(request)
    made.enlarge = request["upscaleRatio"] or 1.0
    made.second_pass = bool(request["highResolution"])
    made.foreground_only = request["transparency"] == "foreground_only"
    if request["presetStyle"] in ("NONE", "LEONARDO"):
        made.notes["presetStyle"] = (MAPPED, "adds no words")
    return made


def _additions(request: Request) -> list[str]:
    """The words that go behind the prompt."""
    words = [(WORDS | PHOTO_WORDS)[request["presetStyle"]]]
    if request["photoReal"]:
        words += [PHOTO_REAL, DEPTH_OF_FIELD[request["photoRealStrength"]]]
    return [*words, QUALITY if request["promptMagic"] else ""]


def _contrast(request: Request) -> float:
    if request["contrast"] is not None:
        return round(1.0 + (request["contrast"] - 3.0) / 5.0, 3)
    if request["contrastRatio"] is not None:
        return round(0.75 + request["contrastRatio"] / 2.0, 3)
    return 1.15 if request["highContrast"] else 1.0


def _first_image(request: Request, find_image: FindImage, made: Recipe) -> None:
    """Add the image to start from: the canvas, a generated one, or an uploaded one, in this order."""
    canvas = request["canvasRequest"]
    names = ("canvasInitId",) * bool(canvas) + ("init_generation_image_id", "init_image_id")
    name = next((each for each in names if request[each]), None)
    if name is None:
        return
    made.init_image = find_image(name, request[name])
    masked = canvas and request["canvasMaskId"] and request["canvasRequestType"] in (None, "INPAINT", "OUTPAINT")
    if masked:
        made.mask = find_image("canvasMaskId", request["canvasMaskId"])
    if request["unzoom"]:
        made.unzoom, made.fill_mask = min(request["unzoomAmount"] or 0.0, MOST_UNZOOM), True
        _tell_margins(request, made)
    masked = masked or made.unzoom
    kept = request["init_strength"]
    made.strength = 1.0 - kept if kept is not None else 1.0 if masked else 0.5
    ignored = [each for each in names if each != name and request[each]]
    made.notes |= dict.fromkeys(ignored, (NO_EFFECT, f"ignored beside {name}"))


def _tell_margins(request: Request, made: Recipe) -> None:
    """Say what an unzoomed image and its margin have of the size."""
    if request["unzoomAmount"] and request["unzoomAmount"] > MOST_UNZOOM:
        made.notes["unzoomAmount"] = (APPROXIMATED, f"{MOST_UNZOOM:g} is used, the most")
    for name, side, margin in zip(("width", "height"), made.size, margins(made.size, made.unzoom), strict=True):
        made.remarks[name] = f"{side} px are those of the image, {side - 2 * margin}, and of its margin, twice {margin}"
