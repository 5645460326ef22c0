"""ComfyUI's core nodes that change noise levels."""

from __future__ import annotations

from torch import Tensor

from ..schema import io


class SplitSigmas(io.ComfyNode):
    """ComfyUI's SplitSigmas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="SplitSigmas",
            display_name="SplitSigmas",
            category="model/sampling/sigmas",
            description="Cuts noise levels in two, so that one model begins and another one ends.",
            inputs=[
                io.Sigmas.Input("sigmas", tooltip="The noise levels."),
                io.Int.Input("step", default=0, min=0, max=10000, tooltip="How many steps the first part has."),
            ],
            outputs=[
                io.Sigmas.Output(display_name="high_sigmas", tooltip="The first steps."),
                io.Sigmas.Output(display_name="low_sigmas", tooltip="The steps that remain."),
            ],
        )

    @classmethod
    def execute(cls, sigmas: Tensor, step: int) -> io.NodeOutput:
        """Cut; the level at the cut is in both."""
        return io.NodeOutput(sigmas[: step + 1], sigmas[step:])


NODES: list[type[io.ComfyNode]] = [SplitSigmas]
