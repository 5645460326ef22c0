"""Maps of a texture's surface that tile as it does: normals of heights, heights of normals, ambient occlusion."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..tiling.axes import REPEATS
from ..tiling.map_images import height_map, normal_map, occlusion_map
from .inputs import repeat_input
from .shown import shown

GREEN = ["OpenGL", "DirectX"]
GREEN_TOOLTIP = "Where green points: up (OpenGL: Blender, Unity, Godot) or down (DirectX: Unreal, 3ds Max)."
HEIGHT_TOOLTIP = "Heights, white on top; of a colour picture its luminance. Or a batch of them."
RELIEF_TOOLTIP = "Distance between black and white in px of the picture: how deep the relief is."


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
                repeat_input("the surface goes on level along the other"),
            ],
            outputs=[io.Image.Output(display_name="normal", tooltip="The normal map; (0.5, 0.5, 1) is flat.")],
        )

    @classmethod
    def execute(
        cls, height: Tensor, strength: float = 8.0, green: str = "OpenGL", repeat: str = "straight"
    ) -> io.NodeOutput:
        """Compute the normals."""
        return io.NodeOutput(normal_map(height, strength, green == "OpenGL", REPEATS[repeat]))


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
                repeat_input("the surface goes on level along the other"),
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
        height, strength = height_map(normal, green == "OpenGL", REPEATS[repeat])
        return io.NodeOutput(height, strength, ui=shown(f"strength {strength:.4g} px", strength=strength))


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
                repeat_input("the surface goes on level along the other"),
            ],
            outputs=[io.Image.Output(display_name="occlusion", tooltip="White where the sky is open, down to black.")],
        )

    @classmethod
    def execute(
        cls, height: Tensor, strength: float = 8.0, radius: int = 16, repeat: str = "straight"
    ) -> io.NodeOutput:
        """Compute the occlusion."""
        return io.NodeOutput(occlusion_map(height, strength, radius, REPEATS[repeat]))
