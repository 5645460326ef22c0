"""Leonardo: Create a Generation of Images.

The document names few of its parameters beside the descriptions; names are those of the public API, as are the values
of `scheduler`, `sd_version`, `transparency`, `canvasRequestType` and `controlNetType`, whose lists it does not print.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ....host.errors import listed, shown
from ....images.service_limits import COUNTS, LARGE, LARGE_COUNT, LEONARDO_SIDE, STEP, STEPS
from ..bodies.nested import Keys
from ..bodies.parameters import (
    APPROXIMATED,
    MAPPED,
    MODEL,
    MODEL_FILE,
    NO_EFFECT,
    Approximated,
    ByFamily,
    Known,
    Meaningless,
    Nearest,
    NoEffect,
    To,
    within,
)
from ..bodies.request import Objects, Request, Texts
from ..drawing import control_networks, enhance
from ..drawing.recipe import FindImage, Recipe, ReferenceImage, named_weights
from . import leonardo_control
from .scheduler_names import DIFFUSERS, LEONARDO
from .styles import DEPTH_OF_FIELD, LEONARDO_STYLES, PHOTO_REAL, PHOTO_WORDS, QUALITY, WORDS, described

MOST_UNZOOM = 4.0
"""Largest margin around an image, in parts of its size."""
VERSIONS = (
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
)

ANSWER = {
    "imageWidth": "width",
    "imageHeight": "height",
    "inferenceSteps": "num_inference_steps",
    "guidanceScale": "guidance_scale",
    "negativePrompt": "negative_prompt",
    "sdVersion": "sd_version",
    "initStrength": "init_strength",
}

_ALCHEMY = NoEffect("Alchemy is a pipeline of the service that is not public.")
_CONTRAST = Approximated("contrast.factor")
_FILE = Field(description="Say which file it is with --image.")
_INIT = To("init image.image")
_LORAS = To("lora.lora_name", "lora.strength_model")
_MARGINS = ("unzoom.left", "unzoom.top", "unzoom.right", "unzoom.bottom")
_SIDE = within(LEONARDO_SIDE, multiple_of=STEP)
_WORDS = Approximated(*enhance.PROMPT.places)


class LeonardoRequest(Request):
    """Leonardo: the parameters in the order of its page."""

    service = "leonardo"
    title = "Leonardo Create a Generation of Images"
    answer = ANSWER

    alchemy: Annotated[bool, _ALCHEMY] = True
    contrastRatio: Annotated[
        float | None,
        within((0.0, 1.0), description="A factor from 0.75 to 1.25."),
        _CONTRAST,
    ] = None
    contrast: Annotated[
        float | None,
        Field(
            description="3 changes nothing; the factor is 0.6 at 1 and 1.3 at 4.5. "
            "Goes before contrastRatio and highContrast."
        ),
        Nearest((1.0, 1.3, 1.8, 2.5, 3.0, 3.5, 4.0, 4.5)),
        _CONTRAST,
    ] = None
    controlnets: Annotated[
        Objects | None,
        Field(
            description="Each {initImageId, preprocessorId, strengthType or weight}: 19 edges, 20 depth, 21 pose are "
            "ControlNets of that name; 67 style, 133 character, 100 content are image prompts. "
            "The public client's numbers."
        ),
        leonardo_control.KEYS,
        Approximated(
            control_networks.STRENGTH, control_networks.IMAGE, control_networks.NETWORK, "image prompt image.image"
        ),
    ] = None
    elements: Annotated[
        Objects | None,
        Field(description="Each {akUUID, weight} is a LoRA file of that name."),
        Keys({"akUUID": (), "weight": (0.1, 1.0)}),
        _LORAS,
    ] = None
    userElements: Annotated[
        Objects | None,
        Field(description="Each {userLoraId, weight} is a LoRA file of that name."),
        Keys({"userLoraId": (), "weight": (0.1, 1.0)}),
        _LORAS,
    ] = None
    expandedDomain: Annotated[bool | None, _ALCHEMY] = None
    fantasyAvatar: Annotated[bool | None, NoEffect("A feature of the service that is not public.")] = None
    guidance_scale: Annotated[
        float | None,
        within((1.0, 20.0), description="Left out: the recommended 7; for Flux 3.5."),
        To("sampler.cfg", "guidance.guidance"),
    ] = None
    height: Annotated[int, _SIDE, To("size.height")] = 768
    highContrast: Annotated[bool | None, Field(description="A factor of 1.15."), _CONTRAST] = None
    highResolution: Annotated[
        bool | None,
        Field(description="A second pass at twice the size; the service's is not public."),
        Approximated("second pass.latent_image"),
    ] = None
    imagePrompts: Annotated[
        Texts | None, Field(description="Say which file each is with --image."), To("image prompt image.image")
    ] = None
    imagePromptWeight: Annotated[
        float | None,
        Field(description="Of every image prompt; the document has no range, 0.9 where it is left out."),
        To("image prompt.scale", needs="imagePrompts"),
    ] = None
    init_generation_image_id: Annotated[str | None, _FILE, _INIT] = None
    init_image_id: Annotated[
        str | None,
        Field(description="Say which file it is with --image. Ignored beside init_generation_image_id."),
        _INIT,
    ] = None
    init_strength: Annotated[
        float | None,
        within((0.1, 0.9), description="How much of the image stays: denoise is 1 minus it. Left out: 0.5."),
        To("sampler.denoise", needs="an init image"),
    ] = None
    modelId: Annotated[str, MODEL_FILE, MODEL] = "b24e16ff-06e3-43eb-8d33-4416c2d75876"
    negative_prompt: Annotated[str | None, To("negative.text")] = None
    num_images: Annotated[
        int,
        within(COUNTS["Leonardo"], description="Up to 4 where width or height is above 768."),
        To("size.batch_size", "count.amount"),
    ] = 4
    num_inference_steps: Annotated[int, within(STEPS["Leonardo"]), To("sampler.steps")] = 15
    photoReal: Annotated[bool | None, Field(description="Words of our own behind the prompt."), _WORDS] = None
    photoRealVersion: Annotated[Literal["v1", "v2"] | None, NoEffect("There is one wording for both.")] = None
    photoRealStrength: Annotated[
        float,
        Field(description="Depth of field, in words behind the prompt."),
        Nearest(tuple(DEPTH_OF_FIELD)),
        Approximated(*enhance.PROMPT.places, needs="photoReal"),
    ] = 0.55
    presetStyle: Annotated[
        str,
        Field(description="Words of our own behind the prompt; DYNAMIC, LEONARDO and NONE add none."),
        Known((*LEONARDO_STYLES, *PHOTO_WORDS)),
        _WORDS,
    ] = "DYNAMIC"
    prompt: Annotated[str, enhance.PROMPT]
    promptMagic: Annotated[
        bool | None,
        Field(description="A fixed rule adds words on quality to the prompt; the service's is not public."),
        _WORDS,
    ] = None
    promptMagicStrength: Annotated[float | None, within((0.1, 1.0)), NoEffect("The fixed rule has no strength.")] = None
    promptMagicVersion: Annotated[Literal["v2", "v3"] | None, NoEffect("There is one fixed rule.")] = None
    public: Annotated[bool | None, Meaningless("There is no feed to show it in.")] = None
    scheduler: Annotated[
        str,
        Field(
            description="The names are those of the public client; LEONARDO is not public, "
            "DPMSolverMultistepScheduler replaces it."
        ),
        Known((*LEONARDO, *DIFFUSERS)),
        To("sampler.scheduler"),
    ] = "EULER_DISCRETE"
    sd_version: Annotated[
        str,
        Field(
            description="The names are those of the public client. Tells the family where modelId is left out; "
            "--model names the file."
        ),
        Known(VERSIONS),
        Approximated(*MODEL.places),
    ] = "v1_5"
    seed: Annotated[
        int | None,
        within((0, 9999999998), description="Left out: random, or the one given with --seed."),
        ByFamily(dict.fromkeys(("flux-dev", "flux-pro"), (0, 2147483637))),
        To("sampler.seed"),
    ] = None
    tiling: Annotated[bool | None, Field(description="On both axes."), To("seamless model.tiling")] = None
    transparency: Annotated[
        str | None,
        Field(
            description="foreground_only: with --background-model NAME, a file in models/background_removal, which "
            "ComfyUI runs; without it, approximated: what has the colour of the border is transparent, unless all of "
            "the image has it."
        ),
        Known(("disabled", "foreground_only")),
        To("foreground.image", "cut out.image"),
    ] = None
    ultra: Annotated[bool | None, NoEffect("A pipeline of the service that is not public; refused beside alchemy.")] = (
        None
    )
    unzoom: Annotated[bool | None, Field(description="Grey all around the image, which is painted."), To(*_MARGINS)] = (
        None
    )
    unzoomAmount: Annotated[
        float | None,
        Field(ge=0.0, description="The document has no unit; taken as the margin in parts of the image, up to 4."),
        Approximated(*_MARGINS, needs="unzoom and init_image_id"),
    ] = None
    upscaleRatio: Annotated[
        float | None,
        within(
            (1.0, 8.0),
            description="With the first file in models/upscale_models. The document has no range; up to 8.",
        ),
        To("enlarge.upscale_model", "enlarge size.width", "enlarge.width", "enlarge.scale_by"),
    ] = None
    width: Annotated[int, _SIDE, To("size.width")] = 1024
    controlNet: Annotated[
        bool | None,
        Field(description="Follows the init image, which is not painted over then. Ignored beside controlnets."),
        Approximated(control_networks.IMAGE, instead="controlnets"),
    ] = None
    controlNetType: Annotated[
        str | None,
        Field(
            description="The first file with that word in its name. CANNY finds edges first, the others take the "
            "image as it is."
        ),
        Known(("POSE", "CANNY", "DEPTH")),
        Approximated(control_networks.NETWORK, needs="controlNet", instead="controlnets"),
    ] = None
    weighting: Annotated[
        float | None,
        within(
            (0.0, control_networks.MAX_STRENGTH),
            description="The document has no range; ControlNetApplyAdvanced takes up to 10. Left out: 1.",
        ),
        To(control_networks.STRENGTH, needs="controlNet", instead="controlnets"),
    ] = None
    canvasRequest: Annotated[bool | None, Field(description="Turns the four canvas parameters on."), _INIT] = None
    canvasRequestType: Annotated[
        str | None,
        Field(
            description="INPAINT and OUTPAINT paint what is white in the mask, the public client's SKETCH2IMG and "
            "IMG2IMG everything."
        ),
        Known(("INPAINT", "OUTPAINT", "SKETCH2IMG", "IMG2IMG")),
        Approximated("init image.image", needs="canvasRequest and canvasMaskId"),
    ] = None
    canvasInitId: Annotated[str | None, _FILE, To("init image.image", needs="canvasRequest")] = None
    canvasMaskId: Annotated[str | None, _FILE, To("mask.image", needs="canvasRequest and canvasInitId")] = None
    enhancePrompt: Annotated[bool | None, enhance.HOW, enhance.SWITCH] = None
    enhancePromptInstructions: Annotated[
        str | None,
        Field(
            description="Beside enhancePrompt, by a model for chats; without one, approximated: nothing follows them."
        ),
        To("enhance prompt.instructions", needs="enhancePrompt"),
    ] = None

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        alchemy = self.alchemy
        style = self.asked("presetStyle")
        large = max(self.width, self.height) > LARGE
        photo_real = self.photoReal
        phoenix = self.sd_version == "PHOENIX" or self.family == "phoenix"
        sides = "width or height is"
        wrong = {
            f"num_images: found {self.num_images}; expected 1 to {LARGE_COUNT} where {sides} above {LARGE}": large
            and self.num_images > LARGE_COUNT,
            "ultra: found beside alchemy; expected one of the two": self.ultra and "alchemy" in self.given and alchemy,
            f"presetStyle: found {style}; expected LEONARDO or NONE where alchemy is false": not alchemy
            and "presetStyle" in self.given
            and style not in ("LEONARDO", "NONE"),
            "presetStyle: found LEONARDO; expected another style where alchemy is true, which is its default": alchemy
            and "presetStyle" in self.given
            and style == "LEONARDO",
            f"presetStyle: found {shown(style)}; expected one of {listed(LEONARDO_STYLES)}": alchemy
            and not photo_real
            and style not in LEONARDO_STYLES,
            f"contrast: found {self.contrast}; expected 2.5 or more for PHOENIX where alchemy is true": alchemy
            and phoenix
            and (self.contrast or 2.5) < 2.5,
            "photoReal: found without alchemy; expected both": photo_real and not alchemy,
            "photoReal: found beside modelId; expected no modelId for photoRealVersion v1": photo_real
            and "modelId" in self.given
            and self.photoRealVersion == "v1",
            "unzoom: found without unzoomAmount and init_image_id; expected all three": self.unzoom
            and not {"unzoomAmount", "init_image_id"} <= self.given,
        }
        return [line for line, is_wrong in wrong.items() if is_wrong]

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = Recipe(
            prompt=described(self.prompt, *_additions(self)),
            size=(self.width, self.height),
            seeds=[seed if self.seed is None else self.seed],
            negative=self.negative_prompt or "",
            model=self.modelId,
            count=self.num_images,
            steps=self.num_inference_steps,
            guidance=self.guidance_scale,
            scheduler=LEONARDO.get(self.scheduler, self.scheduler),
            loras=[
                *named_weights("elements", self.elements, "akUUID", "weight"),
                *named_weights("userElements", self.userElements, "userLoraId", "weight"),
            ],
            tiling="both" if self.tiling else "",
            enhance=bool(self.enhancePrompt),
            instructions=self.enhancePromptInstructions or "",
        )
        if "modelId" in self.given and self.family is None:
            made.remarks["modelId"] = "its name tells no family; say it with --family"
        if self.guidance_scale is None and not (self.family or "").startswith("flux"):
            made.guidance = 7.0
        weight = self.imagePromptWeight
        scale = 0.9 if weight is None else min(max(weight, 0.0), 1.0)
        if weight is not None and weight != scale and self.imagePrompts:
            made.notes["imagePromptWeight"] = (APPROXIMATED, f"{scale:g} is used; image prompts take 0 to 1")
        made.image_prompts = [
            ReferenceImage(find_image("imagePrompts", each), scale, "full") for each in self.imagePrompts or []
        ]
        _first_image(self, find_image, made)
        leonardo_control.read_control(self, find_image, made)
        made.contrast = _contrast(self)
        made.enlarge = self.upscaleRatio or 1.0
        made.second_pass = bool(self.highResolution)
        made.foreground_only = self.transparency == "foreground_only"
        if self.scheduler == "LEONARDO":
            made.notes["scheduler"] = (APPROXIMATED, f"LEONARDO is not public; {made.scheduler} replaces it")
        if self.presetStyle in ("NONE", "LEONARDO"):
            made.notes["presetStyle"] = (MAPPED, "adds no words")
        return made


def _additions(request: LeonardoRequest) -> list[str]:
    """The words that go behind the prompt."""
    words = [(WORDS | PHOTO_WORDS)[request.presetStyle]]
    if request.photoReal:
        words += [PHOTO_REAL, DEPTH_OF_FIELD[request.photoRealStrength]]
    return [*words, QUALITY if request.promptMagic else ""]


def _contrast(request: LeonardoRequest) -> float:
    if request.contrast is not None:
        return round(1.0 + (request.contrast - 3.0) / 5.0, 3)
    if request.contrastRatio is not None:
        return round(0.75 + request.contrastRatio / 2.0, 3)
    return 1.15 if request.highContrast else 1.0


def _first_image(request: LeonardoRequest, find_image: FindImage, made: Recipe) -> None:
    """Add the image to start from: the canvas, a generated one, or an uploaded one, in this order."""
    canvas = request.canvasRequest
    names = ("canvasInitId",) * bool(canvas) + ("init_generation_image_id", "init_image_id")
    name = next((each for each in names if request[each]), None)
    if name is None:
        return
    made.init_image = find_image(name, request[name])
    whole = not canvas or request.canvasRequestType not in (None, "INPAINT", "OUTPAINT")
    if request.canvasMaskId and not whole:
        made.mask = find_image("canvasMaskId", request.canvasMaskId)
    if request.unzoom:
        made.unzoom, made.fill_mask = min(request.unzoomAmount or 0.0, MOST_UNZOOM), True
        if request.unzoomAmount and request.unzoomAmount > MOST_UNZOOM:
            made.notes["unzoomAmount"] = (APPROXIMATED, f"{MOST_UNZOOM:g} is used, the most")
    masked = made.mask or made.unzoom
    kept = request.init_strength
    made.strength = 1.0 - kept if kept is not None else 1.0 if masked else 0.5
    ignored = [each for each in names if each != name and request[each]]
    made.notes |= dict.fromkeys(ignored, (NO_EFFECT, f"ignored beside {name}"))
