"""Cut Out Foreground: make the background of a motif transparent."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torch.nn import functional as F

from ..contract import io
from ..images.control_maps import rgb
from ..images.foreground import clean_colours, colour_alpha

_log = logging.getLogger(__name__)


class TesseraCutOut(io.ComfyNode):
    """Make the background transparent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraCutOut",
            display_name="Cut Out Foreground",
            category="Tessera/image",
            description="Makes the background of an image transparent: along a mask, or by the colour at its border.",
            search_aliases=[
                "remove background",
                "transparent background",
                "transparency",
                "alpha",
                "foreground only",
                "colour key",
                "matting",
                "rembg",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch; each is cut out separately."),
                io.Float.Input(
                    "tolerance",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Largest OKLab distance from the background's colour; 0.02 is just noticeable. "
                    "Only without a mask.",
                ),
                io.Int.Input(
                    "softness",
                    default=2,
                    min=0,
                    max=32,
                    optional=True,
                    tooltip="Width in px, on both sides of an edge, that may be partly transparent; 0 makes hard "
                    "edges. Only without a mask.",
                ),
                io.Boolean.Input(
                    "holes",
                    default=False,
                    optional=True,
                    tooltip="Also cut the background's colour out inside the motif. Only without a mask.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the motif is, as from Remove Background; resized to the image. "
                    "Without it, the background is found by its colour.",
                ),
                io.Boolean.Input(
                    "keep_whole",
                    default=False,
                    optional=True,
                    tooltip="Keep an image whole in which only background is found, with a warning in the log; "
                    "otherwise it is an error.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The motif, with transparency: save it as PNG or WebP."),
                io.Mask.Output(display_name="mask", tooltip="1 where the motif is."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        tolerance: float = 0.1,
        softness: int = 2,
        holes: bool = False,
        mask: Tensor | None = None,
        keep_whole: bool = False,
    ) -> io.NodeOutput:
        """Find alpha, then remove the background from the colours of soft edges."""
        images = rgb(image).movedim(-1, 1)
        if mask is None:
            alpha = torch.stack([colour_alpha(each, tolerance, softness, holes) for each in images])
        else:
            alpha = _fitted(mask, images)
        there = image[..., 3] if image.shape[-1] == 4 else torch.ones_like(alpha)
        alpha = alpha * there
        if why := _without_motif(alpha, tolerance, mask is not None):
            if not keep_whole:
                raise ValueError(why)
            _log.warning("Cut Out Foreground %s; kept whole", why)
            alpha = torch.where(alpha.flatten(1).any(1)[:, None, None], alpha, there)
        colours = torch.stack([clean_colours(*each) for each in zip(images, alpha, strict=True)])
        return io.NodeOutput(torch.cat([colours, alpha[:, None]], 1).movedim(1, -1), alpha)


def _fitted(mask: Tensor, images: Tensor) -> Tensor:
    """Return masks resized to `images` (B, C, H, W): (B, H, W)."""
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).to(images)
    if len(planes) not in (1, len(images)):
        expected = f"expected 1 or {len(images)}, the number of images; select some of them"
        raise ValueError(f"found {len(planes)} masks, {expected}")
    return F.interpolate(planes, images.shape[-2:], mode="bilinear")[:, 0].clamp(0, 1).expand(len(images), -1, -1)


def _without_motif(alpha: Tensor, tolerance: float, masked: bool) -> str:
    """Say which images of alpha (B, H, W) have only background, and why; "" where none has."""
    empty = [number for number, each in enumerate(alpha, 1) if not each.any()]
    advice = "the mask is black; connect another" if masked else _ADVICE.format(tolerance)
    return f"found only background in image {', '.join(map(str, empty))} of {len(alpha)}: {advice}" if empty else ""


_ADVICE = "all of it is within the tolerance of {}; choose a smaller one, or connect a mask"
