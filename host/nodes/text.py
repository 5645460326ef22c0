"""ComfyUI's nodes for prompts."""

from __future__ import annotations

import json
from typing import Any

import torch

from ..sampling.conds import Conditioning
from ..schema import io, ui
from ..schema.declare import Nodes, decimal, integer
from ..schema.limits import MAX_RESOLUTION

EDGES = 6
"""Of tensors, shown at each end."""


def _checked(clip: Any) -> Any:
    if clip is None:
        raise ValueError("the checkpoint holds no text encoder; load one with DualCLIPLoader and link it here")
    return clip


def _pixels(input_id: str, default: int, tooltip: str, advanced: bool | None = None) -> io.Int.Input:
    return io.Int.Input(input_id, default=default, min=0, max=MAX_RESOLUTION, advanced=advanced, tooltip=tooltip)


class CLIPTextEncode(io.ComfyNode):
    """ComfyUI's CLIP Text Encode (Prompt)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CLIPTextEncode",
            display_name="CLIP Text Encode (Prompt)",
            category="model/conditioning",
            description="Turns a prompt into what guides a model.",
            search_aliases=[
                "text",
                "prompt",
                "text prompt",
                "positive prompt",
                "negative prompt",
                "encode text",
                "text encoder",
                "encode prompt",
            ],
            inputs=[
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
                io.Clip.Input("clip", tooltip="The text encoder of the model."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The prompt as the model reads it.")],
        )

    @classmethod
    def execute(cls, text: str, clip: Any) -> io.NodeOutput:
        """Encode the prompt."""
        tokens = _checked(clip).tokenize(text)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))


class CLIPTextEncodeFlux(io.ComfyNode):
    """ComfyUI's prompt node for Flux."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CLIPTextEncodeFlux",
            display_name="CLIPTextEncodeFlux",
            category="model/conditioning/flux",
            description="Turns a prompt for each of Flux's text encoders into what guides the model.",
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP-L and T5."),
                io.String.Input("clip_l", multiline=True, dynamic_prompts=True, tooltip="The prompt for CLIP-L."),
                io.String.Input("t5xxl", multiline=True, dynamic_prompts=True, tooltip="The prompt for T5."),
                io.Float.Input(
                    "guidance", default=3.5, min=0.0, max=100.0, step=0.1, tooltip="How closely prompts are followed."
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The prompts as the model reads them.")],
        )

    @classmethod
    def execute(cls, clip: Any, clip_l: str, t5xxl: str, guidance: float) -> io.NodeOutput:
        """Encode both prompts."""
        tokens = _checked(clip).tokenize(clip_l)
        if "t5xxl" not in tokens:
            raise ValueError("the text encoder is not Flux's; load CLIP-L and T5 with DualCLIPLoader, type flux")
        tokens["t5xxl"] = clip.tokenize(t5xxl)["t5xxl"]
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": guidance}))


class CLIPTextEncodeSDXL(io.ComfyNode):
    """ComfyUI's prompt node for SDXL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CLIPTextEncodeSDXL",
            display_name="CLIP Text Encode (SDXL)",
            category="model/conditioning/stable diffusion",
            description="Turns a prompt for each of SDXL's text encoders, and sizes, into what guides the model.",
            inputs=[
                io.Clip.Input("clip", tooltip="CLIP-L and CLIP-G."),
                _pixels("width", 1024, "Width of the original that the model is told; small ones look blurred."),
                _pixels("height", 1024, "Height of the original that the model is told."),
                _pixels("crop_w", 0, "How much of its left side is cut off.", advanced=True),
                _pixels("crop_h", 0, "How much of its top is cut off.", advanced=True),
                _pixels("target_width", 1024, "Width of the image that is made."),
                _pixels("target_height", 1024, "Height of the image that is made."),
                io.String.Input("text_g", multiline=True, dynamic_prompts=True, tooltip="The prompt for CLIP-G."),
                io.String.Input("text_l", multiline=True, dynamic_prompts=True, tooltip="The prompt for CLIP-L."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The prompts as the model reads them.")],
        )

    @classmethod
    def execute(cls, clip: Any, text_g: str, text_l: str, **sizes: int) -> io.NodeOutput:
        """Encode both prompts; the shorter one is filled up with empty chunks."""
        tokens, empty = _checked(clip).tokenize(text_g), clip.tokenize("")
        if tokens.keys() != {"g", "l"}:
            raise ValueError("the text encoder is not SDXL's; load an SDXL checkpoint, or CLIP-L and CLIP-G, type sdxl")
        tokens["l"] = clip.tokenize(text_l)["l"]
        longest = max(map(len, tokens.values()))
        for key, chunks in tokens.items():
            tokens[key] = chunks + empty[key] * (longest - len(chunks))
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict=sizes))


class CLIPSetLastLayer(io.ComfyNode):
    """ComfyUI's clip skip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CLIPSetLastLayer",
            display_name="CLIP Set Last Layer",
            category="model/conditioning",
            description="Reads prompts at an earlier layer of the text encoder (clip skip).",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder; it is not changed."),
                io.Int.Input(
                    "stop_at_clip_layer",
                    default=-1,
                    min=-24,
                    max=-1,
                    step=1,
                    advanced=True,
                    tooltip="-1 is the last layer, -2 the one before it.",
                ),
            ],
            outputs=[io.Clip.Output(tooltip="The text encoder, read at that layer.")],
        )

    @classmethod
    def execute(cls, clip: Any, stop_at_clip_layer: int) -> io.NodeOutput:
        """Set the layer of a clone."""
        clip = _checked(clip).clone()
        clip.clip_layer(stop_at_clip_layer)
        return io.NodeOutput(clip)


class PreviewAny(io.ComfyNode):
    """ComfyUI's Preview as Text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="PreviewAny",
            display_name="Preview as Text",
            category="utilities",
            description="Shows any value as text.",
            search_aliases=["show output", "inspect", "debug", "print value", "show text"],
            is_output_node=True,
            inputs=[io.AnyType.Input("source", tooltip="What is shown.")],
            outputs=[io.String.Output(tooltip="The text.")],
        )

    @classmethod
    def execute(cls, source: Any = None) -> io.NodeOutput:
        """Write it down."""
        text = as_text(source)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def as_text(value: Any) -> str:
    """Return a value as ComfyUI shows it.

    Text as it is, numbers as Python writes them, the rest as JSON where it can be.
    """
    if isinstance(value, (str, int, float)) or value is None:
        return str(value)
    try:
        return json.dumps(value, indent=4, ensure_ascii=False)
    # Objects of any class, whose methods may fail in any way.
    except Exception:
        return _written(value)


def _written(value: Any) -> str:
    torch.set_printoptions(edgeitems=EDGES)
    try:
        return str(value)
    except Exception:
        return "source exists, but could not be serialized."
    finally:
        torch.set_printoptions(profile="default")


MORE = Nodes("model/conditioning/stable diffusion")


@MORE(
    "CLIPTextEncodeSDXLRefiner",
    "CLIP Text Encode (SDXL Refiner)",
    [
        decimal("ascore", 6.0, 0.0, 1000.0, tooltip="Aesthetic score of the image; 2.5 is usual in the negative."),
        _pixels("width", 1024, "Width of the original that the model is told."),
        _pixels("height", 1024, "Height of the original that the model is told."),
        io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
        io.Clip.Input("clip"),
    ],
    [io.Conditioning],
)
def encode_for_refiner(clip: Any, ascore: float, width: int, height: int, text: str) -> Conditioning:
    """Turn a prompt, a score and a size into what guides SDXL's refiner."""
    told = {"aesthetic_score": ascore, "width": width, "height": height}
    return _checked(clip).encode_from_tokens_scheduled(clip.tokenize(text), add_dict=told)


@MORE(
    "CLIPTextEncodeSD3",
    "CLIP Text Encode (SD3)",
    [
        io.Clip.Input("clip"),
        *(
            io.String.Input(name, multiline=True, dynamic_prompts=True, tooltip="The prompt for this encoder.")
            for name in ("clip_l", "clip_g", "t5xxl")
        ),
        io.Combo.Input(
            "empty_padding",
            options=["none", "empty_prompt"],
            advanced=True,
            tooltip="Whether an encoder without a prompt gives nothing, or an empty prompt.",
        ),
    ],
    [io.Conditioning],
    search_aliases=["sd3 prompt"],
)
def encode_for_sd3(clip: Any, clip_l: str, clip_g: str, t5xxl: str, empty_padding: str) -> Conditioning:
    """Turn a prompt for each text encoder into what guides Stable Diffusion 3; what a checkpoint lacks is left out."""
    empty = _checked(clip).tokenize("")

    def chunks(name: str, text: str) -> list[Any]:
        is_left_out = name not in empty or (not text and empty_padding == "none")
        return [] if is_left_out else clip.tokenize(text)[name]

    tokens = {name: chunks(name, text) for name, text in (("g", clip_g), ("l", clip_l), ("t5xxl", t5xxl))}
    longest = max(len(tokens["l"]), len(tokens["g"]))
    for name in ("l", "g"):
        tokens[name] = tokens[name] + empty.get(name, []) * (longest - len(tokens[name]))
    return clip.encode_from_tokens_scheduled(tokens)


@MORE(
    "T5TokenizerOptions",
    "T5 Tokenizer Options",
    [
        io.Clip.Input("clip"),
        integer("min_padding", 0, 0, 10000, tooltip="Padding tokens behind a prompt at least."),
        integer("min_length", 0, 0, 10000, tooltip="Tokens of a prompt at least."),
    ],
    [io.Clip],
    "model/conditioning",
    is_experimental=True,
)
def t5_options(clip: Any, min_padding: int, min_length: int) -> Any:
    """Choose how far prompts for T5 are padded."""
    changed = _checked(clip).clone()
    changed.tokenizer = changed.tokenizer.with_padding("t5xxl", min_length, min_padding)
    return changed


NODES: list[type[io.ComfyNode]] = [
    *MORE,
    CLIPTextEncode,
    CLIPTextEncodeFlux,
    CLIPTextEncodeSDXL,
    CLIPSetLastLayer,
    PreviewAny,
]
