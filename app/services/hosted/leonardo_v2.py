"""Leonardo: the second version of its generations, a `model` with `parameters`.

Names, ranges and defaults are those of the pages "Phoenix", "FLUX Dev", "Lucid Realism", "FLUX.2 Pro",
"FLUX.1 Kontext [pro]" and "Nano Banana Pro" of the service's API v2.0, as are the names of the styles' UUIDs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ....host.errors import GraphError, listed, shown
from ....images.service_limits import COUNTS, STEP
from ..bodies.nested import Keys
from ..bodies.parameters import (
    APPROXIMATED,
    MODEL,
    MODEL_FILE,
    NOT_YET,
    Approximated,
    ByFamily,
    Meaningless,
    NoEffect,
    To,
    within,
)
from ..bodies.request import Request, Texts
from ..drawing import enhance
from ..drawing.recipe import FindImage, Recipe, ReferenceImage
from .styles import PHOTO_WORDS, WORDS, described

CONTRASTS = {"LOW": 0.9, "MEDIUM": 1.0, "HIGH": 1.1}
"""Factors about middle grey; the steps between them are those of the first version's values for the same words."""
LEVELS = {"LOW": 0.1, "MID": 0.3, "HIGH": 0.5, "ULTRA": 0.7, "MAX": 0.9}
"""Scales of an image prompt: the middles of five equal classes, as in the first version."""
KEPT = {"LOW": 0.25, "MID": 0.5, "HIGH": 0.75}
"""The part of the noise levels that an image to start from leaves out."""
USUAL_LEVEL = "MID"
DEFAULT_COUNT, DEFAULT_STEPS, DEFAULT_GUIDANCE = 4, 30, 7.0
"""Taken where a request leaves the number of images out, and for what the second version has no parameters of."""

STYLES = {
    "debdf72a-91a4-467b-bf61-cc02bdeb69c6": "RENDER_3D",
    "9fdc5e8c-4d13-49b4-9ce6-5a74cbb19177": "BOKEH",
    "a5632c7c-ddbb-4e2f-ba34-8456ab3ac436": "CINEMATIC",
    "cc53f935-884c-40a0-b7eb-1f5c42821fb5": "CINEMATIC_CLOSEUP",
    "6fedbf1f-4a17-45ec-84fb-92fe524a29ef": "CREATIVE",
    "111dc692-d470-4eec-b791-3475abac4c46": "DYNAMIC",
    "594c4a08-a522-4e0e-b7ff-e4dac4b6b622": "FASHION",
    "85da2dcc-c373-464c-9a7a-5624359be859": "FILM",
    "581ba6d6-5aac-4492-bebe-54c424a0d46e": "FILM",
    "d574325d-1278-4fe2-974b-768525f253c3": "FOOD",
    "97c20e5c-1af6-4d42-b227-54d03d8f0727": "HDR",
    "645e4195-f63d-4715-a3f2-3fb1e6eb8c70": "ILLUSTRATION",
    "335e6010-a75c-45d9-afc5-032c65e9180e": "LONG_EXPOSURE",
    "30c1d34f-e3a9-479a-b56f-c018bbc9c02a": "MACRO",
    "cadc8cd6-7838-4c99-b645-df76be8ba8d8": "MINIMALISTIC",
    "a2f7ea66-959b-4bbe-b508-6133238b76b6": "MONOCHROME",
    "22a9a7d2-2166-4d86-80ff-22e2643adbcf": "MONOCHROME",
    "621e1c9a-6319-4bee-a12d-ae40659162fa": "MOODY",
    "0d914779-c822-430a-b976-30075033f1c4": "NEUTRAL",
    "556c1ee5-ec38-42e8-955a-1e82dad0ffa1": "NONE",
    "ab5a4220-7c42-41e5-a578-eddb9fed3d75": "PORTRAIT",
    "8e2bc543-6ee2-45f9-bcd9-594b6ce84dcd": "PORTRAIT",
    "7c3f932b-a572-47cb-9b9b-f20211e63b5b": "PHOTOGRAPHY",
    "b504f83c-3326-4947-82e1-7fe9e839ec0f": "RAYTRACED",
    "6105baa2-851b-446e-9db5-08a671a8c42f": "RETRO",
    "be8c6b58-739c-4d44-b9c1-b032ed308b61": "SKETCH_BW",
    "093accc3-7633-4ffd-82da-d34000dfc0d6": "SKETCH_COLOR",
    "5bdc3f2a-1be6-4d1c-8e77-992a30824a2c": "STOCK_PHOTO",
    "62736842-6e4b-4028-b79a-4f1a1606e893": "UNPROCESSED",
    "dee282d3-891f-4f73-ba02-7f8131e5541b": "VIBRANT",
}
"""Names in WORDS or PHOTO_WORDS by the UUIDs of styles; those with no words of ours are unknown."""

_ONE = re.compile(r"flux-pro-2|nano-banana|gemini|gpt-image")
"""Models whose pages make one image where `quantity` is left out."""
Dicts = list[dict[str, Any]]
_PIPELINE = NoEffect("The pipelines of the service are not public.")
_SIDE = within((16, 6336), description="The ranges of the models differ. The nearest lower multiple of 8 is used.")
_SIDES = ByFamily({"flux-pro": (256, 1440)})
_STYLED = "In guidances. Each {image: {id, type}, strength}, of which LOW, MID, HIGH, ULTRA and MAX are a scale of "
_AS_IMAGE_PROMPT = Approximated("image prompt image.image", "image prompt.scale", "image prompt.type")


def _keys(most: str) -> Keys:
    return Keys(
        {"image.id": (), "strength": tuple(_levels(most)), "order": ()},
        meaningless={"image.type": "The file is the one that is named."},
        idle={"order": ("", "the images act together")},
    )


def _levels(most: str) -> list[str]:
    """Return the keys of LEVELS up to one of them."""
    return list(LEVELS)[: list(LEVELS).index(most) + 1]


def _guidance(most: int, description: str) -> Any:
    return Field(max_length=most, description=description)


_KEYS = _keys("HIGH")


class LeonardoV2Request(Request):
    """Leonardo, version 2: what is in `parameters` and its `guidances` stands beside the model."""

    service = "leonardo-v2"
    title = "Leonardo API v2 generations"

    model: Annotated[str, MODEL_FILE, MODEL]
    public: Annotated[bool | None, Meaningless("There is no feed to show it in.")] = None
    prompt: Annotated[str, enhance.PROMPT]
    negative_prompt: Annotated[str | None, To("negative.text")] = None
    width: Annotated[int, _SIDE, _SIDES, To("size.width")] = 1024
    height: Annotated[int, _SIDE, _SIDES, To("size.height")] = 1024
    quantity: Annotated[
        int | None,
        within(
            COUNTS["Leonardo"],
            description="Left out: 1 for FLUX.2 Pro, Nano Banana and GPT Image, otherwise 4.",
        ),
        To("size.batch_size", "count.amount"),
    ] = None
    seed: Annotated[
        int | None,
        within((0, 2**32 - 1), description="Left out: random, or the one given with --seed."),
        To("sampler.seed"),
    ] = None
    style_ids: Annotated[
        Texts | None,
        Field(description="Words of our own behind the prompt; the UUIDs of Dynamic and None add none."),
        Approximated(*enhance.PROMPT.places),
    ] = None
    contrast: Annotated[
        Literal["LOW", "MEDIUM", "HIGH"],
        Field(description="A factor of 0.9, 1 or 1.1."),
        Approximated("contrast.factor"),
    ] = "MEDIUM"
    mode: Annotated[Literal["FAST", "QUALITY", "ULTRA"] | None, _PIPELINE] = None
    quality: Annotated[Literal["LOW", "MEDIUM", "HIGH"] | None, _PIPELINE] = None
    prompt_enhance: Annotated[
        Literal["AUTO", "ON", "OFF"],
        Field(
            description="ON: by the model of --text-model NAME, a folder in models/text_generation; without it, "
            "approximated: rules add words. When AUTO enhances a prompt is not public; here it does not."
        ),
        enhance.SWITCH,
    ] = "AUTO"
    tiling: Annotated[bool | None, Field(description="On both axes."), To("seamless model.tiling")] = None
    image_to_image: Annotated[
        Dicts | None,
        _guidance(
            1,
            "In guidances. {image: {id, type}, strength}; LOW, MID and HIGH keep 0.25, 0.5 and 0.75 of the noise "
            "levels. Say which file it is with --image.",
        ),
        _KEYS,
        Approximated("init image.image", "sampler.denoise"),
    ] = None
    style: Annotated[
        Dicts | None,
        _guidance(4, _STYLED + "0.1, 0.3, 0.5, 0.7 and 0.9."),
        _keys("MAX"),
        _AS_IMAGE_PROMPT,
    ] = None
    content: Annotated[Dicts | None, _guidance(1, "As style, up to HIGH."), _KEYS, _AS_IMAGE_PROMPT] = None
    character: Annotated[Dicts | None, _guidance(1, "As style, up to HIGH."), _KEYS, _AS_IMAGE_PROMPT] = None
    image_reference: Annotated[Dicts | None, _guidance(6, "As style, up to HIGH."), _KEYS, _AS_IMAGE_PROMPT] = None

    @classmethod
    def flat(cls, document: Any) -> Any:
        """Return a body with what is in `parameters` and its `guidances` beside the model."""
        for name in ("parameters", "guidances"):
            if isinstance(document, dict) and isinstance(document.get(name), dict):
                document = {key: value for key, value in document.items() if key != name} | document[name]
        return document

    def recipe(self, find_image: FindImage, seed: int) -> Recipe:
        """Return what the request asks for."""
        flux = (self.family or "").startswith("flux")
        usual = 1 if _ONE.search(self.model.lower()) else DEFAULT_COUNT
        made = Recipe(
            prompt=described(self.prompt, *self._words),
            size=(self.width // STEP * STEP, self.height // STEP * STEP),
            seeds=[seed if self.seed is None else self.seed],
            negative=self.negative_prompt or "",
            model=self.model,
            count=self.quantity or usual,
            steps=DEFAULT_STEPS,
            guidance=None if flux else DEFAULT_GUIDANCE,
            contrast=CONTRASTS[self.contrast],
            tiling="both" if self.tiling else "",
            enhance=self.prompt_enhance == "ON",
        )
        if self.family is None:
            made.remarks["model"] = "its name tells no family; say it with --family"
        for name, side in zip(("width", "height"), made.size, strict=True):
            if self[name] != side:
                made.notes[name] = (APPROXIMATED, f"{side} is used, the nearest lower multiple of {STEP}")
        if unknown := [each for each in self.style_ids or [] if each.lower() not in STYLES]:
            made.notes["style_ids"] = (NOT_YET, f"left out: no words for {listed(unknown)}")
        self._follow(find_image, made)
        return made

    @property
    def _words(self) -> list[str]:
        """What the styles add to the prompt."""
        names = [STYLES.get(each.lower()) for each in self.style_ids or []]
        return [(WORDS | PHOTO_WORDS)[name] for name in names if name]

    def _follow(self, find_image: FindImage, made: Recipe) -> None:
        """Add the images in the guidances."""
        for name, kind in GUIDANCES.items():
            most = "MAX" if name == "style" else "HIGH"
            for item in self[name] or []:
                file, scale = find_image(name, _image(name, item)), LEVELS[_level(name, item, most)]
                made.image_prompts.append(ReferenceImage(file, scale, kind))
        for item in self.image_to_image or []:
            made.init_image = find_image("image_to_image", _image("image_to_image", item))
            made.strength = 1.0 - KEPT[_level("image_to_image", item, "HIGH")]


GUIDANCES = {"style": "style", "content": "composition", "character": "character", "image_reference": "full"}
"""Types of image prompts by the names of the guidances."""


def _image(name: str, item: Mapping[str, Any]) -> str:
    """Return what a guidance names as its image."""
    image = item.get("image")
    found = image.get("id") if isinstance(image, dict) else None
    if not isinstance(found, str):
        raise GraphError([f'{name}: found image {shown(image)}; expected {{"id": text, "type": text}} in every object'])
    return found


def _level(name: str, item: Mapping[str, Any], most: str) -> str:
    """Return how strongly a guidance acts, a key of LEVELS up to `most`."""
    known = _levels(most)
    level = item.get("strength")
    level = USUAL_LEVEL if level is None else level
    if level not in known:
        raise GraphError([f"{name}: found strength {shown(level)}; expected one of {listed(known)}"])
    return level
