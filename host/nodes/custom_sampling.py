"""ComfyUI's core nodes that put a sampling run together from its parts: noise, guider, sampler, sigmas."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ..progress import ProgressBar
from ..runtime.patcher import ModelPatcher
from ..sampling import latent_preview
from ..sampling.conds import Conditioning
from ..sampling.guiders import CFGGuider as Guider
from ..sampling.noise import fix_empty_latent_channels, prepare_empty_noise, prepare_noise
from ..sampling.samplers import SAMPLER_NAMES, Callback, Sampler, sampler_object
from ..sampling.schedules import SCHEDULER_NAMES, calculate_sigmas
from ..schema import io
from ..schema.limits import MAX_SEED

Latent = dict[str, Any]


class NoiseSource(Protocol):
    """What travels on a NOISE link."""

    seed: int

    def generate_noise(self, input_latent: Latent) -> Tensor:
        """Return noise in the shape of the latents."""
        ...


class EmptyNoise:
    """No noise; the seed is for the sampler's own."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def generate_noise(self, input_latent: Latent) -> Tensor:
        """Return zeros in the shape of the latents."""
        return prepare_empty_noise(input_latent["samples"])


class SeededNoise:
    """Standard normal noise named by a seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, input_latent: Latent) -> Tensor:
        """Return noise in the shape of the latents."""
        return prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))


class BasicGuide(Guider):
    """One conditioning, no guidance."""

    def set_conds(self, positive: Conditioning) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Set the prompt."""
        self.inner_set_conds({"positive": positive})


def progress_callback(model: ModelPatcher, steps: int, x0_output: dict[str, Tensor] | None = None) -> Callback:
    """Return a callback that reports each step, with a preview where one is wanted, and keeps the last x0 as "x0"."""
    bar = ProgressBar(steps)

    def callback(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if x0_output is not None:
            x0_output["x0"] = x0
        bar.update_absolute(step + 1, total_steps, latent_preview.preview(x0, model.model.latent_format))

    return callback


def finished(latent: Latent, samples: Tensor) -> Latent:
    """Return the latent with what was sampled; it is not empty any more."""
    return {**{k: v for k, v in latent.items() if k != "downscale_ratio_spacial"}, "samples": samples}


def sample_custom(
    noise: NoiseSource, guider: Guider, sampler: Sampler, sigmas: Tensor, latent: Latent
) -> io.NodeOutput:
    """Sample a LATENT; return the result and the last prediction of it."""
    model = guider.model_patcher
    image = fix_empty_latent_channels(model, latent["samples"], latent.get("downscale_ratio_spacial"))
    latent = {**latent, "samples": image}
    x0_output: dict[str, Tensor] = {}
    samples = guider.sample(
        noise.generate_noise(latent),
        image,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=progress_callback(model, sigmas.shape[-1] - 1, x0_output),
        seed=noise.seed,
    )
    out = finished(latent, samples.to("cpu", torch.float32))
    if "x0" not in x0_output:
        return io.NodeOutput(out, out)
    return io.NodeOutput(out, finished(latent, model.model.process_latent_out(x0_output["x0"].cpu())))


def seed_input(name: str) -> io.Input:
    """Declare a random seed, with a button for the next one."""
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        tooltip="Random seed; the same seed gives the same image.",
    )


def cfg_input() -> io.Input:
    """Declare a guidance scale."""
    tooltip = "Guidance scale: how far to go from the negative towards the positive prompt; 1 is none."
    return io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=tooltip)


def _latent_outputs() -> list[io.Output]:
    return [
        io.Latent.Output(display_name="output", tooltip="The sampled latents."),
        io.Latent.Output(display_name="denoised_output", tooltip="The model's last prediction without noise."),
    ]


class KSamplerSelect(io.ComfyNode):
    """A sampler by name."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="KSamplerSelect",
            display_name="KSamplerSelect",
            category="model/sampling/samplers",
            description="Chooses the method that makes the steps.",
            inputs=[io.Combo.Input("sampler_name", options=SAMPLER_NAMES, tooltip="The method's name.")],
            outputs=[io.Sampler.Output(tooltip="The sampler.")],
        )

    @classmethod
    def execute(cls, sampler_name: str) -> io.NodeOutput:
        """Make the sampler."""
        return io.NodeOutput(sampler_object(sampler_name))


class BasicScheduler(io.ComfyNode):
    """The noise levels of a schedule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="BasicScheduler",
            display_name="BasicScheduler",
            category="model/sampling/schedulers",
            description="Calculates the noise levels of the steps for a model.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose noise levels are used."),
                io.Combo.Input("scheduler", options=SCHEDULER_NAMES, tooltip="How the levels are spaced."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Number of steps."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 only the last steps of a longer schedule are kept.",
                ),
            ],
            outputs=[io.Sigmas.Output(tooltip="The noise levels, from high to low.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scheduler: str, steps: int, denoise: float) -> io.NodeOutput:
        """Calculate the levels."""
        if denoise <= 0.0:
            return io.NodeOutput(torch.empty(0))
        total = int(steps / denoise) if denoise < 1.0 else steps
        sigmas = calculate_sigmas(model.get_model_object("model_sampling"), scheduler, total)
        return io.NodeOutput(sigmas[-(steps + 1) :].cpu())


class BasicGuider(io.ComfyNode):
    """A guider without a negative prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="BasicGuider",
            display_name="Basic Guider",
            category="model/sampling/guiders",
            description="Lets a model follow one prompt, without guidance by a negative one.",
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Conditioning.Input("conditioning", tooltip="What the image should show."),
            ],
            outputs=[io.Guider.Output(tooltip="The guider.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, conditioning: Conditioning) -> io.NodeOutput:
        """Make the guider."""
        guider = BasicGuide(model)
        guider.set_conds(conditioning)
        return io.NodeOutput(guider)


class CFGGuider(io.ComfyNode):
    """A guider with a negative prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="CFGGuider",
            display_name="CFG Guider",
            category="model/sampling/guiders",
            description="Lets a model follow a positive prompt, away from a negative one.",
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                cfg_input(),
            ],
            outputs=[io.Guider.Output(tooltip="The guider.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning, cfg: float) -> io.NodeOutput:
        """Make the guider."""
        guider = Guider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)


class RandomNoise(io.ComfyNode):
    """Noise named by a seed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="RandomNoise",
            display_name="RandomNoise",
            category="model/sampling/noise",
            description="The noise that a run starts from.",
            inputs=[seed_input("noise_seed")],
            outputs=[io.Noise.Output(tooltip="The noise.")],
        )

    @classmethod
    def execute(cls, noise_seed: int) -> io.NodeOutput:
        """Make the noise source."""
        return io.NodeOutput(SeededNoise(noise_seed))


class DisableNoise(io.ComfyNode):
    """No noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="DisableNoise",
            display_name="DisableNoise",
            category="model/sampling/noise",
            description="No noise, for latents that still have some.",
            search_aliases=["zero noise"],
            outputs=[io.Noise.Output(tooltip="The absent noise.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Make the noise source."""
        return io.NodeOutput(EmptyNoise())


class SamplerCustom(io.ComfyNode):
    """Samples with a chosen sampler and noise levels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="SamplerCustom",
            display_name="SamplerCustom",
            category="model/sampling/custom",
            description="Samples latents with a chosen sampler and noise levels.",
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Boolean.Input("add_noise", default=True, advanced=True, tooltip="Add noise before the first step."),
                seed_input("noise_seed"),
                cfg_input(),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Sampler.Input("sampler", tooltip="The method that makes the steps."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels of the steps."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
            ],
            outputs=_latent_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        add_noise: bool,
        noise_seed: int,
        cfg: float,
        positive: Conditioning,
        negative: Conditioning,
        sampler: Sampler,
        sigmas: Tensor,
        latent_image: Latent,
    ) -> io.NodeOutput:
        """Sample."""
        guider = Guider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        noise = SeededNoise(noise_seed) if add_noise else EmptyNoise(noise_seed)
        return sample_custom(noise, guider, sampler, sigmas, latent_image)


class SamplerCustomAdvanced(io.ComfyNode):
    """Samples with every part chosen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="SamplerCustomAdvanced",
            display_name="SamplerCustomAdvanced",
            category="model/sampling/custom",
            description="Samples latents with a chosen noise, guider, sampler and noise levels.",
            inputs=[
                io.Noise.Input("noise", tooltip="The noise to start from."),
                io.Guider.Input("guider", tooltip="The model with its prompts."),
                io.Sampler.Input("sampler", tooltip="The method that makes the steps."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels of the steps."),
                io.Latent.Input("latent_image", tooltip="The latents to start from; empty ones for a new image."),
            ],
            outputs=_latent_outputs(),
        )

    @classmethod
    def execute(
        cls, noise: NoiseSource, guider: Guider, sampler: Sampler, sigmas: Tensor, latent_image: Latent
    ) -> io.NodeOutput:
        """Sample."""
        return sample_custom(noise, guider, sampler, sigmas, latent_image)


NODES: list[type[io.ComfyNode]] = [
    KSamplerSelect,
    BasicScheduler,
    BasicGuider,
    CFGGuider,
    RandomNoise,
    DisableNoise,
    SamplerCustom,
    SamplerCustomAdvanced,
]
