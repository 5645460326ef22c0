"""ComfyUI's core nodes of control networks, and of the edges that some of them follow."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import folder_paths
from ..images.edges import canny
from ..models import control_loading
from ..models.control_networks import ControlNet
from ..runtime import devices
from ..sampling.conds import Conditioning
from ..schema import io


def _part(input_id: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(input_id, default=default, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


def _threshold(input_id: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(input_id, default=default, min=0.01, max=0.99, step=0.01, tooltip=tooltip)


class ControlNetLoader(io.ComfyNode):
    """ComfyUI's Load ControlNet Model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        files = folder_paths.get_filename_list("controlnet")
        tooltip = "The file or diffusers folder in models/controlnet."
        return io.Schema(
            node_id="ControlNetLoader",
            display_name="Load ControlNet Model",
            category="model/loaders",
            description="Loads a network that lets an image of edges, depth or a pose guide a model.",
            search_aliases=["controlnet", "control net", "cn", "load controlnet", "controlnet loader"],
            inputs=[io.Combo.Input("control_net_name", options=files, tooltip=tooltip)],
            outputs=[io.ControlNet.Output(tooltip="The control network.")],
        )

    @classmethod
    def execute(cls, control_net_name: str) -> io.NodeOutput:
        """Load it."""
        path = folder_paths.get_full_path_or_raise("controlnet", control_net_name)
        return io.NodeOutput(control_loading.load_controlnet(path))


class ControlNetApplyAdvanced(io.ComfyNode):
    """ComfyUI's Apply ControlNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ControlNetApplyAdvanced",
            display_name="Apply ControlNet",
            category="model/conditioning/controlnet",
            description="Lets an image guide the model through a control network; several can follow each other.",
            search_aliases=["controlnet", "apply controlnet", "use controlnet", "control net"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                io.ControlNet.Input("control_net", tooltip="The control network."),
                io.Image.Input("image", tooltip="The image as the network wants it: edges, depth, a pose."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="How strongly it guides; 0 is off."
                ),
                _part("start_percent", 0.0, "Part of the schedule before it begins."),
                _part("end_percent", 1.0, "Part of the schedule after which it ends."),
                io.Vae.Input("vae", optional=True, tooltip="For networks that read latents, as those of Flux do."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="What the image should show, with control."),
                io.Conditioning.Output(display_name="negative", tooltip="What it should not show, with control."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlNet,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: Any = None,
    ) -> io.NodeOutput:
        """Attach it to both; conditionings that had one before share the new one where they shared that."""
        if strength == 0:
            return io.NodeOutput(positive, negative)
        attached: dict[ControlNet | None, ControlNet] = {}

        def after(previous: ControlNet | None) -> ControlNet:
            if previous not in attached:
                hinted = control_net.copy().set_cond_hint(
                    image.movedim(-1, 1), strength, (start_percent, end_percent), vae
                )
                attached[previous] = hinted.set_previous_controlnet(previous)
            return attached[previous]

        def controlled(conditioning: Conditioning) -> Conditioning:
            return [
                [text, {**values, "control": after(values.get("control")), "control_apply_to_uncond": False}]
                for text, values in conditioning
            ]

        return io.NodeOutput(controlled(positive), controlled(negative))


class ControlNetApply(io.ComfyNode):
    """ComfyUI's Apply ControlNet of old, which acts in the negative prompt, too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ControlNetApply",
            display_name="Apply ControlNet (DEPRECATED)",
            category="model/conditioning/controlnet",
            description="Lets an image guide the model through a control network, in positive and negative alike.",
            is_deprecated=True,
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="What the image should show."),
                io.ControlNet.Input("control_net", tooltip="The control network."),
                io.Image.Input("image", tooltip="The image as the network wants it: edges, depth, a pose."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01, tooltip="How strongly it guides; 0 is off."
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The conditioning with control.")],
        )

    @classmethod
    def execute(
        cls, conditioning: Conditioning, control_net: ControlNet, image: Tensor, strength: float
    ) -> io.NodeOutput:
        """Attach it."""
        if strength == 0:
            return io.NodeOutput(conditioning)
        hint = image.movedim(-1, 1)
        made = []
        for text, values in conditioning:
            hinted = control_net.copy().set_cond_hint(hint, strength)
            hinted = hinted.set_previous_controlnet(values.get("control"))
            made.append([text, {**values, "control": hinted, "control_apply_to_uncond": True}])
        return io.NodeOutput(made)


class Canny(io.ComfyNode):
    """ComfyUI's Detect Edges (Canny)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="Canny",
            display_name="Detect Edges (Canny)",
            category="image/filters",
            description="Draws the edges of an image white on black, as ControlNets for edges want them.",
            search_aliases=["edge detection", "outline", "contour detection", "line art"],
            inputs=[
                io.Image.Input("image", tooltip="The image, or a batch."),
                _threshold("low_threshold", 0.4, "Edges weaker than this are dropped."),
                _threshold("high_threshold", 0.8, "Edges stronger than this are kept in any case."),
            ],
            outputs=[io.Image.Output(tooltip="The edges.")],
        )

    @classmethod
    def execute(cls, image: Tensor, low_threshold: float, high_threshold: float) -> io.NodeOutput:
        """Detect them."""
        images = image[..., :3].to(devices.torch_device()).movedim(-1, 1).float()
        edges = canny(images, low_threshold, high_threshold)
        return io.NodeOutput(edges.repeat(1, 3, 1, 1).movedim(1, -1).cpu())


NODES: list[type[io.ComfyNode]] = [ControlNetLoader, ControlNetApply, ControlNetApplyAdvanced, Canny]
