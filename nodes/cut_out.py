"""The node that cuts a motif out of its background."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..contract import io
from ..images.foreground import clean_colours, colour_alpha


class TesseraCutOut(io.ComfyNode):
    """Makes the background transparent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraCutOut",
            display_name="Cut Out Foreground",
            category="Tessera/image",
            description="Makes what lies behind a motif transparent: what a mask leaves out, or the border's colour.",
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
                io.Image.Input("image", tooltip="The picture, or a batch; each is cut by itself."),
                io.Float.Input(
                    "tolerance",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="How far a colour may be from the background's, in OKLab; 0.02 is a difference just seen. "
                    "Without a mask.",
                ),
                io.Int.Input(
                    "softness",
                    default=2,
                    min=0,
                    max=32,
                    optional=True,
                    tooltip="How many px on both sides of an edge may be partly transparent; 0 makes hard edges. "
                    "Without a mask.",
                ),
                io.Boolean.Input(
                    "holes",
                    default=False,
                    optional=True,
                    tooltip="Whether the background's colour is cut out inside of the motif, too. Without a mask.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the motif is, as Remove Background gives it; takes the picture's size. "
                    "Without it, the background is told by its colour.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The motif, with transparency: save it as PNG or WebP."),
                io.Mask.Output(display_name="mask", tooltip="1 where the motif is."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, tolerance: float = 0.1, softness: int = 2, holes: bool = False, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """Find alpha, then the motif's own colours."""
        pictures = image[..., :3].movedim(-1, 1).float()
        if mask is None:
            alpha = torch.stack([colour_alpha(each, tolerance, softness, holes) for each in pictures])
        else:
            alpha = _fitted(mask, pictures)
        alpha = alpha * image[..., 3] if image.shape[-1] == 4 else alpha
        _demand_motif(alpha, "the mask is black; connect another" if mask is not None else _ADVICE.format(tolerance))
        colours = torch.stack([clean_colours(*each) for each in zip(pictures, alpha, strict=True)])
        return io.NodeOutput(torch.cat([colours, alpha[:, None]], 1).movedim(1, -1), alpha)


_ADVICE = "all of it is within the tolerance of {}; choose a smaller one, or connect a mask"


def _fitted(mask: Tensor, pictures: Tensor) -> Tensor:
    """A mask, or one for each picture, in the pictures' size: (B, H, W)."""
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).to(pictures)
    if len(planes) not in (1, len(pictures)):
        expected = f"expected 1 or {len(pictures)}, as there are pictures; select some of them"
        raise ValueError(f"found {len(planes)} masks, {expected}")
    return F.interpolate(planes, pictures.shape[-2:], mode="bilinear")[:, 0].clamp(0, 1).expand(len(pictures), -1, -1)


def _demand_motif(alpha: Tensor, why: str) -> None:
    empty = [number for number, each in enumerate(alpha, 1) if not each.any()]
    if empty:
        raise ValueError(f"found only background in picture {', '.join(map(str, empty))} of {len(alpha)}: {why}")
