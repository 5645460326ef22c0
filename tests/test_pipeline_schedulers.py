"""The schedulers inside a diffusers pipeline and around a plain denoiser."""

from __future__ import annotations

from typing import Any

import pytest
import tessera
import torch
from hypothesis import given
from hypothesis import strategies as st
from margins import within
from naming import naming
from scheduler_models import LATENTS, SEED, TRAINED, diffusers_loop, network, noise, relative
from tessera.samplers import build
from tessera.samplers.inject import with_roots
from tessera.samplers.preview import FAMILIES
from tessera.samplers.registry import ENTRIES
from test_pipeline import draw, pipeline
from test_pipeline import noise as latents
from test_scheduler_parity import ENDS_AT_SIGMA_MIN, ONE_SPACING, WITH_A_LOOP
from torch import Tensor

# numpy's about diffusers, and torchsde's about rounding.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Should have", "ignore::FutureWarning")
FORWARD = [entry.name for entry in ENTRIES if not entry.rising]
PARITY = 5e-6


def trained(kind: str) -> Any:
    """The scheduler that a pipeline came with."""
    if kind == "flow":
        return build.make("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})
    return build.make("DDIMScheduler", TRAINED | {"prediction_type": kind})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", WITH_A_LOOP)
def test_a_pipeline_draws_what_it_draws_with_the_class_of_diffusers(name: str, kind: str) -> None:
    spacing = "auto" if name in ONE_SPACING else "leading"
    own = {} if name in ONE_SPACING else {"timestep_spacing": spacing}
    theirs = build.make(name, TRAINED | LATENTS | own | {"prediction_type": kind})
    final = "sigma_min" if name in ENDS_AT_SIGMA_MIN else "zero"
    ours = tessera.samplers.scheduler(name, trained(kind), spacing=spacing, final=final)
    expected, found = (diffusers_loop(each, 7, noise()) for each in (theirs, ours))
    assert within(relative(found, expected), PARITY)


def kept_peak(x: Tensor, t: Tensor) -> Tensor:
    """What a network of noise predicts whose images are all 0.7, of latents in its own scale."""
    kept = trained("epsilon").alphas_cumprod[t.round().long()].reshape(-1, 1, 1, 1)
    return (x - 0.7 * kept.sqrt()) / (1 - kept).sqrt()


@pytest.mark.parametrize("name", FORWARD)
def test_every_scheduler_reaches_the_image_in_a_pipeline(name: str) -> None:
    made = tessera.samplers.scheduler(name, trained("epsilon"))
    drawn = diffusers_loop(made, 30, noise(), kept_peak)
    assert (drawn - 0.7).abs().max() < 0.05


@pytest.mark.parametrize("name", FORWARD)
def test_every_scheduler_reaches_the_image_of_a_flow(name: str) -> None:
    made = tessera.samplers.scheduler(name, trained("flow"))
    made.set_timesteps(sigmas=torch.linspace(1, 1 / 30, 30).tolist(), mu=0.5)
    x = noise() * made.init_noise_sigma
    for t in made.timesteps:
        sigma = (t / 1000).clamp(min=1e-3)
        x = made.step((made.scale_model_input(x, t) - 0.7) / sigma, t, x, torch.Generator(), return_dict=False)[0]
    assert (x - 0.7).abs().max() < 0.05


@pytest.mark.parametrize(
    "config",
    [
        {"shift": 1.0},
        {"shift": 3.0},
        {"shift": 3.0, "use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"use_dynamic_shifting": True, "shift_terminal": 0.02},
    ],
)
def test_the_levels_of_a_flow_are_those_of_its_own_scheduler(config: dict[str, Any]) -> None:
    """Pipelines compute mu for every model, and hand it to schedulers whose shift is fixed as well."""
    own = build.make("FlowMatchEulerDiscreteScheduler", config)
    given = torch.linspace(1, 1 / 8, 8).tolist()
    own.set_timesteps(sigmas=given, mu=0.9)
    made = tessera.samplers.scheduler("FlowMatchEulerDiscrete", build.make(type(own).__name__, config))
    made.set_timesteps(sigmas=given, mu=0.9)
    torch.testing.assert_close(made.sigmas, own.sigmas, atol=2e-6, rtol=0)


def test_a_run_without_steps_is_refused() -> None:
    made = tessera.samplers.scheduler("DDIM", trained("epsilon"))
    with pytest.raises(ValueError, match=naming("num_inference_steps", "sigmas")):
        made.set_timesteps()
    for none in ({"num_inference_steps": 0}, {"sigmas": []}):
        with pytest.raises(ValueError, match=naming("steps", 0, 1, 1000)):
            made.set_timesteps(**none)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DDIMScheduler"])
def test_image_to_image_begins_at_a_later_step(name: str) -> None:
    made, image = tessera.samplers.scheduler(name, trained("epsilon")), torch.full((1, 4, 8, 8), 0.3)
    made.set_timesteps(20)
    later = made.timesteps[10 * made.order :]
    x = made.add_noise(image, noise((1, 4, 8, 8)), later[:1])
    for t in later:
        x = made.step(kept_peak(made.scale_model_input(x, t), t.expand(1)), t, x).prev_sample
    assert (x - 0.7).abs().max() < 0.05


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler"])
@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_each_sample_gets_the_noise_of_its_own_timestep(name: str, kind: str) -> None:
    made, images = tessera.samplers.scheduler(name, trained(kind)), noise((3, 4, 8, 8))
    made.set_timesteps(20)
    at = made.timesteps[torch.tensor([2, 11, 19])]
    each = [made.add_noise(images[i : i + 1], images[i : i + 1].flip(-1), at[i : i + 1]) for i in range(3)]
    assert torch.equal(made.add_noise(images, images.flip(-1), at), torch.cat(each))


def test_a_scheduler_that_cannot_begin_later_says_so() -> None:
    made = tessera.samplers.scheduler("PNDM", trained("epsilon"))
    made.set_timesteps(20)
    with pytest.raises(ValueError, match="PNDMScheduler"):
        made.set_begin_index(5)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "KarrasVeScheduler", "KDPM2DiscreteScheduler"])
def test_a_pipeline_of_diffusers_runs_twice_with_the_same_result(name: str) -> None:
    pipe = pipeline()
    before = draw(pipe, latents())
    pipe.scheduler = tessera.samplers.scheduler(name, pipe.scheduler, spacing="karras")
    torch.manual_seed(SEED)
    first = draw(pipe, latents())
    torch.manual_seed(SEED)
    assert torch.equal(draw(pipe, latents()), first)
    assert first.isfinite().all() and not torch.allclose(first, before, atol=1e-3)


def test_latents_changed_between_the_steps_are_taken_as_they_are() -> None:
    made = tessera.samplers.scheduler("DDIM", trained("epsilon"))
    made.set_timesteps(3)
    first = made.timesteps[0]
    output = torch.zeros(1, 4, 8, 8)
    x = made.step(output, first, noise((1, 4, 8, 8))).prev_sample
    masked = made.step(output, made.timesteps[1], 0 * x).prev_sample
    assert masked.count_nonzero() == 0


@pytest.mark.parametrize("name", FORWARD)
def test_a_plain_denoiser_is_sampled(name: str) -> None:
    drawn = tessera.samplers.sample(lambda x, sigma: torch.full_like(x, 0.7), noise(), name, steps=30)
    assert (drawn - 0.7).abs().max() < 0.05


@pytest.mark.parametrize("spacing", ["auto", "trailing", "karras"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FORWARD)
def test_the_lowest_level_is_reached_in_few_steps(name: str, family: str, spacing: str) -> None:
    """The lowest level of Flux is so far below the one before that the difference of their squares is lost."""
    for steps in (1, 3):
        drawn = tessera.samplers.sample(
            lambda x, _: torch.full_like(x, 0.7),
            noise((1, 4, 8, 8)),
            name,
            steps,
            schedule=FAMILIES[family](),
            spacing=spacing,
            final="sigma_min",
        )
        assert drawn.isfinite().all()


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=30, unique=True))
def test_levels_with_roots_are_the_levels_but_for_rounding(levels: list[float]) -> None:
    rho = torch.tensor(sorted(levels, reverse=True)).unique_consecutive()
    found = with_roots(rho)
    here, target = found[:-1], found[1:]
    up = (target**2 * (here**2 - target**2) / here**2) ** 0.5
    assert ((target**2 - up**2) >= 0).all()
    torch.testing.assert_close(found, rho, rtol=1e-4, atol=0)


def test_large_sums_are_finite_in_half_precision() -> None:
    drawn = tessera.samplers.sample(lambda x, _: torch.full_like(x, 4.0), torch.zeros(1, 4, 96, 96).half(), steps=2)
    assert drawn.dtype == torch.float16
    assert (drawn - 4.0).abs().max() < 0.1
    with pytest.raises(RuntimeError, match=naming("not finite", "step 1 of 2")):
        tessera.samplers.sample(lambda x, _: x.new_full(x.shape, torch.inf), noise().half(), steps=2)


def test_what_cannot_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="DDIMInverseScheduler"):
        tessera.samplers.scheduler("DDIMInverse", trained("epsilon"))
    with pytest.raises(ValueError, match="DDIMInverseScheduler"):
        tessera.samplers.sample(network, noise(), "DDIMInverse")
    with pytest.raises(ValueError, match=naming("eta", "EulerDiscreteScheduler")):
        tessera.samplers.scheduler("EulerDiscrete", trained("epsilon"), eta=1.0)
    with pytest.raises(ValueError, match="sample"):
        tessera.samplers.scheduler("DDIM", build.make("DDIMScheduler", {"prediction_type": "sample"}))
