"""Inputs that several nodes declare, each once."""

from __future__ import annotations

from typing import Any

from ..contract import io
from ..ip_adapter.features import FITS, UNCONDITIONALS
from ..ip_adapter.presets import TYPES
from ..samplers.spacing import MAX_STEPS
from ..tiling.axes import REPEATS, TILINGS

MAX_SEED = 2**64 - 1
TWO_AXES = ["both", "horizontal", "vertical"]
"""Tilings that do not shift repeats."""

LIMITS = (-1.0, 3.0)
"""Least and largest of what a scale of 1 of a reference may mean."""

IpAdapter = io.Custom("IP_ADAPTER")
ImagePrompts = io.Custom("IMAGE_PROMPTS")


def seed_input(tooltip: str = "Random seed; the same seed gives the same image.", optional: bool = False) -> io.Input:
    """Declare a random seed."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        optional=optional,
        tooltip=tooltip,
    )


def steps_input(default: int) -> io.Input:
    """Declare the number of steps."""
    return io.Int.Input("steps", default=default, min=1, max=MAX_STEPS, tooltip="Number of steps.")


def cfg_input() -> io.Input:
    """Declare the guidance scale."""
    return io.Float.Input(
        "cfg",
        default=7.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="Guidance scale: how far to go from the negative towards the positive prompt; 1 is no guidance.",
    )


def denoise_input() -> io.Input:
    """Declare the part of the schedule that is run."""
    return io.Float.Input(
        "denoise",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="How much of the schedule is run; lower values keep more of the given image, as strength in diffusers.",
    )


def percent(name: str, default: float, tooltip: str) -> io.Input:
    """Declare a fraction of the schedule."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, optional=True, tooltip=tooltip)


def check_range(start: float, end: float) -> None:
    """Raise ValueError when a range of the schedule ends before it starts."""
    if start > end:
        raise ValueError(f"start_percent {start} is after end_percent {end}; set a start that is not later.")


def tiling_input(tooltip: str) -> io.Input:
    """Declare which edges of a generated image meet."""
    return io.Combo.Input("tiling", options=list(TILINGS), default="both", tooltip=tooltip)


def repeat_input(other_axis: str) -> io.Input:
    """Declare how repeats of a texture are placed; `other_axis` says what happens along one that does not repeat."""
    return io.Combo.Input(
        "repeat",
        options=list(REPEATS),
        default="straight",
        optional=True,
        advanced=True,
        tooltip="How repeats are placed: half_drop shifts those to the right half a height down, brick those below "
        f"half a width to the right; horizontal and vertical repeat along that axis alone, and {other_axis}.",
    )


def acting_inputs() -> list[io.Input]:
    """Declare how a reference image acts: what Image Prompt and Load Reference share."""
    return [
        io.Float.Input(
            "scale",
            default=0.9,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="How strongly this image acts; each image has its own scale, and 0 turns it off.",
        ),
        io.Combo.Input(
            "type",
            options=TYPES,
            default="style",
            optional=True,
            tooltip="What is taken over: style, character, composition or all of it; the help page lists the blocks.",
        ),
        percent("start_percent", 0.0, "Fraction of the schedule at which the image starts to act."),
        percent("end_percent", 1.0, "Fraction of the schedule after which the image no longer acts."),
        io.Mask.Input("mask", optional=True, tooltip="Where the reference acts; grey acts in part."),
        ImagePrompts.Input("previous", optional=True, tooltip="Image prompts to which this one is added."),
        io.String.Input(
            "blocks",
            default="",
            optional=True,
            advanced=True,
            tooltip="Weights of blocks instead of the type, such as: all=0.2, up_blocks.1=1, mid_block=0.",
        ),
    ]


def limit_input() -> io.Input:
    """Declare what a scale of 1 means."""
    return io.Float.Input(
        "limit",
        default=1.0,
        min=LIMITS[0],
        max=LIMITS[1],
        step=0.05,
        optional=True,
        advanced=True,
        tooltip="What a scale of 1 means: the scale is multiplied by it. Above 1 is stronger than trained, below 0 "
        "subtracts the image.",
    )


def encoding_inputs() -> list[io.Input]:
    """Declare how the image encoder sees an image: what Image Prompt and Save Reference share."""
    return [
        io.Combo.Input(
            "fit",
            options=FITS,
            default="crop",
            optional=True,
            advanced=True,
            tooltip="How the image becomes the encoder's square: its centre, all of it with bars, stretched, or "
            "several squares that cover a wide image.",
        ),
        io.Combo.Input(
            "unconditional",
            options=UNCONDITIONALS,
            default="reference",
            optional=True,
            advanced=True,
            tooltip="What guidance pushes away from: as in training, a black image, or this one shuffled.",
        ),
    ]


def face_inputs(files: list[str], none: str, versions: list[str]) -> list[Any]:
    """Declare what FaceID adapters take in addition to an image."""
    return [
        io.Combo.Input(
            "face_embedding",
            options=[none, *files],
            default=none,
            optional=True,
            advanced=True,
            tooltip="For FaceID adapters: a file in the input folder with a 512-d ArcFace embedding.",
        ),
        io.Combo.Input(
            "face_version",
            options=versions,
            default="auto",
            optional=True,
            advanced=True,
            tooltip="For FaceID plus adapters, whose two versions look alike; auto goes by the adapter's file name.",
        ),
        io.Float.Input(
            "face_structure",
            default=1.0,
            min=0.0,
            max=5.0,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="How much FaceID plus v2 follows the image of the face in addition to the embedding.",
        ),
    ]
