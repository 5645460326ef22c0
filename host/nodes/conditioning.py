"""ComfyUI's core nodes that change conditionings."""

from __future__ import annotations

import torch

from ..sampling.conds import Conditioning
from ..schema import io


class ConditioningZeroOut(io.ComfyNode):
    """A conditioning of zeros."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ConditioningZeroOut",
            display_name="Conditioning Zero Out",
            category="model/conditioning/transform",
            description="Replaces a text embedding by zeros, the negative of models that need no negative text.",
            search_aliases=["null conditioning", "clear conditioning"],
            inputs=[io.Conditioning.Input("conditioning", tooltip="The conditioning whose shape is kept.")],
            outputs=[io.Conditioning.Output(tooltip="The same conditioning with zeros for the text.")],
        )

    @classmethod
    def execute(cls, conditioning: Conditioning) -> io.NodeOutput:
        """Make the zeros."""
        zeroed = []
        for embedding, values in conditioning:
            values = dict(values)
            if values.get("pooled_output") is not None:
                values["pooled_output"] = torch.zeros_like(values["pooled_output"])
            zeroed.append([torch.zeros_like(embedding), values])
        return io.NodeOutput(zeroed)


class FluxGuidance(io.ComfyNode):
    """The distilled guidance of Flux."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="FluxGuidance",
            display_name="FluxGuidance",
            category="model/conditioning/flux",
            description="Sets the guidance that Flux takes as an input.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The conditioning to change."),
                io.Float.Input(
                    "guidance", default=3.5, min=0.0, max=100.0, step=0.1, tooltip="How closely the text is followed."
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The conditioning with the guidance.")],
        )

    @classmethod
    def execute(cls, conditioning: Conditioning, guidance: float) -> io.NodeOutput:
        """Set the value."""
        return io.NodeOutput([[embedding, {**values, "guidance": guidance}] for embedding, values in conditioning])


NODES: list[type[io.ComfyNode]] = [ConditioningZeroOut, FluxGuidance]
