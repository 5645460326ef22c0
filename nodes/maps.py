"""Maps of a texture's surface that tile as it does: normals of heights, heights of normals, ambient occlusion."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..contract import io
from ..tiling import maps
from ..tiling.axes import REPEATS
from .shown import shown

GREEN = ["OpenGL", "DirectX"]
GREEN_TOOLTIP = "Where green points: up (OpenGL: Blender, Unity, Godot) or down (DirectX: Unreal, 3ds Max)."
HEIGHT_TOOLTIP = "Heights, white on top; of a colour picture its luminance. Or a batch of them."
RELIEF_TOOLTIP = "Distance between black and white in px of the picture: how deep the relief is."


def _repeat_input() -> Any:
    return io.Combo.Input(
        "repeat",
        options=list(REPEATS),
        default="straight",
        optional=True,
        advanced=True,
        tooltip="How repeats of the texture lie: half_drop shifts those to the right half a height down, brick those "
        "below half a width to the right; horizontal and vertical repeat along that axis alone, and the picture goes "
        "on as it ends along the other.",
    )


class TesseraHeightToNormal(io.ComfyNode):
    """Makes a normal map of heights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraHeightToNormal",
            display_name="Height To Normal",
            category="Tessera/tiling",
            description="Makes a normal map of a height map, or of a texture's luminance, that tiles as it does.",
            search_aliases=["normal map", "height to normal", "bump map", "pbr", "seamless normal map"],
            inputs=[
                io.Image.Input("height", tooltip=HEIGHT_TOOLTIP),
                io.Float.Input(
                    "strength",
                    default=8.0,
                    min=-1024.0,
                    max=1024.0,
                    step=0.1,
                    optional=True,
                    tooltip=f"{RELIEF_TOOLTIP[:-1]}; below 0 white is the bottom.",
                ),
                io.Combo.Input("green", options=GREEN, default="OpenGL", optional=True, tooltip=GREEN_TOOLTIP),
                _repeat_input(),
            ],
            outputs=[io.Image.Output(display_name="normal", tooltip="The normal map; (0.5, 0.5, 1) is flat.")],
        )

    @classmethod
    def execute(
        cls, height: Tensor, strength: float = 8.0, green: str = "OpenGL", repeat: str = "straight"
    ) -> io.NodeOutput:
        """Compute the normals."""
        axes = REPEATS[repeat]
        surface = maps.grey(maps.rectangle(height.float(), axes))
        return io.NodeOutput(_cut(maps.normals(surface, strength, green == "OpenGL", axes), height))


class TesseraNormalToHeight(io.ComfyNode):
    """Makes a height map of normals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraNormalToHeight",
            display_name="Normal To Height",
            category="Tessera/tiling",
            description="Makes the height map that fits a normal map best and tiles.",
            search_aliases=["height map", "normal to height", "displacement", "integrate normals", "pbr"],
            inputs=[
                io.Image.Input("normal", tooltip="A normal map, or a batch of them."),
                io.Combo.Input("green", options=GREEN, default="OpenGL", optional=True, tooltip=GREEN_TOOLTIP),
                _repeat_input(),
            ],
            outputs=[
                io.Image.Output(display_name="height", tooltip="Heights, black to white; grey where all is flat."),
                io.Float.Output(
                    display_name="strength",
                    tooltip="Distance between black and white in px, the largest of the batch; with it Height To "
                    "Normal gives the normal map back.",
                ),
            ],
        )

    @classmethod
    def execute(cls, normal: Tensor, green: str = "OpenGL", repeat: str = "straight") -> io.NodeOutput:
        """Integrate the normals; a batch shares one strength."""
        if normal.shape[-1] < 3:
            raise ValueError(
                f"A normal map has 3 channels, but the image has {normal.shape[-1]}; connect a normal map."
            )
        axes = REPEATS[repeat]
        height, relief = maps.heights(maps.rectangle(normal.float(), axes), green == "OpenGL", axes)
        strength = float(relief.max())
        shares = (relief / max(strength, maps.LEAST_RELIEF)).to(height)[:, None, None]
        picture = _cut(_picture((height - 0.5) * shares + 0.5), normal)
        return io.NodeOutput(picture, strength, ui=shown(f"strength {strength:.4g} px", strength=strength))


class TesseraAmbientOcclusion(io.ComfyNode):
    """Makes an ambient occlusion map of heights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraAmbientOcclusion",
            display_name="Ambient Occlusion",
            category="Tessera/tiling",
            description="Makes a map of how much of the sky each spot of a height map sees, which tiles as it does.",
            search_aliases=["ambient occlusion", "ao map", "cavity map", "pbr", "height to ao"],
            inputs=[
                io.Image.Input("height", tooltip=HEIGHT_TOOLTIP),
                io.Float.Input(
                    "strength", default=8.0, min=0.0, max=1024.0, step=0.1, optional=True, tooltip=RELIEF_TOOLTIP
                ),
                io.Int.Input(
                    "radius",
                    default=16,
                    min=1,
                    max=128,
                    optional=True,
                    tooltip="How far away, in px, a hill can still darken a spot.",
                ),
                _repeat_input(),
            ],
            outputs=[io.Image.Output(display_name="occlusion", tooltip="White where the sky is open, down to black.")],
        )

    @classmethod
    def execute(
        cls, height: Tensor, strength: float = 8.0, radius: int = 16, repeat: str = "straight"
    ) -> io.NodeOutput:
        """Compute the occlusion."""
        axes = REPEATS[repeat]
        surface = maps.grey(maps.rectangle(height.float(), axes))
        return io.NodeOutput(_cut(_picture(maps.occlusion(surface, strength, radius, axes)), height))


def _picture(values: Tensor) -> Tensor:
    """(B, H, W) -> (B, H, W, 3)."""
    return values[..., None].repeat(1, 1, 1, 3)


def _cut(pictures: Tensor, like: Tensor) -> Tensor:
    """The first of the repeats that a map was computed on."""
    return pictures[:, : like.shape[1], : like.shape[2]]
