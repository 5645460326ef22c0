"""The demo checkpoint: a small trained model that needs no download."""

from __future__ import annotations

from ..contract import io
from ..contract.demo import DEMO_CHECKPOINTS, demo_checkpoint


class TesseraDemoCheckpoint(io.ComfyNode):
    """Loads a model that ships with the pack."""

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
                    tooltip="The model: texture-sd is of the Stable Diffusion kind, texture-flux of the Flux kind; "
                    "both draw 128 px textures.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The denoiser."),
                io.Clip.Output(display_name="clip", tooltip="The text encoder, with its tokenizer."),
                io.Vae.Output(display_name="vae", tooltip="The image encoder and decoder."),
            ],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(*demo_checkpoint(name))
