"""Model sampling against diffusers' schedulers, and the family adapters against direct calls of the denoiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from naming import naming
from tessera.host.models import model_base
from tessera.host.models.model_base import ModelType
from tessera.host.models.patches import patchify, unpatchify
from tessera.host.sampling import model_sampling
from torch import Tensor


def sampling(kind: ModelType, **settings: Any) -> Any:
    return model_base.model_sampling(SimpleNamespace(sampling_settings=settings), kind)


KINDS = list(ModelType)
SHIFTED = {"shift": 3.0}


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "scaled_linear"), ("sqrt_linear", "linear")])
def test_discrete_noise_levels_are_those_of_ddpm(ours: str, theirs: str) -> None:
    scheduler: Any = DDPMScheduler.from_config({"beta_schedule": theirs, "beta_start": 0.00085, "beta_end": 0.012})
    bar = scheduler.alphas_cumprod.double()
    levels = sampling(ModelType.EPS, beta_schedule=ours).sigmas.double()
    torch.testing.assert_close(levels, ((1 - bar) / bar).sqrt(), rtol=1e-4, atol=0.0)


def test_unknown_beta_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match=naming("cosine", "linear", "sqrt_linear")):
        sampling(ModelType.EPS, beta_schedule="cosine")


def test_zero_snr_ends_without_signal_and_begins_as_before() -> None:
    plain, rescaled = sampling(ModelType.EPS), sampling(ModelType.EPS, zsnr=True)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bar = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    torch.testing.assert_close(rescaled.sigmas[:-1].double(), ((1 - bar) / bar).sqrt()[:-1], rtol=1e-4, atol=0.0)
    assert rescaled.sigma_max > 4000
    torch.testing.assert_close(rescaled.sigma_min, plain.sigma_min, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("kind", [ModelType.EPS, ModelType.FLOW, ModelType.FLUX])
def test_noise_levels_rise_and_map_to_their_timesteps(kind: ModelType) -> None:
    s = sampling(kind, **SHIFTED)
    assert (s.sigmas.diff() > 0).all()
    for index in (0, 17, len(s.sigmas) - 1):
        sigma = s.sigmas[index : index + 1]
        if kind is ModelType.EPS:
            assert s.timestep(sigma).item() == index
            torch.testing.assert_close(s.sigma(s.timestep(sigma)), sigma)
        if kind is ModelType.FLOW:
            torch.testing.assert_close(s.timestep(sigma), sigma * 1000)
        if kind is ModelType.FLUX:
            assert torch.equal(s.timestep(sigma), sigma)


@pytest.mark.parametrize("kind", [ModelType.EPS, ModelType.FLOW, ModelType.FLUX])
@given(percents=st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)))
def test_percents_fall_in_sigma(kind: ModelType, percents: tuple[float, float]) -> None:
    s = sampling(kind, **SHIFTED)
    early, late = sorted(percents)
    assert s.percent_to_sigma(early) >= s.percent_to_sigma(late)
    assert s.percent_to_sigma(0.0) >= float(s.sigma_max)
    assert s.percent_to_sigma(1.0) == 0.0


def prediction(kind: ModelType, image: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect model answers."""
    alpha = 1 / (sigma**2 + 1) ** 0.5
    return {
        ModelType.EPS: noise,
        ModelType.V_PREDICTION: alpha * noise - alpha * sigma * image,
        ModelType.X0: image,
        ModelType.IMG_TO_IMG: image,
        ModelType.FLOW: noise - image,
        ModelType.FLUX: noise - image,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(fraction=st.floats(0.02, 0.98), seed=st.integers(0, 1000))
def test_a_perfect_prediction_gives_the_image(kind: ModelType, fraction: float, seed: int) -> None:
    s = sampling(kind)
    sigma = s.sigmas[int(fraction * len(s.sigmas))].expand(2)
    generator = torch.Generator().manual_seed(seed)
    image, noise = (torch.randn(2, 4, 3, 3, generator=generator) for _ in range(2))
    x = s.noise_scaling(sigma, noise, image)
    output = prediction(kind, image, noise, sigma.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(s.calculate_denoised(sigma, output, x), image, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [ModelType.EPS, ModelType.V_PREDICTION, ModelType.X0])
def test_input_has_unit_variance_and_full_noise_is_unscaled(kind: ModelType) -> None:
    s = sampling(kind)
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    full = s.noise_scaling(s.sigma_max, noise, torch.zeros_like(noise), max_denoise=True)
    torch.testing.assert_close(s.calculate_input(s.sigma_max, full), noise)


@given(mu=st.floats(0.1, 3.0), t=st.floats(0.01, 0.99))
def test_flux_shift_is_a_shift_of_the_logit(mu: float, t: float) -> None:
    shifted = torch.tensor(model_sampling.flux_time_shift(mu, 1.0, t), dtype=torch.float64)
    expected = torch.tensor(t, dtype=torch.float64).logit() + mu
    torch.testing.assert_close(shifted.logit(), expected)


# The family adapters


def test_sd15_denoises_as_the_formula_says(sd15_unet: Any) -> None:
    model = model_base.SD15(sd15_unet)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 16, generator=generator)
    sigma = torch.tensor([3.0, 0.5])
    got = model.apply_model(x, sigma, c_crossattn=context)
    scaled = x / (sigma.reshape(-1, 1, 1, 1) ** 2 + 1).sqrt()
    timestep = model.model_sampling.timestep(sigma).float()
    eps = sd15_unet(scaled, timestep, context).sample
    torch.testing.assert_close(got, x - sigma.reshape(-1, 1, 1, 1) * eps)


def test_sdxl_gets_the_pooled_text_and_the_sizes(sdxl_unet: Any) -> None:
    model = model_base.SDXL(sdxl_unet)
    generator = torch.Generator().manual_seed(0)
    x, context, pooled = (torch.randn(*s, generator=generator) for s in ((1, 4, 8, 8), (1, 7, 16), (1, 16)))
    sizes = {"width": 96, "height": 64, "crop_w": 3, "target_height": 128}
    found = model.extra_conds(cross_attn=context, pooled_output=pooled, noise=x, device="cpu", **sizes)
    arguments = {name: cond.process_cond(batch_size=1).cond for name, cond in found.items()}
    sigma = torch.tensor([3.0])
    got = model.apply_model(x, sigma, **arguments)
    ids = torch.tensor([[64.0, 96.0, 0.0, 3.0, 128.0, 96.0]])
    timestep = model.model_sampling.timestep(sigma).float()
    added = {"text_embeds": pooled, "time_ids": ids}
    eps = sdxl_unet(x / (sigma**2 + 1).sqrt(), timestep, context, added_cond_kwargs=added).sample
    torch.testing.assert_close(got, x - sigma * eps)


def test_sdxl_without_pooled_text_says_what_to_do(sdxl_unet: Any) -> None:
    with pytest.raises(ValueError, match="SDXL's own CLIP"):
        model_base.SDXL(sdxl_unet).extra_conds(cross_attn=torch.zeros(1, 7, 16))


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_flux_tokens_are_those_of_diffusers() -> None:
    x = torch.randn(2, 16, 8, 6, generator=torch.Generator().manual_seed(0))
    tokens, ids = patchify(x)
    assert torch.equal(tokens, FluxPipeline._pack_latents(x, 2, 16, 8, 6))
    assert torch.equal(ids, FluxPipeline._prepare_latent_image_ids(2, 4, 3, torch.device("cpu"), torch.float32))
    assert torch.equal(unpatchify(tokens, 8, 6), x)


@pytest.mark.parametrize("size", [(7, 6), (8, 5), (3, 3)])
def test_flux_odd_sizes_keep_their_size(size: tuple[int, int], transformer: Any) -> None:
    x = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(0))
    tokens, _ = patchify(x)
    assert torch.equal(unpatchify(tokens, *size), x)
    model = model_base.Flux(transformer)
    arguments = {"c_crossattn": torch.zeros(1, 5, 32), "guidance": torch.tensor([3.5])}
    assert model.apply_model(x, torch.tensor([0.7]), **arguments).shape == x.shape


def test_flux_denoises_as_the_formula_says(transformer: Any) -> None:
    model = model_base.Flux(transformer)
    generator = torch.Generator().manual_seed(0)
    x, context, pooled = (torch.randn(*s, generator=generator) for s in ((2, 16, 4, 6), (2, 5, 32), (2, 24)))
    sigma = torch.tensor([0.9, 0.4])
    found = model.extra_conds(cross_attn=context, pooled_output=pooled, guidance=2.5)
    arguments = {name: cond.process_cond(batch_size=2).cond for name, cond in found.items()}
    got = model.apply_model(x, sigma, **arguments)
    velocity = transformer(
        FluxPipeline._pack_latents(x, 2, 16, 4, 6),
        context,
        pooled,
        sigma,
        FluxPipeline._prepare_latent_image_ids(2, 2, 3, torch.device("cpu"), torch.float32),
        torch.zeros(5, 3),
        torch.tensor([2.5, 2.5]),
    ).sample
    velocity = FluxPipeline._unpack_latents(velocity, 32, 48, 8)
    torch.testing.assert_close(got, x - sigma.reshape(-1, 1, 1, 1) * velocity)


def test_flux_guidance_is_3_5_unless_given(transformer: Any) -> None:
    model = model_base.Flux(transformer)
    assert model.extra_conds()["guidance"].cond.item() == 3.5
    assert "guidance" not in model.extra_conds(guidance=None)


def test_patches_inside_blocks_are_refused_rather_than_ignored(sd15_unet: Any) -> None:
    options = {"patches": {"input_block_patch": [None]}}
    with pytest.raises(NotImplementedError, match="input_block_patch"):
        model_base.SD15(sd15_unet).apply_model(
            torch.zeros(1, 4, 8, 8),
            torch.tensor([1.0]),
            c_crossattn=torch.zeros(1, 7, 16),
            transformer_options=options,
        )
