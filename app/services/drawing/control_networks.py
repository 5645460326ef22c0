"""ControlNets of requests, drawn with the files that are there."""

from __future__ import annotations

from ....host.errors import listed
from ....host.schema.object_info import inputs_of
from ..bodies.parameters import NOT_YET
from . import geometry
from .graph_layout import LaidOutGraph, Output
from .model_names import family_of
from .recipe import Recipe, named_file

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
