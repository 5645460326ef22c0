"""Sample and Keep Steps: sampling that also returns the denoised latents of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..contract import io
from ..contract.sampling import sample_watched
from ..patching.latents import to_vae
from ..patching.vaes import decoded
from ..samplers.steps import StepKeeper
from .shown import named

if TYPE_CHECKING:
    from ..contract.sampling import KSAMPLER

MOST_STEPS = 10000
OF_ONE_BATCH = ("noise_mask", "batch_index")
"""Entries of a LATENT that describe its own batch, and not the larger one of the kept steps."""


class TesseraSampleSteps(io.ComfyNode):
    """Sample, and keep the denoised prediction of each step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSampleSteps",
            display_name="Sample and Keep Steps",
            category="Tessera/sampling",
            description="Samples latents as SamplerCustomAdvanced does, and also returns the prediction of every step.",
            search_aliases=[
                "intermediate images",
                "intermediate latents",
                "save every step",
                "sampling steps",
                "denoising steps",
                "timelapse",
                "SamplerCustomAdvanced",
            ],
            has_intermediate_output=True,
            inputs=[
                io.Noise.Input("noise", tooltip="The noise to start from."),
                io.Guider.Input("guider", tooltip="The model with its prompts."),
                io.Sampler.Input("sampler", tooltip="The method that makes the steps."),
                io.Sigmas.Input("sigmas", tooltip="Noise levels, one more than steps."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=MOST_STEPS,
                    optional=True,
                    tooltip="Keep every n-th step and the last: 1 keeps all; 5 keeps the 5th, 10th and 12th of 12.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the kept steps, to see them in the node."),
            ],
            outputs=[
                io.Latent.Output(display_name="output", tooltip="The sampled latents, as from SamplerCustomAdvanced."),
                io.Latent.Output(display_name="denoised_output", tooltip="The denoised prediction of the last step."),
                io.Latent.Output(
                    display_name="steps",
                    tooltip="The denoised predictions of the kept steps as one batch, step by step.",
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
        vae: Any = None,
    ) -> io.NodeOutput:
        """Sample; without any step to run, the steps are the latents themselves."""
        if latent_image["samples"].is_nested:
            raise ValueError("found latents of several parts, such as video and sound; use SamplerCustomAdvanced.")
        keeper = StepKeeper(every)
        output, denoised = sample_watched(noise, guider, sampler, sigmas, latent_image, keeper)
        kept = keeper.batch()
        samples = denoised["samples"] if kept is None else to_vae(guider, kept)
        shared = {name: value for name, value in output.items() if name not in OF_ONE_BATCH}
        look = None if vae is None or kept is None else _look(decoded(vae, samples), keeper.names())
        return io.NodeOutput(output, denoised, {**shared, "samples": samples}, ui=look)


def _look(images: Tensor, names: list[str]) -> dict[str, Any]:
    """Return images (B, H, W, C) for the node, each with the name of its step; a step of a video has several."""
    each = len(images) // len(names)
    return named(images, [name for name in names for _ in range(each)])
