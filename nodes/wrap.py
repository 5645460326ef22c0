"""Wrap Pad and Wrap Crop: nodes between them see a continued texture, so their results tile."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..contract import io
from ..patching.latents import pixels_per_latent, with_planes
from ..tiling.axes import TILINGS
from ..tiling.wrap import Geometry, check_halves, margins
from ..tiling.wrap_scales import crop_image, crop_plane, pad_image, pad_plane
from .checks import ABSENT, verdict
from .inputs import TWO_AXES

WrapGeometry = io.Custom("TESSERA_WRAP_GEOMETRY")
SMALLEST_PIXELS = 8
"""Image pixels per latent while the latent is unknown: those of most models, which divide all others."""
REPEATING = [*TWO_AXES, "half_drop", "brick"]


class TesseraWrapPad(io.ComfyNode):
    """Add a margin of wrapped copies."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraWrapPad",
            display_name="Wrap Pad",
            category="Tessera/tiling",
            description="Continues a texture beyond its edges, so that an upscaler, a blur or a depth model keeps it "
            "tileable; Wrap Crop removes the margin.",
            search_aliases=["upscale", "seamless upscale", "tile", "tileable", "circular padding", "periodic border"],
            inputs=[
                io.Int.Input(
                    "padding",
                    default=64,
                    min=0,
                    max=4096,
                    optional=True,
                    tooltip="Width of the margin at each side in px of the image: as far as the next node looks.",
                ),
                io.Combo.Input(
                    "tiling",
                    options=REPEATING,
                    default="both",
                    optional=True,
                    tooltip="Which sides get a margin: those that repeat; half_drop and brick are for textures with "
                    "repeats shifted half a height down to the right, or half a width to the right below.",
                ),
                io.Image.Input("image", optional=True, tooltip="The texture, or a batch of textures."),
                io.Mask.Input("mask", optional=True, tooltip="A mask of the texture, padded in proportion."),
                io.Latent.Input("latent", optional=True, tooltip="Latents, padded with their noise mask."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The continued texture."),
                WrapGeometry.Output(display_name="geometry", tooltip="Connect it to Wrap Crop."),
                io.Mask.Output(display_name="mask", tooltip="The continued mask."),
                io.Latent.Output(display_name="latent", tooltip="The continued latents."),
            ],
        )

    @classmethod
    def execute(
        cls,
        padding: int = 64,
        tiling: str = "both",
        image: Tensor | None = None,
        mask: Tensor | None = None,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Pad what is connected."""
        axes, (size, margin) = TILINGS[tiling], _size(image, mask, latent, padding)
        if latent is not None:
            check_halves(latent["samples"].shape[-2:], axes, pixels_per_latent(latent))
        geometry = margins(size, axes, margin)
        return io.NodeOutput(
            None if image is None else pad_image(image, geometry),
            geometry,
            None if mask is None else pad_plane(mask, geometry),
            None if latent is None else with_planes(latent, lambda x: pad_plane(x, geometry)),
        )

    @classmethod
    def validate_inputs(
        cls, padding: int | None = 64, image: Any = ABSENT, mask: Any = ABSENT, latent: Any = ABSENT
    ) -> bool | str:
        """Check that something is connected, and that the padding is a whole number of latents."""
        connected = [each is not ABSENT for each in (image, mask, latent)]
        return verdict(cls, {"padding": padding}, (partial(check_connected, *connected), ["padding"]))


class TesseraWrapCrop(io.ComfyNode):
    """Remove a margin of wrapped copies."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraWrapCrop",
            display_name="Wrap Crop",
            category="Tessera/tiling",
            description="Removes the margin that Wrap Pad added, at whatever scale the nodes in between return.",
            search_aliases=["upscale", "seamless upscale", "tile", "tileable", "unpad", "remove padding"],
            inputs=[
                WrapGeometry.Input("geometry", tooltip="From Wrap Pad."),
                io.Float.Input(
                    "blend",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="Fraction of the margin that is blended across the edge, for nodes that see the whole "
                    "image, such as depth models. 0 cuts the margin off.",
                ),
                io.Image.Input("image", optional=True, tooltip="The continued texture, processed."),
                io.Mask.Input("mask", optional=True, tooltip="The continued mask, processed."),
                io.Latent.Input("latent", optional=True, tooltip="The continued latents, processed."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The texture, which still tiles."),
                io.Mask.Output(display_name="mask", tooltip="The mask."),
                io.Latent.Output(display_name="latent", tooltip="The latents."),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: Geometry,
        blend: float = 0.0,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        latent: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Crop what is connected."""
        _size(image, mask, latent, 0)
        return io.NodeOutput(
            None if image is None else crop_image(image, geometry, blend),
            None if mask is None else crop_plane(mask, geometry, blend),
            None if latent is None else with_planes(latent, lambda x: crop_plane(x, geometry, blend)),
        )

    @classmethod
    def validate_inputs(
        cls, blend: float | None = 0.0, image: Any = ABSENT, mask: Any = ABSENT, latent: Any = ABSENT
    ) -> bool | str:
        """Check that something is connected."""
        connected = [each is not ABSENT for each in (image, mask, latent)]
        return verdict(cls, {"blend": blend}, (partial(check_connected, *connected, 0), []))


def _size(
    image: Tensor | None, mask: Tensor | None, latent: dict[str, Any] | None, padding: int
) -> tuple[tuple[int, int], int]:
    """Return (height, width) of the first that is connected, and the padding in its px.

    Raises:
        ValueError: none is, or only a latent and the padding is not a whole number of its px.
    """
    if image is not None:
        return (image.shape[1], image.shape[2]), padding
    if mask is not None:
        return (mask.shape[-2], mask.shape[-1]), padding
    pixels = SMALLEST_PIXELS if latent is None else pixels_per_latent(latent)
    check_connected(False, False, latent is not None, padding, pixels)
    assert latent is not None
    return (latent["samples"].shape[-2], latent["samples"].shape[-1]), padding // pixels


def check_connected(image: bool, mask: bool, latent: bool, padding: int, pixels: int = SMALLEST_PIXELS) -> None:
    """Check what is connected; the first of the three measures the padding.

    Raises:
        ValueError: nothing is, or only a latent and the padding is not a whole number of its px.
    """
    if not (image or mask or latent):
        raise ValueError("Nothing is connected; connect an image, a mask or a latent.")
    if not (image or mask) and padding % pixels:
        raise ValueError(
            f"A padding of {padding} px is not a whole number of latent pixels; set a multiple of {pixels}."
        )
