"""The IP-Adapter nodes: load an adapter, describe reference images, apply them to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..contract import add_lora, folder_paths, io, load_clip_vision, manage, optimized_attention
from ..contract.demo import DEMO_ADAPTER
from ..ip_adapter.apply import Host, apply_prompts
from ..ip_adapter.attend import COMBINES
from ..ip_adapter.encoders import check_encoder, choose_encoder
from ..ip_adapter.faces import VERSIONS, Face, find_embeddings, read_embedding
from ..ip_adapter.features import check_image, check_negative
from ..ip_adapter.formats import read_adapter
from ..ip_adapter.masks import masks_for
from ..ip_adapter.presets import read_block_weights
from ..ip_adapter.prompts import ImagePrompt, LoadedAdapter, check_count
from ..ip_adapter.siglip import check_head, with_head
from .checks import verdict
from .inputs import (
    ImagePrompts,
    IpAdapter,
    acting_inputs,
    check_range,
    encoding_inputs,
    face_inputs,
    limit_input,
)
from .shown import labelled, shown

CATEGORY = "Tessera/image prompts"
DEMO, AUTO = "texture-sd (demo)", "auto"
ADAPTER_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
NO_FACE = "none"
BATCHES = ["each", "average"]


class TesseraLoadIPAdapter(io.ComfyNode):
    """Load an adapter with its image encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        adapters = [name for name in folder_paths.get_filename_list("ipadapter") if name.endswith(ADAPTER_SUFFIXES)]
        return io.Schema(
            node_id="TesseraLoadIPAdapter",
            display_name="IPAdapter Loader",
            category=CATEGORY,
            description="Loads an IP-Adapter for Stable Diffusion 1.5, SDXL, 3.5 or Flux and finds its image encoder.",
            search_aliases=[
                "ipadapter",
                "ip-adapter",
                "ip adapter",
                "image prompt",
                "reference image",
                "style transfer",
            ],
            inputs=[
                io.Combo.Input(
                    "ip_adapter",
                    options=[DEMO, *adapters],
                    default=DEMO,
                    tooltip="A file in models/ipadapter, of any name; the first choice ships with the pack.",
                ),
                io.Combo.Input(
                    "clip_vision",
                    options=[AUTO, *folder_paths.get_filename_list("clip_vision")],
                    default=AUTO,
                    optional=True,
                    tooltip="The image encoder in models/clip_vision; auto finds the one that fits, whatever its name.",
                ),
                io.ClipVision.Input(
                    "encoder", optional=True, tooltip="Image encoder from another loader, used instead of clip_vision."
                ),
            ],
            outputs=[IpAdapter.Output(display_name="ip_adapter", tooltip="The adapter with its image encoder.")],
        )

    @classmethod
    def execute(cls, ip_adapter: str, clip_vision: str = AUTO, encoder: Any = None) -> io.NodeOutput:
        """Read the adapter, find its encoder, and check that they match."""
        path = _adapter_path(ip_adapter)
        adapter = read_adapter(path)
        if not adapter.features:
            return io.NodeOutput(LoadedAdapter(adapter, None))
        if encoder is not None:
            check_encoder(adapter, encoder, "the connected encoder")
            check_head(adapter, encoder)
            return io.NodeOutput(LoadedAdapter(adapter, encoder))
        found, name = _encoder_path(path, adapter, clip_vision)
        encoder = load_clip_vision(found)
        check_encoder(adapter, encoder, name)
        return io.NodeOutput(LoadedAdapter(adapter, with_head(adapter, encoder, found)))


def _adapter_path(name: str) -> Path:
    if name == DEMO:
        return DEMO_ADAPTER / "ip_adapter.safetensors"
    return Path(folder_paths.get_full_path_or_raise("ipadapter", name))


def _encoder_path(path: Path, adapter: Any, name: str) -> tuple[Path, str]:
    if name == AUTO and path.parent == DEMO_ADAPTER:
        return DEMO_ADAPTER / "image_encoder", "the demo encoder"
    if name == AUTO:
        names = folder_paths.get_filename_list("clip_vision")
        name = choose_encoder(adapter, names, lambda each: folder_paths.get_full_path_or_raise("clip_vision", each))
    return Path(folder_paths.get_full_path_or_raise("clip_vision", name)), name


def check_acting(node: type[io.ComfyNode], start: float | None, end: float | None, blocks: str | None) -> bool | str:
    """Return what `validate_inputs` says about the inputs of `acting_inputs`."""
    given = {"start_percent": start, "end_percent": end, "blocks": blocks}
    return verdict(node, given, (check_range, ["start_percent", "end_percent"]), (read_block_weights, ["blocks"]))


class TesseraImagePrompt(io.ComfyNode):
    """Describe how a reference image acts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraImagePrompt",
            display_name="Image Prompt",
            category=CATEGORY,
            description="Describes how a reference image acts: how strongly, on what, where, and in which steps.",
            search_aliases=[
                "ipadapter",
                "ip-adapter",
                "ip adapter",
                "reference image",
                "style reference",
                "image weight",
                "regional image",
            ],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The reference image; every image of a batch acts in the same way, with a mask of its own "
                    "if there are as many.",
                ),
                *acting_inputs(),
                *encoding_inputs(),
                *face_inputs(find_embeddings(Path(folder_paths.get_input_directory())), NO_FACE, VERSIONS),
                limit_input(),
                io.Image.Input(
                    "negative_image",
                    optional=True,
                    advanced=True,
                    tooltip="What guidance pushes away from, instead of the unconditional image.",
                ),
                io.Combo.Input(
                    "batch",
                    options=BATCHES,
                    default="each",
                    optional=True,
                    advanced=True,
                    tooltip="Of an image batch: each image acts by itself, or their features are averaged to one "
                    "reference.",
                ),
            ],
            outputs=[ImagePrompts.Output(display_name="image_prompts", tooltip="All image prompts so far.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        scale: float = 0.9,
        type: str = "style",  # noqa: A002 - the input's name
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        mask: Tensor | None = None,
        previous: tuple[ImagePrompt, ...] = (),
        blocks: str = "",
        fit: str = "crop",
        unconditional: str = "reference",
        face_embedding: str = NO_FACE,
        face_version: str = "auto",
        face_structure: float = 1.0,
        limit: float = 1.0,
        negative_image: Tensor | None = None,
        batch: str = "each",
    ) -> io.NodeOutput:
        """Add the image, or each image of a batch, to the stack."""
        check_range(start_percent, end_percent)
        face = None
        if face_embedding != NO_FACE:
            path = Path(folder_paths.get_annotated_filepath(face_embedding))
            face = Face(read_embedding(path), face_version, face_structure)
        negative = None if negative_image is None else check_negative(negative_image)
        every = check_image(image)
        sources = [every] if batch == "average" else list(every.split(1))
        check_count([*previous, *sources])
        masks = masks_for(mask, len(sources))
        how = (blocks, fit, unconditional, face, negative, limit)
        added = tuple(
            ImagePrompt(source, scale, type, start_percent, end_percent, where, *how)
            for source, where in zip(sources, masks, strict=True)
        )
        return io.NodeOutput((*previous, *added), ui=labelled(every, f"{type} {scale:.2f}"))

    @classmethod
    def validate_inputs(
        cls, start_percent: float | None = 0.0, end_percent: float | None = 1.0, blocks: str | None = ""
    ) -> bool | str:
        """Check the range and the weights."""
        return check_acting(cls, start_percent, end_percent, blocks)


class TesseraApplyImagePrompts(io.ComfyNode):
    """Apply image prompts to a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraApplyImagePrompts",
            display_name="Apply Image Prompts",
            category=CATEGORY,
            description="Makes a model follow reference images, each with its own scale, type, mask and range of "
            "steps.",
            search_aliases=[
                "ipadapter",
                "ip-adapter",
                "ip adapter",
                "apply ipadapter",
                "ipadapter advanced",
                "multiple reference images",
            ],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A UNet model (Stable Diffusion 1.5, SDXL), Flux or Stable Diffusion 3.5; it is not "
                    "changed.",
                ),
                ImagePrompts.Input(
                    "image_prompts", tooltip="The reference images, from Image Prompt or Load Reference."
                ),
                io.Combo.Input(
                    "combine",
                    options=COMBINES,
                    default="sum",
                    optional=True,
                    tooltip="sum: outputs are added. share: weighted by scale, total strength kept. "
                    "concat: one softmax over all image tokens.",
                ),
                IpAdapter.Input(
                    "ip_adapter", optional=True, tooltip="The adapter; optional if all references are saved ones."
                ),
                io.Float.Input(
                    "face_lora",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Strength of the LoRA in a FaceID file; other adapters have none.",
                ),
                io.Boolean.Input(
                    "keep_apart",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="With masks, in UNets: normalise each area separately, so that their colours do not mix.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, which follows the reference images."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many images act in how many layers, what they take on the device, and what became of "
                    "the LoRA in a FaceID file.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        image_prompts: tuple[ImagePrompt, ...],
        combine: str = "sum",
        ip_adapter: LoadedAdapter | None = None,
        face_lora: float = 1.0,
        keep_apart: bool = False,
    ) -> io.NodeOutput:
        """Patch a clone of the model."""
        host = Host(optimized_attention, add_lora, manage)
        applied, report = apply_prompts(model, ip_adapter, image_prompts, combine, host, keep_apart, face_lora)
        return io.NodeOutput(applied, report, ui=shown(report))
