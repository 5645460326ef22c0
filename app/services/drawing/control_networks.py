"""ControlNets in requests: what the services document of them, and how they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....host.errors import GraphError, listed, shown
from ....host.schema.object_info import inputs_of
from ..bodies.nested import Keys
from ..bodies.parameters import NO_EFFECT, NOT_YET
from . import geometry
from .graph_layout import LaidOutGraph, Output
from .model_names import family_of
from .recipe import FindImage, Guide, Recipe, ReferenceImage, as_number, named_file

if TYPE_CHECKING:
    from ..hosted.leonardo import LeonardoRequest
    from ..hosted.octoai import OctoAIRequest

MAX_STRENGTH = 10.0
"""Of ControlNetApplyAdvanced."""
ROLES = ("control", "control network", "control image", "control edges")
# Names in models/controlnet that stand for what a service calls so.
ALIASES = {
    "pose": ("openpose", "pose"),
    "edges": ("canny", "edge"),
    "lines": ("mlsd", "lines"),
    "segmentation": ("seg",),
    "normal-map": ("normal",),
    "low-quality": ("low-quality", "lowquality", "low_quality"),
}

STRENGTH, IMAGE, NETWORK = "control.strength", "control image.image", "control network.control_net_name"
"""Places in the workflow of the first ControlNet."""
_RAW = "no node draws depth or poses; the image goes in as it is, so send one that is drawn already"

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


def octoai_refusals(request: OctoAIRequest) -> list[str]:
    """What the document forbids."""
    if request.controlnet and not request.controlnet_image:
        return ["controlnet: found without controlnet_image; expected both, or neither"]
    return []


def octoai(request: OctoAIRequest, find_image: FindImage, made: Recipe) -> None:
    """Add what the five parameters ask for."""
    name = request.controlnet
    if not name or not request.controlnet_image:
        return
    edges = bool(request.controlnet_preprocess) and "canny" in name.lower()
    if request.controlnet_preprocess and not edges:
        made.notes["controlnet_preprocess"] = (NOT_YET, _RAW)
    end = request.controlnet_early_stop
    file = find_image("controlnet_image", request.controlnet_image)
    made.guides.append(Guide(file, name, request.controlnet_conditioning_scale, 1.0 if end is None else end, edges))


def leonardo(request: LeonardoRequest, find_image: FindImage, made: Recipe) -> None:
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


def draw(
    graph: LaidOutGraph, recipe: Recipe, positive: Output, negative: Output, vae: Output, family: str | None
) -> tuple[Output, Output]:
    """Apply the ControlNets of a recipe to both conditionings; those without a file are left out and said so."""
    files = []
    if "ControlNetLoader" in graph.info:
        files = inputs_of(graph.info["ControlNetLoader"])["control_net_name"].options.get("options", [])
    wanted = [(guide, network_file(guide.network, files, family)) for guide in recipe.guides]
    if missing := [guide.network for guide, file in wanted if file is None]:
        why = f"left out: no file with {listed(missing)} in its name in models/controlnet; put it there"
        idle = ROLES if len(missing) == len(wanted) else ROLES[1:2]
        recipe.missing |= dict.fromkeys(idle, (NOT_YET, why))
    for number, (guide, file) in enumerate([(guide, file) for guide, file in wanted if file], 1):
        one, network, image, edges = (f"{role} {number}" if number > 1 else role for role in ROLES)
        # The image that a request starts from is seen where the result has it.
        unzoom = recipe.unzoom if guide.file == recipe.init_image else 0.0
        places = (image, f"size of {image}", f"margin of {image}")
        image, _ = geometry.placed(graph, places, guide.file, recipe.size, unzoom)
        image = graph.add(edges, "Canny", image=image)[0] if guide.edges else image
        loaded = graph.add(network, "ControlNetLoader", control_net_name=file)[0]
        given = {"positive": positive, "negative": negative, "control_net": loaded, "image": image, "vae": vae}
        acts = {"strength": guide.strength, "end_percent": guide.end}
        acts |= {"start_percent": guide.start} if guide.start else {}
        node = graph.add(one, "ControlNetApplyAdvanced", **given, **acts)
        positive, negative = node[0], node[1]
    return positive, negative


def network_file(name: str, files: list[str], family: str | None) -> str | None:
    """Return the file of a name: its own, or one with the name in it, of the model's family or of none by its name."""
    if exact := named_file(name, files):
        return exact
    words = ALIASES.get(name.lower(), (name.strip().lower(),))
    found = [file for word in words if word for file in files if word in file.lower()]
    own = {file: _kind(family_of(file)) for file in found}
    fitting = [file for file in found if family and own[file] == _kind(family)]
    return next(iter([*fitting, *(file for file in found if not family or own[file] is None)]), None)


def _kind(family: str | None) -> str | None:
    """Return what has the same ControlNets."""
    return "flux" if family and family.startswith("flux") else family
