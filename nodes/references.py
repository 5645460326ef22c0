"""References as files, and a map of where they act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..contract import folder_paths, io
from ..contract.demo import DEMO_ADAPTER
from ..contract.sampling import look_at_noise_level
from ..files.writing import create_series
from ..images import sheets
from ..ip_adapter.features import check_image
from ..ip_adapter.hooks import images_in
from ..ip_adapter.maps import RECORD, Record, heat_maps
from ..ip_adapter.masks import one_mask
from ..ip_adapter.prompts import ImagePrompt, LoadedAdapter, check_count, make_references
from ..ip_adapter.saved import SUFFIX, encode_reference, find_references, load_reference
from ..patching.networks import describe
from ..patching.wrappers import set_option
from .checks import verdict
from .file_names import check_prefix
from .image_prompts import CATEGORY, check_acting
from .inputs import ImagePrompts, IpAdapter, acting_inputs, check_range, encoding_inputs, limit_input, percent
from .shown import files_of, shown

DEMO = "red zigzag (demo)"


class TesseraSaveReference(io.ComfyNode):
    """Save reference images as precomputed keys and values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSaveReference",
            display_name="Save Reference",
            category=CATEGORY,
            description="Saves a reference image as a small file that needs neither adapter nor image encoder.",
            search_aliases=["ipadapter", "ip-adapter", "ip adapter", "save embeds", "export style", "bake reference"],
            is_output_node=True,
            inputs=[
                IpAdapter.Input(
                    "ip_adapter", tooltip="The adapter; the file works with models that the adapter works with."
                ),
                io.Image.Input("image", tooltip="The image; each image of a batch becomes a file."),
                io.String.Input(
                    "filename_prefix",
                    default="references/reference",
                    optional=True,
                    tooltip="Start of the file's name in the output folder; a number follows.",
                ),
                *encoding_inputs(),
            ],
            outputs=[io.String.Output(display_name="files", tooltip="Paths of the files, one per line.")],
        )

    @classmethod
    def execute(
        cls,
        ip_adapter: LoadedAdapter,
        image: Tensor,
        filename_prefix: str = "references/reference",
        fit: str = "crop",
        unconditional: str = "reference",
    ) -> io.NodeOutput:
        """Compute and write each reference."""
        check_prefix(filename_prefix)
        images = check_image(image).split(1)
        folder, stem, number, _, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        layers = list(ip_adapter.adapter.layers)
        wanted = [(ImagePrompt(each, fit=fit, unconditional=unconditional), layers) for each in images]
        made = map(encode_reference, make_references(wanted, ip_adapter))
        written = [str(Path(folder) / name) for name in create_series(folder, stem, SUFFIX, made, number)]
        return io.NodeOutput("\n".join(written), ui=shown("\n".join(written)))

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = "references/reference") -> bool | str:
        """Check the file name."""
        return verdict(cls, {"filename_prefix": filename_prefix}, (check_prefix, ["filename_prefix"]))


class TesseraLoadReference(io.ComfyNode):
    """Load a saved reference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        saved = find_references(Path(folder_paths.get_output_directory()))
        copied = find_references(Path(folder_paths.get_input_directory()))
        return io.Schema(
            node_id="TesseraLoadReference",
            display_name="Load Reference",
            category=CATEGORY,
            description="Uses a saved reference as an image prompt, without adapter and image encoder.",
            search_aliases=["ipadapter", "ip-adapter", "ip adapter", "load embeds", "saved style", "baked reference"],
            inputs=[
                io.Combo.Input(
                    "reference",
                    options=[DEMO, *copied, *(f"{name} [output]" for name in saved)],
                    default=DEMO,
                    tooltip="A file of Save Reference in the output or input folder; the first is for texture-sd.",
                ),
                *acting_inputs(),
                limit_input(),
            ],
            outputs=[ImagePrompts.Output(display_name="image_prompts", tooltip="All image prompts so far.")],
        )

    @classmethod
    def execute(
        cls,
        reference: str,
        scale: float = 0.9,
        type: str = "style",  # noqa: A002 - the input's name
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        mask: Tensor | None = None,
        previous: tuple[ImagePrompt, ...] = (),
        blocks: str = "",
        limit: float = 1.0,
    ) -> io.NodeOutput:
        """Add it to the stack."""
        check_range(start_percent, end_percent)
        demo = DEMO_ADAPTER / ("red_zigzag" + SUFFIX)
        path = demo if reference == DEMO else Path(folder_paths.get_annotated_filepath(reference))
        where = None if mask is None else one_mask(mask)
        added = ImagePrompt(load_reference(path), scale, type, start_percent, end_percent, where, blocks, limit=limit)
        stack = (*previous, added)
        check_count(stack)
        return io.NodeOutput(stack)

    @classmethod
    def validate_inputs(
        cls, start_percent: float | None = 0.0, end_percent: float | None = 1.0, blocks: str | None = ""
    ) -> bool | str:
        """Check the range and the weights."""
        return check_acting(cls, start_percent, end_percent, blocks)


class TesseraReferenceMap(io.ComfyNode):
    """Show where image prompts act."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraReferenceMap",
            display_name="Reference Map",
            category=CATEGORY,
            description="Shows as a heat map where in an image each image prompt acts, and how strongly.",
            search_aliases=["attention map", "ip adapter debug", "heat map", "where does the reference act"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip="A model with image prompts."),
                io.Conditioning.Input("positive", tooltip="The prompt of the image."),
                io.Latent.Input("latent", tooltip="The image's latents, from the sampler."),
                percent("percent", 0.5, "Fraction of the schedule to look at; noise of that level is added."),
                io.Image.Input(
                    "image", optional=True, tooltip="The image itself, to see in the node where on it the maps lie."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="maps",
                    tooltip="One map per reference: black where it does not act, white where it acts most.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, positive: Any, latent: dict[str, Any], percent: float = 0.5, image: Tensor | None = None
    ) -> io.NodeOutput:
        """Run the model once and show what its attention recorded."""
        count = len(images_in(model))
        if not count:
            raise ValueError("The model has no image prompts; connect the model from Apply Image Prompts.")
        watched, record = model.clone(), Record()
        set_option(watched, RECORD, record)
        samples = latent["samples"][:1]
        look_at_noise_level(watched, positive, samples, percent)
        height, width = samples.shape[-2:]
        pixels = describe(model).pixels
        maps = heat_maps(record, count, (pixels * height, pixels * width))
        look = maps if image is None else sheets.overlay(image[0], maps)
        return io.NodeOutput(maps, ui={"images": files_of(look)})
