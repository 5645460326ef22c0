"""Second Pass: enlarge latents and sample them again, for detail that the first pass had no room for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..contract import io
from ..contract.sampling import enlarge_with, named_sampler, sample_latent, spaced_sigmas
from ..images.enlarging import enlarged
from ..patching.vaes import decoded
from ..tiling.axes import TILINGS
from .checks import ABSENT, verdict
from .inputs import TWO_AXES, cfg_input, seed_input, steps_input

if TYPE_CHECKING:
    from ..contract.sampling import KSAMPLER

SAMPLERS = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "dpmpp_2s_ancestral",
    "lms",
    "lcm",
    "ddim",
    "res_multistep",
]
"""Those of the host that every version has and that take a schedule as it is; `sampler` takes any other."""
SCHEDULERS = ["simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal"]


class TesseraSecondPass(io.ComfyNode):
    """Enlarge and sample again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the node."""
        return io.Schema(
            node_id="TesseraSecondPass",
            display_name="Second Pass",
            category="Tessera/sampling",
            description="Enlarges latents and samples them again, so that a large image has the detail of its size.",
            search_aliases=["hires fix", "highres fix", "upscale", "refine", "second pass", "img2img upscale"],
            inputs=[
                io.Model.Input("model", tooltip="The model that denoises."),
                io.Conditioning.Input("positive", tooltip="What the image should show."),
                io.Conditioning.Input("negative", tooltip="What the image should not show."),
                io.Latent.Input("latent_image", tooltip="The latents of the first pass."),
                seed_input(),
                io.Float.Input(
                    "factor",
                    default=1.5,
                    min=1.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How many times as wide and high the result is, rounded to whole latents.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the schedule is run: 0.3 sharpens the image, 0.6 adds new detail; "
                    "latents that are enlarged without a VAE need about 0.5.",
                ),
                steps_input(20),
                cfg_input(),
                io.Combo.Input("sampler_name", options=SAMPLERS, default="euler", tooltip="The method of the steps."),
                io.Combo.Input(
                    "scheduler", options=SCHEDULERS, default="normal", tooltip="How the noise levels are spaced."
                ),
                io.Combo.Input(
                    "tiling",
                    options=["off", *TWO_AXES],
                    default="off",
                    optional=True,
                    tooltip="Edges that meet while it is enlarged, so that a texture still repeats; use it with "
                    "Seamless Model and Seamless VAE.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Enlarges the image and not the latents, which is sharper."),
                io.UpscaleModel.Input(
                    "upscale_model", optional=True, tooltip="Enlarges the image with a network; needs a VAE."
                ),
                io.Sampler.Input("sampler", optional=True, tooltip="Used in place of sampler_name."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Used in place of scheduler, steps and denoise."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The larger latents."),
                io.Image.Output(display_name="image", tooltip="The larger image, where a VAE is connected."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        seed: int,
        factor: float,
        denoise: float,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        tiling: str = "off",
        vae: Any = None,
        upscale_model: Any = None,
        sampler: KSAMPLER | None = None,
        sigmas: Tensor | None = None,
    ) -> io.NodeOutput:
        """Enlarge, then sample."""
        check_vae(vae is not None, upscale_model is not None)
        axes = TILINGS[tiling]
        network = None if upscale_model is None else partial(enlarge_with, upscale_model)
        larger = enlarged(latent_image, factor, (axes.horizontal, axes.vertical), vae, network)
        sampler = named_sampler(sampler_name) if sampler is None else sampler
        sigmas = spaced_sigmas(model, scheduler, steps, denoise) if sigmas is None else sigmas
        made = sample_latent(model, sampler, sigmas, seed, cfg, positive, negative, larger)
        return io.NodeOutput(made, None if vae is None else decoded(vae, made["samples"]))

    @classmethod
    def validate_inputs(cls, factor: float | None = None, vae: Any = ABSENT, upscale_model: Any = ABSENT) -> bool | str:
        """Check that a VAE is there where one is needed."""
        connected = [each is not ABSENT for each in (vae, upscale_model)]
        return verdict(cls, {"factor": factor}, (lambda _: check_vae(*connected), ["factor"]))


def check_vae(vae: bool, upscale_model: bool) -> None:
    """Raise ValueError when a network is to enlarge an image that no VAE decodes."""
    if upscale_model and not vae:
        raise ValueError("upscale_model: found without a vae, which decodes what it enlarges; connect a VAE as well")
