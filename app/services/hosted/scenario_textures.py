"""Scenario: img2img-texture, controlnet-texture and the texture converter.

Names, ranges and defaults are those of the service's public API description ("Trigger a new seamless texture image
generation in Img2Img mode", "... in ControlNet mode") and of its page "Texture Converter - API Reference".
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from ....host.errors import GraphError, listed, shown
from ....images.service_limits import COUNTS
from ..bodies.parameters import APPROXIMATED, NO_EFFECT, NOT_YET, Approximated, Meaningless, NoEffect, To, within
from ..bodies.request import Request
from ..drawing.recipe import MOST_REPEATS, FindImage, Guide, Maps, Recipe
from .scenario import TextureRequest

SD15 = ("canny", "pose", "depth", "lines", "seg", "scribble", "lineart", "normal-map", "illusion")
SDXL = ("canny", "pose", "depth", "seg", "illusion", "scribble")
FLUX = ("canny", "tile", "depth", "blur", "pose", "gray", "low-quality")
PRESETS = {"sd15": ("character", "landscape", "city", "interior"), "sdxl": ("character", "landscape")}
MOST_MODALITIES = 3
ENDS = {"canny": 0.5}
USUAL_END = 0.6
"""Part of the steps after which Flux's ControlNets end, where the request does not say."""
RELIEF = 16.0
"""Depth in px of the relief of a surface that is as raised as can be; half of it is Height To Normal's default."""

_ID = Field(description="Say which file it is with --image.")
_DATA = Field(description="A data URL, written to the input folder, or an asset id: say which file it is with --image.")
_SHARE = Field(ge=0.0, le=1.0)
_NO_SHADING = NoEffect("No node makes maps of smoothness or metal.")
_RAW = "no node finds it in the image, which goes in as it is, so send one that is drawn already; canny edges are found"


class _ImageRequest(TextureRequest):
    """What the endpoints that take an image have in common."""

    imageId: Annotated[str | None, _ID, To("init image.image", instead="image")] = None
    imageParentId: Annotated[str | None, Meaningless("There are no assets to belong to.")] = None
    imageHide: Annotated[bool | None, Meaningless("There is no gallery to hide from.")] = None
    dryRun: Annotated[bool | None, Meaningless("Nothing is charged here.")] = None

    def first_of(self, made: Recipe, *names: str) -> str:
        """Return the first of some parameters that has a value, and say that the others are ignored."""
        given = [name for name in names if self[name]]
        made.notes |= dict.fromkeys(given[1:], (NO_EFFECT, f"ignored beside {given[0]}" if given else ""))
        return given[0] if given else ""


class ImageTextureRequest(_ImageRequest):
    """Scenario: img2img-texture."""

    service = "scenario-img2img-texture"
    title = "Scenario img2img-texture"

    image: Annotated[str | None, _DATA, To("init image.image")] = None
    strength: Annotated[
        float,
        within((0.01, 1.0), description="The part of the noise levels that is run; 1 keeps nothing of the image."),
        To("sampler.denoise"),
    ] = 0.75
    mask: Annotated[str | None, Field(description="A data URL; white is replaced."), To("mask.image")] = None
    maskId: Annotated[
        str | None,
        Field(description="Say which file it is with --image. Ignored beside image, as the document says."),
        To("mask.image"),
    ] = None
    numSamples: Annotated[
        int,
        within(COUNTS["Scenario"], description="Up to 64, as RepeatLatentBatch takes no more."),
        To("count.amount"),
    ] = 4

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        lines = super().refusals()
        if not self.image and not self.imageId:
            lines.append("image: missing; expected a data URL or an asset id")
        if self.numSamples > MOST_REPEATS:
            lines.append(f"numSamples: found {self.numSamples}; expected at most {MOST_REPEATS} with an image")
        return lines

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = super().recipe(find_image, seed)
        if name := self.first_of(made, "image", "imageId"):
            made.init_image, made.strength = find_image(name, self[name]), self.strength
        name = "mask" if self.mask else "maskId" if self.maskId and not self.image else ""
        if name:
            made.mask = find_image(name, self[name])
        if self.maskId and name != "maskId":
            made.notes["maskId"] = (NO_EFFECT, f"ignored beside {'image' if self.image else 'mask'}")
        return made


class ControlTextureRequest(_ImageRequest):
    """Scenario: controlnet-texture."""

    service = "scenario-controlnet-texture"
    title = "Scenario controlnet-texture"

    modality: Annotated[
        str,
        Field(
            description="Names with weights above 0 and up to 1, such as depth:0.5,pose:1.0; each is the first "
            "ControlNet file with that word in its name. Up to three for Stable Diffusion, one for Flux; what presets "
            "stand for is not public."
        ),
        To("control network.control_net_name", "control.strength"),
    ]
    controlImage: Annotated[str | None, _DATA, To("control image.image")] = None
    controlImageId: Annotated[str | None, _ID, To("control image.image")] = None
    image: Annotated[
        str | None,
        Field(description="Taken where there is no controlImage. Data URLs are written to the input folder."),
        To("control image.image"),
    ] = None
    imageId: Annotated[str | None, _ID, To("control image.image", instead="image")] = None
    controlStart: Annotated[
        float, within((0.0, 1.0), description="Flux alone, as the document says."), To("control.start_percent")
    ] = 0.0
    controlEnd: Annotated[
        float | None,
        within((0.0, 1.0), description="Flux alone, as the document says. Left out: 0.5 for canny, 0.6 for others."),
        To("control.end_percent"),
    ] = None
    disableModalityDetection: Annotated[
        bool,
        Field(description="false: edges are found in the image for canny; no node finds the others. Ignored by Flux."),
        Approximated("control edges.image"),
    ] = True

    def refusals(self) -> list[str]:
        """Return what the document forbids across parameters."""
        lines = super().refusals()
        images = (self.controlImage, self.controlImageId, self.image, self.imageId)
        lines += [] if any(images) else ["controlImage: missing; expected a data URL or an asset id"]
        try:
            weights(self.modality, self.family)
        except GraphError as error:
            lines += error.lines
        return lines

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        made = super().recipe(find_image, seed)
        name = self.first_of(made, "controlImage", "controlImageId", "image", "imageId")
        asked = weights(self.modality, self.family) if self.modality else {}
        presets = [each for each in asked if each in PRESETS["sd15"]]
        if presets:
            why = f"left out: {listed(presets)}, a preset whose networks are not public; name modalities"
            made.notes["modality"] = (NOT_YET, why)
        flux = (self.family or "").startswith("flux")
        finds = not self.disableModalityDetection and not flux
        if finds and set(asked) - {"canny"}:
            made.notes["disableModalityDetection"] = (APPROXIMATED if "canny" in asked else NOT_YET, _RAW)
        for each, weight in asked.items() if name else ():
            end = ENDS.get(each, USUAL_END) if self.controlEnd is None else self.controlEnd
            start, end = (self.controlStart, end) if flux else (0.0, 1.0)
            if each not in presets:
                file = find_image(name, self[name])
                made.guides.append(Guide(file, each, weight, end, finds and each == "canny", start))
        if not flux:
            made.notes |= dict.fromkeys(("controlStart", "controlEnd"), (NO_EFFECT, "the service takes it for Flux"))
        return made


def weights(modality: str, family: str | None) -> dict[str, float]:
    """Return the modalities with their weights.

    >>> weights("depth:0.5,pose", "sd15")
    {'depth': 0.5, 'pose': 1.0}

    Raises:
        GraphError: a name that models of the family do not have, a weight that is not above 0 and up to 1, or too many.
    """
    flux = (family or "").startswith("flux")
    presets = PRESETS.get(family or "", () if flux else PRESETS["sd15"])
    of_family = {"sdxl": SDXL, "sd15": SD15}.get(family or "", tuple(dict.fromkeys(SD15 + FLUX)))
    known = FLUX if flux else of_family
    most = 1 if flux or any(name in modality for name in presets) else MOST_MODALITIES
    found: dict[str, float] = {}
    for part in modality.split(","):
        parsed = re.fullmatch(r"\s*([a-z-]+)\s*(?::\s*([0-9]*\.?[0-9]+))?\s*", part)
        if not parsed or parsed[1] not in (*known, *presets):
            expected = f"expected one of {listed([*known, *presets])}"
            raise GraphError([f"modality: found {shown(part.strip())}; {expected}, with a weight as in depth:0.5"])
        found[parsed[1]] = float(parsed[2] or 1.0)
        if not 0 < found[parsed[1]] <= 1:
            raise GraphError([f"modality: found {shown(part.strip())}; expected a weight above 0 and up to 1"])
    if len(found) > most:
        raise GraphError([f"modality: found {len(found)} names; expected at most {most}"])
    return found


class TextureConverterRequest(Request):
    """Scenario: the texture converter, of whose maps the nodes make those of normals, heights and occlusion."""

    service = "scenario-texture-converter"
    title = "Scenario texture converter"

    texture: Annotated[
        str,
        Field(
            description="Say which file it is with --image; its luminance is taken as its height. Maps of albedo, "
            "smoothness, metal and edges are made by no node."
        ),
        Approximated("texture.image"),
    ]
    raised: Annotated[
        float,
        _SHARE,
        Field(description="The relief of a surface at 1 is 16 px deep."),
        Approximated("normal.strength", "occlusion.strength"),
    ] = 0.5
    shiny: Annotated[float, _SHARE, _NO_SHADING] = 0.5
    polished: Annotated[float, _SHARE, _NO_SHADING] = 0.5
    angular: Annotated[float, _SHARE, NoEffect("No node makes maps of edges.")] = 0.5
    invert: Annotated[bool, Field(description="White is low then."), To("normal.strength")] = False
    defaultParameters: Annotated[
        bool, Field(description="raised and invert have their defaults then."), To("normal.strength")
    ] = False

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        usual = type(self).table()
        raised, invert = self.raised, self.invert
        made = Recipe(prompt="", size=(0, 0), seeds=[])
        if self.defaultParameters:
            raised, invert = usual["raised"].default, usual["invert"].default
            made.notes |= dict.fromkeys(("raised", "invert"), (NO_EFFECT, "ignored beside defaultParameters"))
        if self.texture:
            made.maps = Maps(find_image("texture", self.texture), RELIEF * raised, invert)
        return made
