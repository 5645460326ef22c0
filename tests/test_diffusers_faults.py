"""Where the bridge is not what diffusers does, on purpose: each test shows the fault of diffusers that it avoids.

A test that fails here says that diffusers has changed: the exception can go, and the comparison belongs to
test_scheduler_parity.
"""

from __future__ import annotations

import math

import pytest
import torch
from scheduler_models import LATENTS, TRAINED, Model, diffusers_loop, from_noise, levels, noise, relative, resume
from tessera.samplers import build
from tessera.samplers.registry import find

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("switch", ["use_flow_sigmas", "use_karras_sigmas", "use_exponential_sigmas"])
def test_deis_repeats_its_last_level_and_leaves_its_noise_in(switch: str) -> None:
    scheduler = build.make("DEISMultistepScheduler", TRAINED | {switch: True, "flow_shift": 3.0})
    scheduler.set_timesteps(20)
    assert scheduler.sigmas[-1] == scheduler.sigmas[-2] > 0


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
def test_linspace_is_stepped_as_if_it_were_leading(name: str) -> None:
    """They step by T // n whatever their timesteps are; the bridge steps to the next level."""
    scheduler = build.make(name, TRAINED | LATENTS | {"timestep_spacing": "linspace"})
    expected = diffusers_loop(scheduler, 20, noise())
    model = Model("epsilon")
    assert relative(from_noise(name, model, levels(name, model, 20, spacing="linspace")), expected) > 0.01


@pytest.mark.parametrize(("name", "repeated"), [("LMSDiscreteScheduler", 0), ("PNDMScheduler", 1)])
def test_a_run_that_begins_in_the_middle_has_a_wrong_history(name: str, repeated: int) -> None:
    """LMS takes coefficients of order 4 for one slope; PNDM loses the timestep that it makes twice (image to image).

    The bridge's first step is of the first order: with many steps both it and the exact solution agree.
    """
    model = Model("epsilon")
    sigmas = levels(name, model, 12, denoise=0.6, spacing="leading")
    x = noise().roll(1) + sigmas[0] * noise()
    model.latent_image = noise().roll(1)
    exact = resume("HeunDiscrete", model, x, levels("HeunDiscrete", model, 240, denoise=0.6, spacing="leading"))
    begun = x if find(name).space == "model" else x / math.hypot(1, float(sigmas[0]))
    theirs = diffusers_loop(
        build.make(name, TRAINED | LATENTS | {"timestep_spacing": "leading"}), 20, begun, skip=8 + repeated
    )
    ours = resume(name, model, x, sigmas)
    assert relative(ours, exact) < relative(theirs, exact)
    assert relative(ours, theirs) > 0.01


def test_bh1_is_no_number_at_zero() -> None:
    scheduler = build.make("UniPCMultistepScheduler", TRAINED | {"solver_type": "bh1"})
    assert diffusers_loop(scheduler, 8, noise()).isnan().any()


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "DDIMInverseScheduler"])
def test_clipping_is_on_and_cuts_latents(name: str) -> None:
    scheduler = build.make(name, TRAINED)
    assert scheduler.config.clip_sample
    clipped = diffusers_loop(scheduler, 8, 4 * noise())
    assert relative(clipped, diffusers_loop(build.make(name, TRAINED | LATENTS), 8, 4 * noise())) > 0.01


def test_noise_is_added_in_the_last_step_of_leading_ddpm() -> None:
    """With fixed_large variance its last step, from timestep 1 to 0, draws noise; the default's is nothing."""
    generator = torch.Generator().manual_seed(0)
    scheduler = build.make("DDPMScheduler", TRAINED | LATENTS | {"variance_type": "fixed_large"})
    scheduler.set_timesteps(8)
    out = [scheduler.step(noise(), scheduler.timesteps[-1], noise(), generator=generator).prev_sample for _ in range(2)]
    assert not torch.equal(*out)
