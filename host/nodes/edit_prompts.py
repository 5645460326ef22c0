"""ComfyUI's core nodes that write prompts about images, for text encoders that see."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..images.scaling import resize
from ..sampling.conds import Conditioning, with_values
from ..schema import io
from ..schema.declare import Nodes

NODES = Nodes("model/conditioning/qwen image")
SEEN, DRAWN = 384 * 384, 1024 * 1024
"""Pixels of images as the text encoder sees them beside others, and as the model does."""

MULTIPLE = 8
SYSTEM = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
TEMPLATE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{}}<|im_end|>\n<|im_start|>assistant\n"
SHOWN = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"


def _inputs(*images: str) -> list[io.Input]:
    return [
        io.Clip.Input("clip", tooltip="A text encoder that sees, such as Qwen2.5-VL."),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip="What is to be changed."),
        io.Vae.Input("vae", optional=True, tooltip="With it the model sees the images, too."),
        *(io.Image.Input(name, optional=True, tooltip="An image to edit or to take from.") for name in images),
    ]


def _of_size(image: Tensor, pixels: int, multiple: int = 1) -> Tensor:
    """Return images (B, H, W, 3) with so many pixels in all."""
    height, width = image.shape[1:3]
    factor = math.sqrt(pixels / (width * height))
    columns, rows = (round(side * factor / multiple) * multiple for side in (width, height))
    return resize(image, columns, rows, "area")[..., :3]


def _encoded(clip: Any, references: list[Tensor], text: str, **options: Any) -> Conditioning:
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text, **options))
    return with_values(conditioning, append=True, reference_latents=references) if references else conditioning


@NODES("TextEncodeQwenImageEdit", "TextEncodeQwenImageEdit", _inputs("image"), [io.Conditioning])
def encode_one(clip: Any, prompt: str, vae: Any = None, image: Tensor | None = None) -> Conditioning:
    """Encode what is to be changed in an image, which the text encoder sees and, with a VAE, the model."""
    images = [] if image is None else [_of_size(image, DRAWN)]
    references = [] if vae is None else [vae.encode(each) for each in images]
    return _encoded(clip, references, prompt, images=images)


@NODES(
    "TextEncodeQwenImageEditPlus",
    "TextEncodeQwenImageEditPlus",
    _inputs("image1", "image2", "image3"),
    [io.Conditioning],
)
def encode_several(
    clip: Any,
    prompt: str,
    vae: Any = None,
    image1: Tensor | None = None,
    image2: Tensor | None = None,
    image3: Tensor | None = None,
) -> Conditioning:
    """Encode a prompt about up to three images, which it may call Picture 1, 2 and 3."""
    shown = [(number, image) for number, image in enumerate((image1, image2, image3), 1) if image is not None]
    references = [] if vae is None else [vae.encode(_of_size(image, DRAWN, MULTIPLE)) for _, image in shown]
    text = "".join(SHOWN.format(number) for number, _ in shown) + prompt
    images = [_of_size(image, SEEN) for _, image in shown]
    return _encoded(clip, references, text, images=images, llama_template=TEMPLATE)
