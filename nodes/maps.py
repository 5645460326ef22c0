"""Maps of a texture that tile as it does: normals, heights, ambient occlusion."""

from __future__ import annotations

from torch import Tensor

from ..contract import io
from ..tiling.axes import REPEATS
from ..tiling.map_images import height_map, normal_map, occlusion_map
from .inputs import repeat_input
from .shown import shown

GREEN = ["OpenGL", "DirectX"]
GREEN_TOOLTIP = "Direction of the green channel: up (OpenGL: Blender, Unity, Godot) or down (DirectX: Unreal, 3ds Max)."
HEIGHT_TOOLTIP = "Height map, white is high; of a colour image the luminance is used. Or a batch."
RELIEF_TOOLTIP = "Distance between black and white in px of the image: how deep the relief is."


class TesseraHeightToNormal(io.ComfyNode):
    """Compute a normal map from heights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraHeightToNormal",
            display_name="Height To Normal",
            category="Tessera/maps",
            description="Makes a normal map from a height map, or from a texture's luminance, that tiles as it does.",
            search_aliases=["normal map", "height to normal", "bump map", "pbr", "seamless normal map", "texture maps"],
            inputs=[
                io.Image.Input("height", tooltip=HEIGHT_TOOLTIP),
                io.Float.Input(
                    "strength",
                    default=8.0,
                    min=-1024.0,
                    max=1024.0,
                    step=0.1,
                    optional=True,
                    tooltip=f"{RELIEF_TOOLTIP[:-1]}; below 0, white is low.",
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
    """Compute a height map from normals."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraNormalToHeight",
            display_name="Normal To Height",
            category="Tessera/maps",
            description="Makes the tileable height map that fits a normal map best.",
            search_aliases=["height map", "normal to height", "displacement", "integrate normals", "pbr"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("normal", tooltip="A normal map, or a batch."),
                io.Combo.Input("green", options=GREEN, default="OpenGL", optional=True, tooltip=GREEN_TOOLTIP),
                repeat_input("the surface goes on level along the other"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="height", tooltip="Height map from black to white; grey where all is flat."
                ),
                io.Float.Output(
                    display_name="strength",
                    tooltip="Distance between black and white in px, the largest of the batch; with it, Height To "
                    "Normal returns the same normal map.",
                ),
            ],
        )

    @classmethod
    def execute(cls, normal: Tensor, green: str = "OpenGL", repeat: str = "straight") -> io.NodeOutput:
        """Integrate the normals."""
        height, strength = height_map(normal, green == "OpenGL", REPEATS[repeat])
        return io.NodeOutput(height, strength, ui=shown(f"strength {strength:.4g} px", strength=strength))


class TesseraAmbientOcclusion(io.ComfyNode):
    """Compute an ambient occlusion map from heights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraAmbientOcclusion",
            display_name="Ambient Occlusion",
            category="Tessera/maps",
            description="Makes an ambient occlusion map from a height map that tiles as it does.",
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
                    tooltip="How far away, in px, a height can still darken a point.",
                ),
                repeat_input("the surface goes on level along the other"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="occlusion", tooltip="White where the sky is open, black where it is hidden."
                )
            ],
        )

    @classmethod
    def execute(
        cls, height: Tensor, strength: float = 8.0, radius: int = 16, repeat: str = "straight"
    ) -> io.NodeOutput:
        """Compute the occlusion."""
        return io.NodeOutput(occlusion_map(height, strength, radius, REPEATS[repeat]))
