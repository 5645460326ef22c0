"""What is done to finished images: enlarging, with a model where there is one, and hiding what is not safe."""

from __future__ import annotations

import math
from fractions import Fraction

from ....host.schema.object_info import inputs_of
from ..bodies.parameters import APPROXIMATED, NOT_YET
from .graph_layout import LaidOutGraph, Output
from .recipe import Recipe, named_file

AROUND = 32
"""Width in px of what an enlargement sees of the other side of a texture."""
MOST_AROUND = 128
"""Width in px that is not exceeded for the sake of an exact size."""

Size = tuple[int, int]

# ModelsLab's words for the methods of Safety Filter.
METHODS = {"blur": "blur", "sensitive_content_text": "text", "pixelate": "pixelate", "black": "black"}


def _files(graph: LaidOutGraph, class_type: str, name: str) -> list[str]:
    return list(inputs_of(graph.info[class_type])[name].options.get("options", []) if class_type in graph.info else [])


def scaled(
    graph: LaidOutGraph, recipe: Recipe, role: str, image: Output, factor: float, source: Size | None = None
) -> Output:
    """Enlarge an image without a model. A texture is continued around, so that it repeats afterwards."""
    if not recipe.tiling:
        return graph.add(role, "ImageScaleBy", image=image, upscale_method="lanczos", scale_by=factor)[0]
    wrapped, geometry, size = _continued(graph, recipe, role, image, factor, source)
    return _cut(graph, role, _resized(graph, role, wrapped, size), geometry)


def enlarge(graph: LaidOutGraph, recipe: Recipe, image: Output) -> Output:
    """Return the finished image in `recipe.enlarge` times its size."""
    return image if recipe.enlarge == 1.0 else _larger(graph, recipe, image, recipe.enlarge)


def upscaled(graph: LaidOutGraph, recipe: Recipe, file: str) -> Output:
    """Load the texture of a request, and enlarge it `recipe.upscale` times."""
    image = graph.add("init image", "LoadImage", image=file)[0]
    if recipe.resized:
        image = _resized(graph, "size", image, recipe.source)
    return _larger(graph, recipe, image, recipe.upscale, recipe.source)


def _larger(graph: LaidOutGraph, recipe: Recipe, image: Output, factor: float, source: Size | None = None) -> Output:
    """Enlarge an image. A texture repeats afterwards, whatever enlarges it.

    Args:
        source: (width, height) of an image that is sampled afterwards; None is the size so far.
    """
    files = _files(graph, "UpscaleModelLoader", "model_name")
    if not files:
        why = "enlarged without a model: no file in models/upscale_models; put one there"
        recipe.missing["enlarge"] = (APPROXIMATED, why)
        return scaled(graph, recipe, "enlarge", image, factor, source)
    model = graph.add("upscale model", "UpscaleModelLoader", model_name=files[0])[0]
    width, height = (round(side * factor) for side in source or _sides(graph, recipe))
    geometry = None
    if recipe.tiling:
        image, geometry, (width, height) = _continued(graph, recipe, "enlarge", image, factor, source)
    larger = graph.add("enlarge", "ImageUpscaleWithModel", upscale_model=model, image=image)[0]
    # The margin is scaled with the texture, and cut off last: scaling mixes pixels across the border.
    return _cut(graph, "enlarge", _resized(graph, "enlarge size", larger, (width, height)), geometry)


def _sides(graph: LaidOutGraph, recipe: Recipe) -> Size:
    """Return the size of the image so far, in px."""
    factor = 2 if "encode again" in graph.nodes else 1
    return recipe.size[0] * factor, recipe.size[1] * factor


def _resized(graph: LaidOutGraph, role: str, image: Output, size: Size) -> Output:
    fit = {"upscale_method": "lanczos", "width": size[0], "height": size[1], "crop": "disabled"}
    return graph.add(role, "ImageScale", image=image, **fit)[0]


def whole_scale(size: Size, factor: float, unit: int = 1) -> tuple[Fraction, int]:
    """Return a scale near `factor` that makes whole px of a texture and of a margin, and that margin in px.

    Finer scales need wider margins; the finest is taken whose margin is within MOST_AROUND.

    Args:
        unit: number of px of which the scaled sides are multiples.

    >>> whole_scale((512, 256), 1.5)
    (Fraction(3, 2), 32)
    >>> whole_scale((1000, 1000), 2.01, 16)
    (Fraction(252, 125), 125)
    """
    common = math.gcd(*size)
    for parts in (each for each in range(common, 0, -1) if common % each == 0):
        step = unit // math.gcd(unit, common // parts)
        scale = Fraction(max(1, round(factor * parts / step)) * step, parts)
        margin = math.ceil(AROUND / scale.denominator) * scale.denominator
        if margin <= MOST_AROUND:
            return scale, margin
    return Fraction(max(1, round(factor))), AROUND


def _continued(
    graph: LaidOutGraph, recipe: Recipe, role: str, image: Output, factor: float, source: Size | None
) -> tuple[Output, Output, Size]:
    """Continue a texture around, with copies of its other side.

    Returns:
        The continued texture, what Wrap Crop needs, and the size in px to scale it to.
    """
    sides = source or _sides(graph, recipe)
    scale, margin = whole_scale(sides, factor, recipe.unit if source else 1)
    made, asked = [int(side * scale) for side in sides], [round(side * factor) for side in sides]
    if made != asked:
        earlier = recipe.missing.get(role, (APPROXIMATED, ""))[1]
        tiles = f"{made[0]} x {made[1]} px, the nearest size that tiles"
        recipe.missing[role] = (APPROXIMATED, "; ".join(part for part in (earlier, tiles) if part))
    wrap = graph.add(f"continue for {role}", "TesseraWrapPad", image=image, padding=margin, tiling=recipe.tiling)
    # A panorama is continued at its left and right alone.
    margins = (margin, margin if recipe.tiling == "both" else 0)
    width, height = (int((side + 2 * each) * scale) for side, each in zip(sides, margins, strict=True))
    return wrap[0], wrap[1], (width, height)


def _cut(graph: LaidOutGraph, role: str, image: Output, geometry: Output | None) -> Output:
    if geometry is None:
        return image
    return graph.add(f"cut after {role}", "TesseraWrapCrop", image=image, geometry=geometry)[0]


def hide_unsafe(graph: LaidOutGraph, recipe: Recipe, image: Output) -> Output:
    """An image that is hidden where a checker flags it."""
    if not recipe.safety:
        return image
    files = _files(graph, "TesseraSafetyFilter", "checker")
    if not files:
        why = "left out: no checker in models/safety_checker; put its folder there"
        recipe.missing["safety"] = (NOT_YET, why)
        return image
    return graph.add("safety", "TesseraSafetyFilter", images=image, checker=files[0], method=recipe.safety)[0]


def cut_out(graph: LaidOutGraph, recipe: Recipe, image: Output) -> Output:
    """An image without what lies behind its motif: found by the model that was named, or by its colour."""
    if not recipe.foreground_only:
        return image
    name = recipe.background_model
    file = named_file(name, _files(graph, "LoadBackgroundRemovalModel", "bg_removal_name"))
    if file is None:
        better = f'no file "{name}" in models/background_removal' if name else "a model cuts better: --background-model"
        why = f"what has the colour of the border is transparent, unless all of the image has it; {better}"
        recipe.missing["cut out"] = (APPROXIMATED, why)
        return graph.add("cut out", "TesseraCutOut", image=image, keep_whole=True)[0]
    model = graph.add("background model", "LoadBackgroundRemovalModel", bg_removal_name=file)[0]
    found = graph.add("foreground", "RemoveBackground", bg_removal_model=model, image=image)[0]
    hidden = graph.add("background", "InvertMask", mask=found)[0]
    return graph.add("cut out", "JoinImageWithAlpha", image=image, alpha=hidden)[0]
