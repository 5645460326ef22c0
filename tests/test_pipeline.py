"""Seamless images from plain diffusers, without a host."""

from __future__ import annotations

from typing import Any

import pytest
import tessera
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from naming import naming
from tessera.tiling.roll import roll
from tessera.tiling.torus import torus
from tiny_models import FLUX, UNET, VAE
from torch import Tensor

NOTHING: Any = None


def pipeline() -> Any:
    """A small random Stable Diffusion without its text encoder: prompts come as embeddings."""
    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    scheduler: Any = DDIMScheduler(clip_sample=False, steps_offset=1)
    pipe = StableDiffusionPipeline(
        vae, NOTHING, NOTHING, unet, scheduler, NOTHING, NOTHING, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(torch.float64)


def draw(pipe: Any, latents: Tensor) -> Tensor:
    prompt = torch.randn(1, 5, UNET["cross_attention_dim"], generator=torch.Generator().manual_seed(1)).double()
    given: Any = {"prompt_embeds": prompt, "negative_prompt_embeds": torch.zeros_like(prompt), "latents": latents}
    height, width = (8 * side for side in latents.shape[-2:])
    return pipe(**given, height=height, width=width, num_inference_steps=2, output_type="pt").images


def noise(height: int = 8, width: int = 12) -> Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("axes", ["both", "half_drop", "brick"])
def test_rolled_latents_give_the_rolled_image_of_a_pipeline(axes: str) -> None:
    pipe, latents, repeats = pipeline(), noise(), tessera.tiling.TILINGS[axes]
    plain = draw(pipe, latents)
    with tessera.tiling.seamless(pipe.unet, pipe.vae, axes=axes):
        image = draw(pipe, latents)
        moved = draw(pipe, roll(latents, (2, 4), repeats))
    torch.testing.assert_close(moved, roll(image, (16, 32), repeats))
    assert not torch.allclose(image, plain, atol=1e-3), "the block does nothing"
    assert torch.equal(draw(pipe, latents), plain), "the block left something behind"


@pytest.mark.parametrize(("axes", "along", "across"), [("horizontal", (0, 4), (2, 0)), ("vertical", (2, 0), (0, 4))])
def test_one_axis_repeats_and_the_other_does_not(axes: str, along: tuple[int, int], across: tuple[int, int]) -> None:
    pipe, latents = pipeline(), noise()
    with tessera.tiling.seamless(pipe.unet, pipe.vae, axes=axes):
        image, moved, other = (draw(pipe, latents.roll(shift, (-2, -1))) for shift in ((0, 0), along, across))
    torch.testing.assert_close(moved, image.roll((8 * along[0], 8 * along[1]), (-2, -1)))
    assert not torch.allclose(other, image.roll((8 * across[0], 8 * across[1]), (-2, -1)), atol=1e-3)


def test_an_error_inside_the_block_restores_the_modules() -> None:
    pipe = pipeline()
    plain = draw(pipe, noise())
    with pytest.raises(ZeroDivisionError), tessera.tiling.seamless(pipe.unet, pipe.vae):
        raise ZeroDivisionError
    assert torch.equal(draw(pipe, noise()), plain)
    assert not any("forward" in vars(m) or m._forward_pre_hooks for m in pipe.unet.modules())


def flux_step(flux: FluxTransformer2DModel, height: int, width: int, reference: bool) -> Tensor:
    """Flux's output for an image of that many tokens, and for a smaller reference image behind it."""
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(float(height)), torch.arange(float(width)))
    if reference:
        ids = torch.cat((ids, torch.cartesian_prod(torch.ones(1), torch.arange(4.0), torch.arange(3.0))))
    generator = torch.Generator().manual_seed(3)
    given = {
        "hidden_states": torch.randn(1, len(ids), FLUX["in_channels"], generator=generator),
        "encoder_hidden_states": torch.randn(1, 5, FLUX["joint_attention_dim"], generator=generator),
        "pooled_projections": torch.randn(1, FLUX["pooled_projection_dim"], generator=generator),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
    }
    return flux(**given, img_ids=ids, txt_ids=torch.zeros(5, 3)).sample


@pytest.mark.parametrize("axes", ["both", "vertical", "brick"])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(("height", "width"), [(6, 8), (10, 4)])
def test_flux_repeats_with_the_size_that_is_drawn(height: int, width: int, reference: bool, axes: str) -> None:
    torch.manual_seed(0)
    flux = FluxTransformer2DModel(**FLUX).eval()
    sizes = [(height, width), (4, 3)] if reference else [(height, width)]
    with torch.no_grad():
        plain = flux_step(flux, height, width, reference)
        with torus(flux, tessera.tiling.TILINGS[axes], sizes):
            expected = flux_step(flux, height, width, reference)
        with tessera.tiling.seamless(flux, axes=axes):
            out = flux_step(flux, height, width, reference)
        assert torch.equal(flux_step(flux, height, width, reference), plain)
    assert torch.equal(out, expected)
    assert not torch.allclose(out, plain, atol=1e-3)


def test_what_cannot_repeat_is_refused() -> None:
    pipe = pipeline()
    learned = SD3Transformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8,
        caption_projection_dim=16, pooled_projection_dim=8, pos_embed_max_size=8,
    )  # fmt: skip
    seamless, wrong = tessera.tiling.seamless, tessera.tiling.NotPeriodicError
    with pytest.raises(wrong, match="SD3Transformer2DModel"), seamless(learned):
        pass
    with pytest.raises(TypeError, match="StableDiffusionPipeline"), seamless(pipe):
        pass
    with pytest.raises(ValueError, match=naming("diagonal", "brick")), seamless(pipe.vae, axes="diagonal"):
        pass
    with pytest.raises(ValueError, match=naming("width", 88, 16)), seamless(pipe.unet):
        draw(pipe, noise(8, 11))
    pipe.vae.enable_tiling()
    with pytest.raises(ValueError, match="disable_tiling"), seamless(pipe.vae):
        pass


def test_a_vae_refuses_images_that_it_would_have_to_crop() -> None:
    vae = pipeline().vae
    with pytest.raises(ValueError, match=naming(100, 8)), tessera.tiling.seamless(vae):
        vae.encode(torch.zeros(1, 3, 64, 100, dtype=torch.float64))
