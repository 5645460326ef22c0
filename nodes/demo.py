"""The demo checkpoint: a small trained model that needs no download."""

from __future__ import annotations

from ..contract import io
from ..contract.demo import DEMO_CHECKPOINTS, demo_checkpoint


class TesseraDemoCheckpoint(io.ComfyNode):
    """Load a model that ships with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraDemoCheckpoint",
            display_name="Demo Checkpoint",
            category="Tessera",
            description="Loads a small texture model that ships with Tessera, so that every example runs at once.",
            search_aliases=["demo model", "example checkpoint", "texture-sd", "texture-flux", "load demo"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=DEMO_CHECKPOINTS,
                    default=DEMO_CHECKPOINTS[0],
                    tooltip="texture-sd has the architecture of Stable Diffusion, texture-flux that of Flux; both "
                    "generate textures of 128 px.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The diffusion model."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder with its tokenizer."),
                io.Vae.Output(display_name="vae", tooltip="The image encoder and decoder."),
            ],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(*demo_checkpoint(name))
