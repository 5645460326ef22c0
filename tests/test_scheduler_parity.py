"""The bridge against diffusers' own loops: same network, noise and generator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from margins import within
from scheduler_models import (
    LATENTS,
    SEED,
    TRAINED,
    Model,
    diffusers_loop,
    from_noise,
    levels,
    network,
    noise,
    relative,
    resume,
)
from tessera.patching import model_sampling as noise_levels
from tessera.samplers import build
from tessera.samplers.registry import find
from torch import Tensor

# numpy's about diffusers, hundreds in each run; torchsde's about rounding.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Should have")
PARITY = 5e-6
# Their `set_timesteps` has no spacing to choose.
ONE_SPACING = {"DPMSolverSinglestepScheduler", "LCMScheduler", "TCDScheduler"}
# diffusers ends these with the lowest trained level.
ENDS_AT_SIGMA_MIN = {"DEISMultistepScheduler", "SASolverScheduler", "TCDScheduler"}
WITH_A_LOOP = [
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "LCMScheduler",
    "SASolverScheduler",
    "DPMSolverSDEScheduler",
    "TCDScheduler",
]


def compare(name: str, kind: str, steps: int, spacing: str, **options: Any) -> float:
    """The error of the bridge. The last noise level is the one that diffusers ends at."""
    final = "sigma_min" if name in ENDS_AT_SIGMA_MIN else "zero"
    own = {"timestep_spacing": spacing} if spacing in ("leading", "trailing", "linspace") else {}
    switch = {f"use_{spacing}_sigmas": True} if spacing in ("karras", "exponential", "beta") else {}
    scheduler = build.make(name, TRAINED | LATENTS | own | switch | options | {"prediction_type": kind})
    expected = diffusers_loop(scheduler, steps, noise())
    model = Model(kind)
    sigmas = levels(name, model, steps, spacing="auto" if name in ONE_SPACING and not switch else spacing, final=final)
    found = from_noise(name, model, sigmas, mode="diffusers", **own, **options)
    return relative(found, expected * _model_space(name, sigmas[-1]))


def _model_space(name: str, sigma: Tensor) -> float:
    """What is left of the last noise is scaled down with the image in variance preserving latents."""
    return math.hypot(1, float(sigma)) if find(name).space == "vp" else 1.0


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", WITH_A_LOOP)
def test_latents_are_those_of_diffusers(name: str, kind: str, steps: int, spacing: str) -> None:
    assert within(compare(name, kind, steps, spacing), PARITY)


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("EulerDiscreteScheduler", "linspace"),
        ("HeunDiscreteScheduler", "linspace"),
        ("DPMSolverMultistepScheduler", "linspace"),
        ("EulerDiscreteScheduler", "karras"),
        ("LMSDiscreteScheduler", "karras"),
        ("DPMSolverMultistepScheduler", "karras"),
        ("DPMSolverSinglestepScheduler", "karras"),
        ("UniPCMultistepScheduler", "karras"),
        ("EulerDiscreteScheduler", "exponential"),
        ("EulerDiscreteScheduler", "beta"),
    ],
)
def test_other_spacings_are_those_of_diffusers(name: str, spacing: str) -> None:
    # Levels between the trained ones: the bridge finds their timesteps in log sigma, linspace's are linear in sigma.
    assert compare(name, "epsilon", 10, spacing) <= (2e-4 if spacing == "linspace" else PARITY)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DDIMScheduler", {"eta": 0.0}),
        ("DPMSolverMultistepScheduler", {"solver_order": 1}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}),
        ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
        ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("UniPCMultistepScheduler", {"solver_order": 3}),
        ("DEISMultistepScheduler", {"solver_order": 3}),
    ],
    ids=str,
)
def test_options_are_those_of_diffusers(name: str, options: dict[str, Any]) -> None:
    assert within(compare(name, "epsilon", 12, "leading", **options), PARITY)


@pytest.mark.parametrize(
    "name", ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"]
)
def test_an_image_is_changed_as_in_diffusers(name: str) -> None:
    """denoise 0.6 of 20 steps: a pipeline at strength 0.6 starts in the middle of its schedule."""
    first = 8 * build.scheduler_class(name).order
    image = noise().roll(1)
    model = Model("epsilon")
    sigmas = levels(name, model, 12, denoise=0.6, spacing="leading")
    x = image + sigmas[0] * noise()
    reference = build.make(name, TRAINED | LATENTS | {"timestep_spacing": "leading"})
    begun = x if find(name).space == "model" else x / math.hypot(1, float(sigmas[0]))
    expected = diffusers_loop(reference, 20, begun, skip=first)
    model.latent_image, model.noise = image, noise()
    assert len(sigmas) == 13
    assert within(relative(resume(name, model, x, sigmas), expected), PARITY)


def test_eta_draws_what_diffusers_draws() -> None:
    scheduler = build.make("DDIMScheduler", TRAINED | LATENTS)
    step = scheduler.step
    scheduler.step = lambda *args, generator=None, **kwargs: step(*args, eta=0.7, generator=generator, **kwargs)
    expected = diffusers_loop(scheduler, 10, noise())
    model = Model("epsilon")
    found = from_noise("DDIM", model, levels("DDIM", model, 10), mode="diffusers", eta=0.7)
    assert within(relative(found, expected), PARITY)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [8, 20])
def test_ddim_inverse_is_that_of_diffusers(kind: str, steps: int) -> None:
    image = noise()
    scheduler = build.make("DDIMInverseScheduler", TRAINED | LATENTS | {"prediction_type": kind})
    expected = diffusers_loop(scheduler, steps, image)
    model = Model(kind)
    sigmas = levels("DDIMInverse", model, steps)
    model.latent_image, model.noise = image, torch.zeros_like(image)
    found = resume("DDIMInverse", model, image, sigmas)
    assert within(relative(found, expected * math.hypot(1, float(sigmas[-1]))), PARITY)


@pytest.mark.parametrize("steps", [8, 20])
def test_ipndm_is_that_of_diffusers(steps: int) -> None:
    """diffusers' own schedule begins at infinite noise; `trained_betas` is how its class takes another."""
    model = Model("v_prediction")
    sigmas = levels("IPNDM", model, steps)
    betas = sigmas / (1 + sigmas**2).sqrt()
    scheduler = build.make("IPNDMScheduler", {"trained_betas": betas.tolist()})
    times = iter(model.model_sampling.timestep(sigmas[:-1]))
    expected = diffusers_loop(scheduler, steps, noise(), lambda x, _: network(x, next(times).expand(len(x))))
    assert within(relative(from_noise("IPNDM", model, sigmas), expected), PARITY)


@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_is_that_of_diffusers(name: str, steps: int) -> None:
    """Its pipelines tell the network a quarter of log sigma; here it gets Stable Diffusion's timesteps."""
    edm = {"sigma_data": 1.0, "sigma_min": 0.03, "sigma_max": 14.6, "prediction_type": "v_prediction"}
    scheduler = build.make(name, edm)
    scheduler.set_timesteps(steps)
    sigmas, model = scheduler.sigmas.clone(), Model("v_prediction")
    told = noise_levels.interpolated_timestep(model.model_sampling.log_sigmas, sigmas[:-1])
    times = iter(told if find(name).fractional else model.model_sampling.timestep(sigmas[:-1]))
    expected = diffusers_loop(scheduler, steps, noise(), lambda x, _: network(x, next(times).expand(len(x))))
    assert within(relative(from_noise(name, model, sigmas), expected), PARITY)


@pytest.mark.parametrize("steps", [8, 20])
def test_karras_ve_is_that_of_its_pipeline(steps: int) -> None:
    model = Model("epsilon")
    sigmas = levels("KarrasVe", model, steps)
    highest = float(sigmas[0])
    scheduler = build.make("KarrasVeScheduler", {"sigma_max": highest, "s_max": highest / math.sqrt(2)})
    scheduler.set_timesteps(steps)
    scheduler.schedule = sigmas[:-1].flip(0)
    generator = torch.Generator().manual_seed(SEED + 1)

    def direction(x: Tensor, sigma: Any) -> Tensor:
        return (model(x, torch.full((len(x),), float(sigma))) - x) / sigma

    sample = noise() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        sigma, lower = scheduler.schedule[t], scheduler.schedule[t - 1] if t > 0 else 0
        hat, level = scheduler.add_noise_to_input(sample, sigma, generator)
        out = scheduler.step(direction(hat, level), level, lower, hat)
        if lower != 0:
            again = direction(out.prev_sample, lower)
            out = scheduler.step_correct(again, level, lower, hat, out.prev_sample, out.derivative)
        sample = out.prev_sample
    assert within(relative(from_noise("KarrasVe", Model("epsilon"), sigmas), sample), PARITY)


@pytest.mark.parametrize("steps", [8, 20])
def test_score_sde_ve_is_that_of_its_pipeline(steps: int) -> None:
    model = Model("epsilon")
    scheduler = build.make("ScoreSdeVeScheduler", {"sigma_min": 0.03, "sigma_max": 14.6})
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    generator = torch.Generator().manual_seed(SEED + 1)
    levels_down = scheduler.discrete_sigmas.flip(0)
    sample = mean = noise() * scheduler.init_noise_sigma
    for sigma, t in zip(levels_down, torch.linspace(1, 0, steps), strict=True):

        def score(x: Tensor, sigma: Tensor = sigma) -> Tensor:
            return (model(x, sigma.expand(len(x))) - x) / sigma**2

        sample = scheduler.step_correct(score(sample), sample, generator).prev_sample
        # Its own timesteps end at 1e-5 and rounding makes them skip levels; these meet each once.
        index_time = (t * (steps - 1)).round() / (steps - 1) + 1e-4
        out = scheduler.step_pred(score(sample), index_time, sample, generator)
        sample, mean = out.prev_sample, out.prev_sample_mean
    sigmas = torch.cat([levels_down, torch.zeros(1)])
    assert within(relative(from_noise("ScoreSdeVe", Model("epsilon"), sigmas), mean), PARITY)


def flow_network(x: Tensor, t: Tensor) -> Tensor:
    return network(x, t) - x


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("DPMSolverMultistepScheduler", 8),
        ("DPMSolverMultistepScheduler", 20),
        ("DPMSolverSinglestepScheduler", 8),
        ("DPMSolverSinglestepScheduler", 20),
        ("UniPCMultistepScheduler", 8),
        ("UniPCMultistepScheduler", 20),
        # Below 15 it would lower its order at the end of one step more than it makes.
        ("DEISMultistepScheduler", 20),
    ],
)
def test_flow_is_that_of_use_flow_sigmas(name: str, steps: int) -> None:
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    scheduler = build.make(name, TRAINED | LATENTS | flow)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.clone()
    if sigmas[-1] == sigmas[-2]:
        # DEIS makes its last step from a level to the same level (diffusers issue 9971): it ends with the noise in.
        sigmas = sigmas[:-1]
    # A flow starts with (1 - sigma) of the image, which is empty; pipelines take the noise whole at any first level.
    expected = diffusers_loop(scheduler, steps, sigmas[0] * noise(), flow_network)
    told = scheduler.timesteps

    def whole(x: Tensor, t: Tensor) -> Tensor:
        """The network at the whole timesteps of diffusers, which cuts off their fractions."""
        nearest = (told - t[:1]).abs().argmin()
        assert (told[nearest] - t[:1]).abs() <= 1
        return flow_network(x, told[nearest].expand(len(x)))

    found = from_noise(name, Model("flow", whole), sigmas)
    # DEIS differs by 1e-4, in float64 too, so not by rounding.
    assert within(relative(found, expected), 5e-4 if name.startswith("DEIS") else PARITY)


@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
        ("FlowMatchEulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        ("FlowMatchHeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    ],
)
def test_flow_is_that_of_flow_match(name: str, native: str, steps: int) -> None:
    scheduler = build.make(native, {"shift": 3.0})
    scheduler.set_timesteps(steps)
    sigmas = torch.cat([scheduler.sigmas[:-1][:: scheduler.order], torch.zeros(1)])
    expected = diffusers_loop(scheduler, steps, noise(), flow_network)
    assert within(relative(from_noise(name, Model("flow", flow_network), sigmas), expected), PARITY)
