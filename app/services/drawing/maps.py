"""Maps of a texture that is there: normals, heights and occlusion, each with a Save Image of its own."""

from __future__ import annotations

from .graph_layout import LaidOutGraph
from .recipe import Maps


def draw(graph: LaidOutGraph, maps: Maps) -> LaidOutGraph:
    """Draw the nodes; the luminance of the texture is taken as its height."""
    texture = graph.add("texture", "LoadImage", image=maps.file)[0]
    depth = -maps.relief if maps.inverted else maps.relief
    normal = graph.add("normal", "TesseraHeightToNormal", height=texture, strength=depth)[0]
    height = graph.add("height", "TesseraNormalToHeight", normal=normal)[0]
    occlusion = graph.add("occlusion", "TesseraAmbientOcclusion", height=height, strength=maps.relief)[0]
    for name, image in (("normal", normal), ("height", height), ("occlusion", occlusion)):
        role = "save" if name == "normal" else f"save {name}"
        graph.add(role, "SaveImage", images=image, filename_prefix=f"tessera_{name}")
    return graph
