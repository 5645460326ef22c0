"""ComfyUI's KSampler nodes, and the noise levels of Flux."""

from __future__ import annotations

from typing import Any

from ..models.model_base import ModelType, model_sampling
from ..runtime.patcher import ModelPatcher
from ..sampling.conds import Conditioning
from ..sampling.ksampler import KSampler as StepSampler
from ..sampling.noise import fix_empty_latent_channels, prepare_empty_noise, prepare_noise
from ..sampling.samplers import SAMPLER_NAMES
from ..sampling.schedules import SCHEDULER_NAMES
from ..schema import io
from ..schema.limits import MAX_RESOLUTION
from . import custom_sampling
from .custom_sampling import cfg_input, finished, progress_callback, seed_input

Latent = dict[str, Any]


def ksampler(
    model: ModelPatcher,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
    denoise: float = 1.0,
    add_noise: bool = True,
    start_step: int | None = None,
    last_step: int | None = None,
    force_full_denoise: bool = False,
) -> io.NodeOutput:
    """Sample a LATENT (drop-in replacement for `nodes.common_ksampler`); see `ksampler.KSampler`."""
    image = fix_empty_latent_channels(model, latent["samples"], latent.get("downscale_ratio_spacial"))
    noise = prepare_noise(image, seed, latent.get("batch_index")) if add_noise else prepare_empty_noise(image)
    samples = StepSampler(model, steps, sampler_name, scheduler, denoise).sample(
        noise,
        positive,
        negative,
        cfg,
        image,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        denoise_mask=latent.get("noise_mask"),
        callback=progress_callback(model, steps),
        seed=seed,
    )
    return io.NodeOutput(finished(latent, samples))


class KSampler(io.ComfyNode):
    """Denoises latents under guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="KSampler",
            display_name="KSampler",
            category="model/sampling",
            description="Turns noise, or a noised image, into latents that follow the prompts.",
            search_aliases=["sampler", "sample", "generate", "denoise", "diffuse", "txt2img", "img2img"],
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                seed_input("seed"),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Number of denoising steps."),
                cfg_input(),
                io.Combo.Input("sampler_name", options=SAMPLER_NAMES, tooltip="The method that makes the steps."),
                io.Combo.Input("scheduler", options=SCHEDULER_NAMES, tooltip="The noise levels of the steps."),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the noise schedule is run; lower values keep more of the given image.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled latents.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        denoise: float = 1.0,
    ) -> io.NodeOutput:
        """Sample."""
        return ksampler(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=denoise
        )


class KSamplerAdvanced(io.ComfyNode):
    """Runs some of the steps of a KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="KSamplerAdvanced",
            display_name="KSampler (Advanced)",
            category="model/sampling",
            description="Runs a part of the steps, so that several models or prompts can share one image.",
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Combo.Input(
                    "add_noise",
                    options=["enable", "disable"],
                    advanced=True,
                    tooltip="Add noise before the first step.",
                ),
                seed_input("noise_seed"),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Number of steps of the whole schedule."),
                cfg_input(),
                io.Combo.Input("sampler_name", options=SAMPLER_NAMES, tooltip="The method that makes the steps."),
                io.Combo.Input("scheduler", options=SCHEDULER_NAMES, tooltip="The noise levels of the steps."),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input("latent_image", tooltip="The latents to start from."),
                io.Int.Input(
                    "start_at_step", default=0, min=0, max=10000, advanced=True, tooltip="The first step that is run."
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=0,
                    max=10000,
                    advanced=True,
                    tooltip="The step before which the run ends.",
                ),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=["disable", "enable"],
                    advanced=True,
                    tooltip="Keep the noise that later steps would remove, for another sampler to go on.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The sampled latents.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        add_noise: str,
        noise_seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Conditioning,
        negative: Conditioning,
        latent_image: Latent,
        start_at_step: int,
        end_at_step: int,
        return_with_leftover_noise: str,
    ) -> io.NodeOutput:
        """Sample."""
        return ksampler(
            model,
            noise_seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            add_noise=add_noise == "enable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise == "disable",
        )


class ModelSamplingFlux(io.ComfyNode):
    """Flux's noise levels for an image size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="ModelSamplingFlux",
            display_name="ModelSamplingFlux",
            category="model/patch/flux",
            description="Shifts Flux's noise levels to the size of the image.",
            inputs=[
                io.Model.Input("model", tooltip="A Flux model."),
                io.Float.Input(
                    "max_shift",
                    default=1.15,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="The shift at 1024 x 1024 pixels.",
                ),
                io.Float.Input(
                    "base_shift",
                    default=0.5,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="The shift at 256 x 256 pixels.",
                ),
                io.Int.Input("width", default=1024, min=16, max=MAX_RESOLUTION, step=8, tooltip="Width in pixels."),
                io.Int.Input("height", default=1024, min=16, max=MAX_RESOLUTION, step=8, tooltip="Height in pixels."),
            ],
            outputs=[io.Model.Output(tooltip="The model with the shift.")],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, max_shift: float, base_shift: float, width: int, height: int
    ) -> io.NodeOutput:
        """Patch a clone."""
        tokens, at_256_px, at_1024_px = width * height / 16**2, 256, 4096
        slope = (max_shift - base_shift) / (at_1024_px - at_256_px)
        sampling = model_sampling(model.model.model_config, ModelType.FLUX)
        sampling.set_parameters(shift=base_shift + slope * (tokens - at_256_px))
        patched = model.clone()
        patched.add_object_patch("model_sampling", sampling)
        return io.NodeOutput(patched)


NODES: list[type[io.ComfyNode]] = [KSampler, KSamplerAdvanced, ModelSamplingFlux, *custom_sampling.NODES]
