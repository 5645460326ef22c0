"""ComfyUI's core nodes that enlarge images with a model."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import folder_paths
from ..models.tiles import tile_starts, tiled_scale
from ..models.upscale_model import UpscaleModel, load_upscale_model
from ..progress import ProgressBar
from ..runtime.running import running
from ..schema import io

TILE, OVERLAP = 512, 32
SMALLEST_TILE = 128
"""Where a tile of 512 px does not fit into memory, smaller ones are tried down to this."""


class UpscaleModelLoader(io.ComfyNode):
    """ComfyUI's Load Upscale Model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        files = folder_paths.get_filename_list("upscale_models")
        return io.Schema(
            node_id="UpscaleModelLoader",
            display_name="Load Upscale Model",
            category="model/loaders",
            description="Loads a model that enlarges images, of any architecture that spandrel knows.",
            inputs=[io.Combo.Input("model_name", options=files, tooltip="The file in models/upscale_models.")],
            outputs=[io.UpscaleModel.Output(tooltip="The model.")],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_upscale_model(folder_paths.get_full_path_or_raise("upscale_models", model_name)))


class ImageUpscaleWithModel(io.ComfyNode):
    """ComfyUI's Upscale Image (using Model)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ImageUpscaleWithModel",
            display_name="Upscale Image (using Model)",
            category="image/upscaling",
            description="Enlarges images by the model's own factor; put Wrap Pad and Wrap Crop around it for tiles.",
            search_aliases=[
                "upscale",
                "upscaler",
                "upsc",
                "enlarge image",
                "super resolution",
                "hires",
                "superres",
                "increase resolution",
            ],
            inputs=[
                io.UpscaleModel.Input("upscale_model", tooltip="The model that enlarges."),
                io.Image.Input("image", tooltip="The image, or a batch."),
            ],
            outputs=[io.Image.Output(tooltip="The larger images.")],
        )

    @classmethod
    def execute(cls, upscale_model: UpscaleModel, image: Tensor) -> io.NodeOutput:
        """Enlarge in tiles, smaller ones where memory runs out."""
        images, tile = image[..., :3].movedim(-1, 1), TILE
        with running(upscale_model.patcher), torch.no_grad():
            while True:
                try:
                    return io.NodeOutput(_enlarged(upscale_model, images, tile).clamp(0, 1).movedim(1, -1))
                except torch.cuda.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    tile //= 2
                    if tile < SMALLEST_TILE:
                        raise


def _enlarged(model: UpscaleModel, images: Tensor, tile: int) -> Tensor:
    """Enlarge images to (B, 3, H * scale, W * scale), with progress by tiles."""
    height, width = images.shape[2:]
    tiles = len(tile_starts(height, tile, OVERLAP)) * len(tile_starts(width, tile, OVERLAP))
    bar = ProgressBar(tiles * len(images))

    def enlarge(part: Tensor) -> Tensor:
        larger = model(part.to(model.patcher.load_device).float())
        bar.update(1)
        return larger

    return tiled_scale(images, enlarge, tile, tile, OVERLAP, model.scale, 3)


NODES: list[type[io.ComfyNode]] = [UpscaleModelLoader, ImageUpscaleWithModel]
