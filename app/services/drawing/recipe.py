"""What a request asks for, in the words of no service: the step between a request and a workflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ....host.errors import GraphError, shown

FindImage = Callable[[str, str], str]
"""Returns the file name in the input folder of an image: of the parameter that holds it, and what it holds."""
MAX_LORA_STRENGTH = 20
"""Of LoraLoader, in both directions, as far as it is useful."""
MOST_REPEATS = 64
"""Of one first image, by ComfyUI's RepeatLatentBatch."""
# An outcome (MAPPED, ...) and what happened, in words.
Note = tuple[str, str]


@dataclass(frozen=True)
class ReferenceImage:
    """A reference image: its file in the input folder, how strongly and in which way it acts, and where."""

    file: str
    scale: float
    type: str
    mask: str | None = None


@dataclass(frozen=True)
class Guide:
    """An image that a ControlNet follows: its file, the network's name, how strongly, when (0..1), as edges."""

    file: str
    network: str
    strength: float
    end: float
    edges: bool
    start: float = 0.0


@dataclass(frozen=True)
class Maps:
    """Maps of a texture that is there: its file, the depth of its relief in px, and whether white is low."""

    file: str
    relief: float
    inverted: bool


@dataclass(frozen=True)
class Pairs:
    """What SDXL's text encoders read where they read two prompts: for each side that of CLIP-L, and that of CLIP-G."""

    positive: tuple[str, str]
    negative: tuple[str, str]


@dataclass
class Recipe:
    """An image to be made.

    Attributes:
        pairs: the prompts of SDXL's two text encoders; other models read `prompt` and `negative`, which hold all.
        model: the name of the model in the request.
        lora_on_base: the name of a model that is a LoRA on top of `model`.
        size: (width, height) in px.
        seeds: one for a batch of `count` images, or one for each image.
        strength: the part of the noise levels that is run on the first image; 1 keeps nothing of it.
        guidance: None takes the family's own.
        scheduler: a diffusers class; None takes euler.
        algorithm: of DPMSolverMultistepScheduler; the scheduler's own where it is empty.
        loras: names with strengths.
        tiling: the axes on which the image repeats, as Seamless Model names them; none where it is empty.
        last_layer: of the text encoder, counted from its end: -1 is its own last one.
        keep: False makes previews.
        file_format: png or jpeg.
        as_text: give the images as base64, too.
        contrast: about middle grey; 1 changes nothing.
        upscale: the factor of the first image's size, which tells that of the result; 0 where `size` does.
        source: (width, height) in px of that image before it is enlarged; set when it has been read.
        resized: whether it is scaled to `source` first.
        unit: number of px of which its sides are multiples afterwards.
        enlarge: the factor of the finished images' size.
        safety: how Safety Filter hides what is flagged; nothing is checked where it is empty.
        intermediate: the images of the steps are kept, too; not beside a second pass or a refiner.
        second_pass: the image is enlarged to twice its size and sampled once more at half strength.
        foreground_only: what lies behind the motif is transparent.
        background_model: the name of a file in models/background_removal for it; its colour does where it is empty.
        enhance: the prompt is written better before it is encoded.
        text_model: the name of a folder in models/text_generation that writes it; rules where it is empty.
        instructions: what that model is to do with it.
        refine_from: the part of the steps after which a refiner takes over; None has none.
        unzoom: the margin around the first image, as a part of its own size.
        fill_mask: what is under the mask does not count at all.
        maps: instead of an image, maps of one.
        notes: what became of a parameter in this request, where that is not what its table says.
        remarks: what is said in addition of a parameter that acts, by its name or a role that it goes to.
        missing: what became of the parameters that go to a role, or first to an input, where a file is missing.
    """

    prompt: str
    size: tuple[int, int]
    seeds: list[int]
    negative: str = ""
    negative_strength: float = 0.0
    pairs: Pairs | None = None
    model: str = ""
    lora_on_base: str = ""
    count: int = 1
    steps: int = 30
    guidance: float | None = None
    strength: float = 1.0
    scheduler: str | None = None
    algorithm: str = ""
    karras: bool = False
    loras: list[tuple[str, float]] = field(default_factory=list)
    vae: str = ""
    last_layer: int = -1
    init_image: str | None = None
    mask: str | None = None
    image_prompts: list[ReferenceImage] = field(default_factory=list)
    guides: list[Guide] = field(default_factory=list)
    tiling: str = ""
    token_merging: float = 0.0
    keep: bool = True
    file_format: str = "png"
    as_text: bool = False
    contrast: float = 1.0
    upscale: float = 0.0
    source: tuple[int, int] = (0, 0)
    resized: bool = False
    unit: int = 1
    enlarge: float = 1.0
    second_pass: bool = False
    intermediate: bool = False
    safety: str = ""
    foreground_only: bool = False
    background_model: str = ""
    enhance: bool = False
    text_model: str = ""
    instructions: str = ""
    refine_from: float | None = None
    unzoom: float = 0.0
    fill_mask: bool = False
    maps: Maps | None = None
    notes: dict[str, Note] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    missing: dict[str, Note] = field(default_factory=dict)


def named_file(name: str, files: list[str]) -> str | None:
    """Return the file of a name: its path, or the path without its suffix or folder, in any case of letters."""
    wanted = name.strip().lower()
    for file in files:
        path = file.lower().replace("\\", "/")
        stem = path.rsplit("/", 1)[-1]
        if wanted and wanted in (path, stem, path.rsplit(".", 1)[0], stem.rsplit(".", 1)[0]):
            return file
    return None


def named_weights(
    parameter: str, items: list[dict[str, Any]] | None, name: str, weight: str
) -> list[tuple[str, float]]:
    """Return the names and weights in a list of objects; a weight that is left out is 1.

    Raises:
        GraphError: an object has no name, or a weight that is not a number.
    """
    pairs = [(item.get(name), 1.0 if item.get(weight) is None else item[weight]) for item in items or []]
    for item, (found, scale) in zip(items or [], pairs, strict=True):
        if not isinstance(found, str | int) or not abs(as_number(scale)) <= MAX_LORA_STRENGTH:
            expected = f"objects with {name} and {weight}, a number from -{MAX_LORA_STRENGTH} to {MAX_LORA_STRENGTH}"
            raise GraphError([f"{parameter}: found {shown(item)}; expected {expected}"])
    return [(str(found), as_number(scale)) for found, scale in pairs]


def as_number(value: Any) -> float:
    """Return a number, which may be written as text; NaN for anything else, flags included."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
