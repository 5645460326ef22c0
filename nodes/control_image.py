"""Control Image: what a ControlNet follows, drawn from an image."""

from __future__ import annotations

import logging

from torch import Tensor

from ..contract import folder_paths, io, room_for_model
from ..images.auxiliary import DETECTORS, PACKAGE, detected, find_folder
from ..images.control_maps import CONTROL_MAPS, control_map, facing_left
from ..tiling.axes import TILINGS
from ..tiling.map_images import normal_map
from .checks import verdict
from .inputs import TWO_AXES

_log = logging.getLogger(__name__)

RELIEF = 8.0
"""Usual px between black and white of the method normal."""
ROOM = 2**29
"""Bytes that a network of PACKAGE may need."""


class TesseraControlImage(io.ComfyNode):
    """Draw a control image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraControlImage",
            display_name="Control Image",
            category="Tessera/image",
            description="Draws what a ControlNet follows of an image: lines, edges, a tile, blur, colours, normals.",
            search_aliases=[
                "controlnet preprocessor",
                "preprocessor",
                "lineart",
                "soft edge",
                "hed",
                "tile",
                "blur",
                "color palette",
                "normal map",
                "openpose",
                "depth",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch; of a height map for normal."),
                io.Combo.Input(
                    "method",
                    options=[*CONTROL_MAPS, "normal", *DETECTORS],
                    default="soft_edges",
                    tooltip="The first six need no model; those from hed on need the package controlnet_aux and its "
                    "files in models/controlnet_aux. The help page has them all.",
                ),
                io.Float.Input(
                    "size",
                    default=0.0,
                    min=0.0,
                    max=512.0,
                    step=0.5,
                    optional=True,
                    tooltip="Width of lines, edges or blur, or of a cell, in px; for tile the factor, for normal the "
                    "relief. 0 is the method's own.",
                ),
                io.Combo.Input(
                    "tiling",
                    options=["off", *TWO_AXES],
                    default="off",
                    optional=True,
                    tooltip="Edges that meet, so that the control image of a texture repeats as well; not for "
                    "networks, which Wrap Pad and Wrap Crop surround.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The control image; connect it to Apply ControlNet.")
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, method: str, size: float = 0.0, tiling: str = "off") -> io.NodeOutput:
        """Draw."""
        axes = TILINGS[tiling]
        if method in DETECTORS:
            folder = find_folder(method, folder_paths.get_folder_paths(PACKAGE))
            if any(axes):
                _log.warning("Control Image: tiling does not reach %s; use Wrap Pad and Wrap Crop around it.", method)
            return io.NodeOutput(detected(image, method, folder, room_for_model(ROOM)))
        if method == "normal":
            return io.NodeOutput(facing_left(normal_map(image, size or RELIEF, True, axes)))
        return io.NodeOutput(control_map(image, method, size, (axes.horizontal, axes.vertical)))

    @classmethod
    def validate_inputs(cls, method: str | None = None) -> bool | str:
        """Check that a method's package and files are there."""
        return verdict(cls, {"method": method}, (check_method, ["method"]))


def check_method(method: str) -> None:
    """Raise ValueError when a method needs a network that is not on this machine."""
    if method in DETECTORS:
        find_folder(method, folder_paths.get_folder_paths(PACKAGE))
