"""What is done to finished pictures: enlarging, with a model where there is one, and hiding what is not safe."""

from __future__ import annotations

from ...host.schema.object_info import inputs_of
from .graph_layout import Drawing, Output
from .parameters import APPROXIMATED, MAPPED, NOT_YET, Parameter
from .recipe import Recipe, named_file

# What an upscale model sees of the other side of a texture that repeats, in px.
AROUND = 32

UPSCALE = Parameter(
    "upscaleRatio",
    "number",
    MAPPED,
    ("enlarge:ImageUpscaleWithModel.upscale_model", "enlarge size:ImageScale.width", "enlarge:ImageScaleBy.scale_by"),
    "With the first file in models/upscale_models. The document has no range; up to 8.",
    within=(1.0, 8.0),
)
TRANSPARENCY = Parameter(
    "transparency",
    "choice",
    MAPPED,
    ("foreground:RemoveBackground.image", "cut out:TesseraCutOut.image"),
    "foreground_only: with --background-model NAME, a file in models/background_removal, which ComfyUI runs; without "
    "it, approximated: what has the colour of the border is transparent.",
    choices=("disabled", "foreground_only"),
)
_FILTER = "safety:TesseraSafetyFilter."
# ModelsLab's words for the methods of Safety Filter.
METHODS = {"blur": "blur", "sensitive_content_text": "text", "pixelate": "pixelate", "black": "black"}
SAFETY = (
    Parameter(
        "safety_checker",
        "yes/no",
        MAPPED,
        (f"{_FILTER}checker",),
        "With the first checker in models/safety_checker.",
        True,
    ),
    Parameter(
        "safety_checker_type",
        "choice",
        MAPPED,
        (f"{_FILTER}method",),
        "sensitive_content_text: words on black.",
        "sensitive_content_text",
        choices=tuple(METHODS),
        needs="safety_checker and a checker",
    ),
)


def _files(graph: Drawing, class_type: str, name: str) -> list[str]:
    return list(inputs_of(graph.info[class_type])[name].options.get("options", []) if class_type in graph.info else [])


def enlarge(graph: Drawing, recipe: Recipe, image: Output) -> Output:
    """A picture in `recipe.enlarge` times its size. A texture is continued around, so that it repeats afterwards."""
    if recipe.enlarge == 1.0:
        return image
    files = _files(graph, "UpscaleModelLoader", "model_name")
    if not files:
        why = "enlarged without a model: no file in models/upscale_models; put one there"
        recipe.missing["enlarge"] = (APPROXIMATED, why)
        by = {"upscale_method": "lanczos", "scale_by": recipe.enlarge}
        return graph.add("enlarge", "ImageScaleBy", image=image, **by)[0]
    model = graph.add("upscale model", "UpscaleModelLoader", model_name=files[0])[0]
    wrap = (
        graph.add("continue", "TesseraWrapPad", image=image, padding=AROUND, tiling="both") if recipe.tiling else None
    )
    larger = graph.add("enlarge", "ImageUpscaleWithModel", upscale_model=model, image=wrap[0] if wrap else image)[0]
    if wrap:
        larger = graph.add("cut", "TesseraWrapCrop", image=larger, geometry=wrap[1])[0]
    factor = recipe.enlarge * (2 if recipe.second_pass else 1)
    width, height = (round(side * factor) for side in recipe.size)
    size = {"upscale_method": "lanczos", "width": width, "height": height, "crop": "disabled"}
    return graph.add("enlarge size", "ImageScale", image=larger, **size)[0]


def hide_unsafe(graph: Drawing, recipe: Recipe, image: Output) -> Output:
    """A picture that is hidden where a checker flags it."""
    if not recipe.safety:
        return image
    files = _files(graph, "TesseraSafetyFilter", "checker")
    if not files:
        why = "left out: no checker in models/safety_checker; put its folder there"
        recipe.missing["safety"] = (NOT_YET, why)
        return image
    return graph.add("safety", "TesseraSafetyFilter", images=image, checker=files[0], method=recipe.safety)[0]


def cut_out(graph: Drawing, recipe: Recipe, image: Output) -> Output:
    """A picture without what lies behind its motif: found by the model that was named, or by its colour."""
    if not recipe.foreground_only:
        return image
    name = recipe.background_model
    file = named_file(name, _files(graph, "LoadBackgroundRemovalModel", "bg_removal_name"))
    if file is None:
        why = (
            f'no file "{name}" in models/background_removal' if name else "a model cuts better: see --background-model"
        )
        recipe.missing["cut out"] = (APPROXIMATED, f"what has the colour of the border is transparent; {why}")
        return graph.add("cut out", "TesseraCutOut", image=image)[0]
    model = graph.add("background model", "LoadBackgroundRemovalModel", bg_removal_name=file)[0]
    found = graph.add("foreground", "RemoveBackground", bg_removal_model=model, image=image)[0]
    hidden = graph.add("background", "InvertMask", mask=found)[0]
    return graph.add("cut out", "JoinImageWithAlpha", image=image, alpha=hidden)[0]
