"""The steps node: a sampling run with the picture as it stood at its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..contract import io
from ..contract.sampling import sample_watched
from ..patching.latents import to_vae
from ..samplers.steps import StepKeeper

if TYPE_CHECKING:
    from ..contract.sampling import KSAMPLER

MOST_STEPS = 10000
# They belong to the latents that came in, not to those of the steps.
OF_ONE_BATCH = ("noise_mask", "batch_index")


class TesseraSampleSteps(io.ComfyNode):
    """Samples, and keeps what the model saw in the noise at each step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSampleSteps",
            display_name="Sample and Keep Steps",
            category="Tessera/sampling",
            description="Samples latents as SamplerCustomAdvanced does, and gives the picture of every step as well.",
            search_aliases=[
                "intermediate images",
                "intermediate latents",
                "save every step",
                "sampling steps",
                "denoising steps",
                "timelapse",
                "SamplerCustomAdvanced",
            ],
            inputs=[
                io.Noise.Input("noise", tooltip="The noise to start from."),
                io.Guider.Input("guider", tooltip="The model with its prompts."),
                io.Sampler.Input("sampler", tooltip="The method that makes the steps."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels of the steps."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=MOST_STEPS,
                    optional=True,
                    tooltip="Keep every n-th step and the last one: 1 keeps all, 5 of 12 steps the 5th, 10th and 12th.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="output", tooltip="The sampled latents, as from SamplerCustomAdvanced."),
                io.Latent.Output(display_name="denoised_output", tooltip="The model's last prediction without noise."),
                io.Latent.Output(
                    display_name="steps",
                    tooltip="The predictions of the kept steps as one batch, step by step, each with the whole batch.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        noise: Any,
        guider: Any,
        sampler: KSAMPLER,
        sigmas: Tensor,
        latent_image: dict[str, Any],
        every: int = 1,
    ) -> io.NodeOutput:
        """Sample; where no step is run, the steps are the latents themselves."""
        if latent_image["samples"].is_nested:
            raise ValueError("found latents of several parts, such as picture and sound; use SamplerCustomAdvanced.")
        keeper = StepKeeper(every)
        output, denoised = sample_watched(noise, guider, sampler, sigmas, latent_image, keeper)
        kept = keeper.batch()
        samples = denoised["samples"] if kept is None else to_vae(guider, kept)
        shared = {name: value for name, value in output.items() if name not in OF_ONE_BATCH}
        return io.NodeOutput(output, denoised, {**shared, "samples": samples})
