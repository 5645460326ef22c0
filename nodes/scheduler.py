"""The scheduler nodes: every diffusers scheduler as a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..contract import io, throw_exception_if_processing_interrupted
from ..contract.sampling import sample_latent, sampler_of
from ..images import sheets
from ..patching.model_sampling import sampling_of
from ..patching.vaes import decoded
from ..samplers import spacing
from ..samplers.plan import plan
from ..samplers.registry import NAMES, find
from ..samplers.sampler import NoiseMode, sample
from .checks import verdict
from .inputs import cfg_input, denoise_input, seed_input, steps_input
from .scheduler_inputs import (
    AUTO,
    OWN,
    check_choice,
    chosen_options,
    option_inputs,
    scheduler_input,
    spacing_input,
)
from .shown import files_of, named, shown

if TYPE_CHECKING:
    from ..contract.sampling import KSAMPLER


def choose(
    model: Any,
    scheduler: str,
    steps: int,
    denoise: float,
    spacing_name: str,
    final: str,
    noise: NoiseMode,
    options: Mapping[str, Any],
) -> tuple[KSAMPLER, Tensor, str]:
    """Return SAMPLER, SIGMAS and report of a choice; options at their value in `OWN` keep the scheduler's default."""
    given = chosen_options(scheduler, options)
    made = plan(sampling_of(model), scheduler, steps, denoise, spacing_name, final, noise, given)
    sampler = sampler_of(sample, {"choice": made.choice, "check": throw_exception_if_processing_interrupted})
    return sampler, made.sigmas, made.summary


class TesseraScheduler(io.ComfyNode):
    """Make a SAMPLER and SIGMAS of a diffusers scheduler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraScheduler",
            display_name="Scheduler (diffusers)",
            category="Tessera/sampling",
            description="Turns any diffusers scheduler into a sampler with its own sigmas, for SamplerCustom.",
            search_aliases=["diffusers scheduler", "scheduler switch", "ddim", "pndm", "unipc", "deis", "ipndm", "lcm"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip="The model whose noise levels are used; it is not changed."),
                scheduler_input(),
                steps_input(30),
                denoise_input(),
                spacing_input(),
                *option_inputs(),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler", tooltip="The scheduler as a sampler; it works with other sigmas, too."
                ),
                io.Sigmas.Output(display_name="sigmas", tooltip="The noise levels; rising for DDIMInverseScheduler."),
                io.String.Output(display_name="report", tooltip="Summary and warnings."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        scheduler: str,
        steps: int,
        denoise: float = 1.0,
        spacing: str = AUTO,
        final_sigma: str = "zero",
        noise: NoiseMode = "portable",
        **options: Any,
    ) -> io.NodeOutput:
        """Choose, and show the noise levels."""
        chosen = choose(model, scheduler, steps, denoise, spacing, final_sigma, noise, options)
        plot = {"images": files_of(sheets.sigma_plot(chosen[1])), "sigmas": tuple(chosen[1].tolist())}
        return io.NodeOutput(*chosen, ui=plot | shown(chosen[2]))

    @classmethod
    def validate_inputs(
        cls,
        scheduler: str | None = None,
        steps: int | None = None,
        denoise: float | None = 1.0,
        solver_order: int | None = OWN["solver_order"],
        solver_type: str | None = OWN["solver_type"],
        algorithm_type: str | None = OWN["algorithm_type"],
        eta: float | None = OWN["eta"],
        original_inference_steps: int | None = OWN["original_inference_steps"],
    ) -> bool | str:
        """Check the number of steps, and that every option applies to the scheduler."""
        own = (solver_order, solver_type, algorithm_type, eta, original_inference_steps)
        return check_choice(cls, scheduler, steps, denoise, dict(zip(OWN, own, strict=True)))


class TesseraSchedulerKSampler(io.ComfyNode):
    """Sample with a diffusers scheduler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSchedulerKSampler",
            display_name="KSampler (diffusers)",
            category="Tessera/sampling",
            description="Samples latents with any diffusers scheduler, as KSampler does with ComfyUI's samplers.",
            search_aliases=["ksampler", "diffusers sampler", "scheduler switch", "ddim", "pndm", "unipc", "lcm"],
            has_intermediate_output=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                seed_input(),
                steps_input(30),
                cfg_input(),
                scheduler_input(),
                spacing_input(),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
                denoise_input(),
                *option_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The sampled latents."),
                io.String.Output(display_name="report", tooltip="Summary and warnings."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        spacing: str = AUTO,
        denoise: float = 1.0,
        final_sigma: str = "zero",
        noise: NoiseMode = "portable",
        **options: Any,
    ) -> io.NodeOutput:
        """Choose, then sample; an inversion adds no noise to the image."""
        sampler, sigmas, said = choose(model, scheduler, steps, denoise, spacing, final_sigma, noise, options)
        add_noise = not find(scheduler).rising
        latent = sample_latent(model, sampler, sigmas, seed, cfg, positive, negative, latent_image, add_noise)
        return io.NodeOutput(latent, said, ui=shown(said))

    @classmethod
    def validate_inputs(
        cls,
        scheduler: str | None = None,
        steps: int | None = None,
        denoise: float | None = 1.0,
        solver_order: int | None = OWN["solver_order"],
        solver_type: str | None = OWN["solver_type"],
        algorithm_type: str | None = OWN["algorithm_type"],
        eta: float | None = OWN["eta"],
        original_inference_steps: int | None = OWN["original_inference_steps"],
    ) -> bool | str:
        """Check the number of steps, and that every option applies to the scheduler."""
        own = (solver_order, solver_type, algorithm_type, eta, original_inference_steps)
        return check_choice(cls, scheduler, steps, denoise, dict(zip(OWN, own, strict=True)))


class TesseraSchedulerCompare(io.ComfyNode):
    """Generate one image with each of several schedulers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSchedulerCompare",
            display_name="Compare Schedulers",
            category="Tessera/sampling",
            description="Generates the same image with several diffusers schedulers, on one labelled sheet.",
            is_output_node=True,
            search_aliases=["compare samplers", "contact sheet", "xy plot", "scheduler comparison"],
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Vae.Input("vae", tooltip="The VAE that decodes the images."),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; of a batch, the first is shown."),
                io.String.Input(
                    "schedulers",
                    default="EulerDiscrete, DPMSolverMultistep, UniPCMultistep, DDIM",
                    multiline=True,
                    tooltip="Names with or without Scheduler, separated by commas or lines; or all.",
                ),
                seed_input("Random seed, the same for all schedulers."),
                steps_input(20),
                cfg_input(),
                denoise_input(),
                spacing_input(),
                io.Int.Input("columns", default=4, min=1, max=16, optional=True, tooltip="Images per row."),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="All images, labelled with their schedulers."),
                io.Image.Output(display_name="images", tooltip="The images, in the same order."),
                io.String.Output(display_name="report", tooltip="Summary and warnings, a paragraph per scheduler."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        schedulers: str,
        seed: int,
        steps: int,
        cfg: float,
        denoise: float = 1.0,
        spacing: str = AUTO,
        columns: int = 4,
    ) -> io.NodeOutput:
        """Sample with each scheduler, then make the sheet."""
        entries = listed(schedulers)
        chosen = [choose(model, each, steps, denoise, spacing, "zero", "portable", {}) for each in entries]
        run = partial(
            sample_latent, model, seed=seed, cfg=cfg, positive=positive, negative=negative, latent=latent_image
        )
        images = torch.cat([decoded(vae, run(sampler, sigmas)["samples"][:1])[:1] for sampler, sigmas, _ in chosen])
        labels = [find(each).short for each in entries]
        sheet = sheets.contact_sheet(list(images), labels, columns)
        told = "\n\n".join(said for _, _, said in chosen)
        look = {"images": files_of(sheet)} | named(images, labels) | shown(told)
        return io.NodeOutput(sheet, images, told, ui=look)

    @classmethod
    def validate_inputs(
        cls, schedulers: str | None = None, steps: int | None = None, denoise: float | None = 1.0
    ) -> bool | str:
        """Check the names, and the number of steps."""
        given = {"schedulers": schedulers, "steps": steps, "denoise": denoise}
        return verdict(cls, given, (listed, ["schedulers"]), (spacing.check_steps, ["steps", "denoise"]))


def listed(text: str) -> list[str]:
    """Return the names in a text, in order.

    Raises:
        ValueError: there is none, or one is unknown or turns an image into noise.
    """
    asked = [name.strip() for name in text.replace(",", "\n").splitlines() if name.strip()]
    if [name.lower() for name in asked] == ["all"]:
        return [name for name in NAMES if not find(name).rising]
    if not asked:
        raise ValueError("schedulers: found none; write names separated by commas or lines, or all.")
    inverting = [find(name).name for name in asked if find(name).rising]
    if inverting:
        raise ValueError(f"{inverting[0]} turns an image into noise, so there is no image to compare; leave it out.")
    return asked
