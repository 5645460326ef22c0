"""Leonardo: the objects of `controlnets`, and the three deprecated parameters that they replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....host.errors import GraphError, listed, shown
from ..bodies.nested import Keys
from ..bodies.parameters import NO_EFFECT, NOT_YET
from ..drawing.recipe import FindImage, Guide, Recipe, ReferenceImage, as_number

if TYPE_CHECKING:
    from .leonardo import LeonardoRequest

# The public client's `preprocessorId` and `strengthType`; the service puts weights of 0..2 into five equal classes.
NETWORKS = {19: "canny", 20: "depth", 21: "pose"}
REFERENCES = {67: "style", 133: "character", 100: "composition"}
STRENGTHS = {"Low": 0.2, "Mid": 0.6, "High": 1.0, "Ultra": 1.4, "Max": 1.8}
USUAL_STRENGTH = "High"
KEYS = Keys(
    {
        "initImageId": (),
        "preprocessorId": (),
        "strengthType": tuple(STRENGTHS),
        "weight": (0.1, 2.0),
        "influence": (0.1, 1.0),
    },
    meaningless={"initImageType": "The file is the one that is named."},
    idle={"strengthType": ("weight", "weight goes before it")},
)
"""Names in the objects of `controlnets`."""
MAX_WEIGHT = 2.0
"""End of the range of weights. An image prompt has this part of its scale of 0 to 1."""


def read_control(request: LeonardoRequest, find_image: FindImage, made: Recipe) -> None:
    """Add the list, or where there is none what the deprecated trio asks for."""
    if request.controlnets:
        _listed(request.controlnets, find_image, made)
        old = [name for name in ("controlNet", "controlNetType", "weighting") if request[name] is not None]
        made.notes |= dict.fromkeys(old, (NO_EFFECT, "ignored beside controlnets"))
    elif request.controlNet:
        _trio(request, made)


def _trio(request: LeonardoRequest, made: Recipe) -> None:
    kind = (request.controlNetType or "").lower()
    if not made.init_image or not kind:
        missing = "init image" if kind else "controlNetType"
        made.notes["controlNet"] = (NOT_YET, f"left out: the request has no {missing} beside it")
        return
    strength = 1.0 if request.weighting is None else request.weighting
    made.guides.append(Guide(made.init_image, kind, strength, 1.0, kind == "canny"))
    if request.init_strength is None and not made.mask and not made.unzoom:
        made.init_image, made.strength = None, 1.0


def _listed(items: list[dict[str, Any]], find_image: FindImage, made: Recipe) -> None:
    unknown = []
    for item in items:
        asked, strength = item.get("preprocessorId"), _strength(item)
        kind = next((each for each in (*NETWORKS, *REFERENCES) if str(each) == str(asked)), None)
        if not isinstance(item.get("initImageId"), str):
            found = shown(item.get("initImageId"))
            raise GraphError([f"controlnets: found initImageId {found}; expected text in every object"])
        if kind in NETWORKS:
            file = find_image("controlnets", item["initImageId"])
            made.guides.append(Guide(file, NETWORKS[kind], strength, 1.0, NETWORKS[kind] == "canny"))
        elif kind in REFERENCES:
            file = find_image("controlnets", item["initImageId"])
            made.image_prompts.append(ReferenceImage(file, strength / MAX_WEIGHT, REFERENCES[kind]))
        else:
            unknown.append(f"preprocessorId {shown(asked)}, known are {listed([*NETWORKS, *REFERENCES])}")
        if (word := item.get("strengthType")) not in (None, *STRENGTHS):
            unknown.append(f"strengthType {shown(word)}, known are {listed(STRENGTHS)}; {USUAL_STRENGTH} is used")
    if unknown:
        made.notes["controlnets"] = (NOT_YET, f"left out: {'; '.join(dict.fromkeys(unknown))}")


def _strength(item: dict[str, Any]) -> float:
    """Return how strongly an object of the list acts, 0 to 2: its weight or class, times its influence."""
    word, weight, influence = (item.get(name) for name in ("strengthType", "weight", "influence"))
    if not isinstance(word, str | None):
        raise GraphError([f"controlnets: found strengthType {shown(word)}; expected one of {listed(STRENGTHS)}"])
    usual = STRENGTHS.get(word or USUAL_STRENGTH, STRENGTHS[USUAL_STRENGTH])
    strength = usual if weight is None else _number("weight", weight, MAX_WEIGHT)
    return strength * (1.0 if influence is None else _number("influence", influence, 1.0))


def _number(name: str, value: Any, most: float) -> float:
    number = as_number(value)
    if not 0 <= number <= most:
        raise GraphError([f"controlnets: found {name} {shown(value)}; expected a number from 0 to {most:g}"])
    return number
