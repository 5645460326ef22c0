"""The bridge as a sampler: any noise levels, masks, parts of a run, callbacks, noise, wrong input."""

from __future__ import annotations

import itertools
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from naming import naming
from scheduler_models import SEED, Flow, Model, from_noise, levels, model_sampling, noise, relative, resume
from tessera.host.sampling.samplers import KSAMPLER
from tessera.patching import model_sampling as noise_levels
from tessera.samplers import build, sampler, spacing
from tessera.samplers.bridge import Bridge
from tessera.samplers.registry import ENTRIES, NAMES, SchedulerEntry, find
from tessera.samplers.report import model_calls
from torch import Tensor

# numpy's about diffusers, and torchsde's about rounding.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Should have")
KINDS = ["epsilon", "flow"]
FORWARD = [entry.name for entry in ENTRIES if not entry.rising]
DETERMINISTIC = [entry.name for entry in ENTRIES if not entry.noise and not entry.rising]
ONE_STEP = [name for name in DETERMINISTIC if find(name).family == "one step"]
PEAK = 0.9
WIDTH = (1 - PEAK**2) ** 0.5


def two_peaks(kind: str) -> Any:
    """The exact denoiser of values around +-0.9 whose spread is 1: what is sampled has that spread too."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        signal = 1 - sigma if kind == "flow" else torch.ones_like(sigma)
        variance = (signal * WIDTH) ** 2 + sigma**2
        side = torch.tanh(signal * PEAK * x / variance)
        return side * PEAK * sigma**2 / variance + signal * WIDTH**2 * x / variance

    return denoise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORWARD)
def test_many_steps_reach_the_distribution(name: str, kind: str) -> None:
    model = Model(kind, denoiser=two_peaks(kind))
    sampled = from_noise(name, model, levels(name, model, 200), noise((4, 4, 16, 16)))
    assert 0.9 < sampled.std() < 1.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORWARD)
def test_few_steps_are_finite_and_call_as_reported(name: str, kind: str) -> None:
    for steps in (1, 2, 3, 4):
        model = Model(kind, denoiser=two_peaks(kind))
        sigmas = levels(name, model, steps)
        assert from_noise(name, model, sigmas).isfinite().all()
        assert len(model.calls) == model_calls(find(name), sigmas)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_run_call_as_reported(name: str) -> None:
    """A part ends above zero, where schedulers with a second call a step make it in the last step, too."""
    for steps in (1, 2, 5):
        model = Model("epsilon", denoiser=two_peaks("epsilon"))
        sigmas = levels(name, model, 8)[: steps + 1]
        from_noise(name, model, sigmas)
        assert len(model.calls) == model_calls(find(name), sigmas)


@pytest.mark.parametrize("kind", [*KINDS, "v_prediction"])
@pytest.mark.parametrize("name", FORWARD)
def test_the_callback_comes_once_a_step(name: str, kind: str) -> None:
    model, seen = Model(kind), []
    sigmas = levels(name, model, 5)
    x = model.model_sampling.noise_scaling(sigmas[0], noise(), torch.zeros_like(noise()), True)
    choice = sampler.Choice(find(name))
    sampler.sample(model, x, sigmas, {"seed": 0}, lambda step: seen.append((step["i"], step["sigma"])), choice=choice)
    assert seen == list(enumerate(sigmas[:-1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ONE_STEP)
def test_two_halves_make_a_whole(name: str, kind: str) -> None:
    """Heun, KDPM2: the first half ends as exactly as a step in the middle."""
    model = Model(kind)
    sigmas = levels(name, model, 12, spacing="trailing")
    whole = from_noise(name, model, sigmas)
    half = from_noise(name, model, sigmas[:7])
    model.latent_image = half
    assert within(relative(resume(name, model, half, sigmas[6:]), whole), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORWARD)
def test_a_run_may_end_with_noise_left(name: str, kind: str) -> None:
    """Its spread is that of the noise level, stochastic schedulers included."""
    model = Model(kind, denoiser=two_peaks(kind))
    sigmas = levels(name, model, 60, spacing="trailing")[:41]
    sampled, last = from_noise(name, model, sigmas, noise((4, 4, 16, 16))), float(sigmas[-1])
    expected = math.hypot(1 - last, last) if kind == "flow" else math.hypot(1, last)
    # LCM puts the average image under the noise.
    assert abs(sampled.std() / expected - 1) < (0.25 if name == "LCMScheduler" else 0.06)


class Guider:
    """A model with what KSAMPLER asks of a guider."""

    def __init__(self, kind: str) -> None:
        self.model = Model(kind)
        self.inner_model = self
        self.model_sampling = self.model.model_sampling

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return self.model(x, sigma)

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **kwargs: Any) -> Tensor:
        return self.model_sampling.noise_scaling(sigma.reshape(-1, 1, 1, 1), noise, latent_image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORWARD)
def test_inpainting_keeps_the_rest(name: str, kind: str) -> None:
    image, mask = noise().roll(1), torch.zeros(2, 4, 8, 8)
    mask[..., :4] = 1
    guider: Any = Guider(kind)
    for denoise in (1.0, 0.5):
        sigmas = levels(name, guider.model, 8, denoise=denoise)
        made = KSAMPLER(sampler.sample, {"choice": sampler.Choice(find(name))})
        out = made.sample(guider, sigmas, {"seed": SEED}, None, noise(), image, mask)
        assert within(relative(out[..., 4:], image[..., 4:]), 1e-5)
        assert (out - image)[..., :4].abs().max() > 0.1


@pytest.mark.parametrize(("kind", "bounds"), [("epsilon", (0.1, 0.05, 0.02)), ("flow", (0.13, 0.06, 0.03))])
def test_inversion_and_back_returns_the_image(kind: str, bounds: tuple[float, ...]) -> None:
    image = from_noise("DDIM", Model(kind, denoiser=two_peaks(kind)), levels("DDIM", Model(kind), 50))
    for steps, bound in zip((20, 50, 200), bounds, strict=True):
        model = Model(kind, denoiser=two_peaks(kind))
        up = levels("DDIMInverse", model, steps)
        model.latent_image, model.noise = image, torch.zeros_like(image)
        noised = resume("DDIMInverse", model, image, up)
        model.latent_image = noised
        back = resume("DDIM", model, noised, up.flip(0))
        assert (back - image).square().mean().sqrt() / image.std() < bound


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.noise])
def test_noise_follows_the_seed(name: str) -> None:
    model = Model("epsilon")
    sigmas = levels(name, model, 6)
    first, again = (from_noise(name, model, sigmas) for _ in range(2))
    assert torch.equal(first, again)
    choice = sampler.Choice(find(name))
    other = sampler.sample(model, noise() * sigmas[0], sigmas, {"seed": SEED + 1}, choice=choice)
    assert relative(other, first) > 0.01


def test_steps_do_not_repeat_the_initial_noise() -> None:
    generator = sampler.make_generator("portable", SEED, noise().shape)
    assert not torch.equal(torch.randn(noise().shape, generator=generator), noise())
    pipeline = torch.Generator().manual_seed(SEED)
    assert torch.equal(torch.randn(noise().shape, generator=pipeline), noise())
    after = sampler.make_generator("diffusers", SEED, noise().shape)
    assert torch.equal(torch.randn(4, generator=after), torch.randn(4, generator=pipeline))
    assert sampler.make_generator("portable", 2**64 - 1, noise().shape).initial_seed() == 0


def test_an_empty_latent_starts_as_a_pipeline_does() -> None:
    """Euler's strength depends on the spacing: sigma for trailing, sqrt(1 + sigma^2) for leading."""
    model, seen = Model("epsilon"), []
    sigmas = levels("EulerDiscrete", model, 4)
    model.latent_image, model.noise = torch.zeros_like(noise()), noise()
    for kind, strength in (("leading", math.hypot(1, float(sigmas[0]))), ("trailing", float(sigmas[0]))):
        choice = sampler.Choice(find("EulerDiscrete"), {"timestep_spacing": kind})
        sampler.sample(model, torch.zeros_like(noise()), sigmas, {}, lambda step: seen.append(step["x"]), choice=choice)
        assert torch.allclose(seen[-4], noise() * strength)


@given(st.lists(st.floats(0.01, 14), min_size=2, max_size=12, unique=True), st.sampled_from(FORWARD))
@settings(max_examples=40, deadline=None)
def test_any_falling_levels_work(values: list[float], name: str) -> None:
    sigmas = torch.tensor(sorted(values, reverse=True))
    gaps = (sigmas[:-1] / sigmas[1:]).log()
    if gaps.min() < 0.01:
        return
    model = Model("epsilon", denoiser=two_peaks("epsilon"))
    assert resume(name, model, noise() * sigmas[0], sigmas).isfinite().all()


@given(st.sampled_from(["ve", "vp"]), st.booleans(), st.floats(0.01, 0.99))
def test_the_bridge_is_exact(space: Any, flow: bool, sigma: float) -> None:
    bridge = Bridge(space, flow)
    x0, n = noise().double(), noise().double().roll(1)
    x = (1 - sigma) * x0 + sigma * n if flow else x0 + sigma * n
    rho = float(bridge.rho(torch.tensor(sigma, dtype=torch.float64), 1.0))
    assert bridge.sigma(rho) == pytest.approx(sigma)
    sample = x * bridge.scale(rho)
    kept = 1 / math.hypot(1, rho)
    expected = (x0 + rho * n) * (kept if space == "vp" else 1)
    assert torch.allclose(sample, expected)
    assert torch.allclose(bridge.predict("epsilon", sample, x0, rho), n)
    assert torch.allclose(bridge.predict("v_prediction", sample, x0, rho), kept * n - rho * kept * x0)


def test_timesteps_between_the_trained_ones_last_for_the_run() -> None:
    space = model_sampling("epsilon")
    between = (space.sigmas[500] * space.sigmas[501]).sqrt().reshape(1)
    assert space.timestep(between) in (500, 501)
    with pytest.raises(KeyError), noise_levels.fractional_timesteps(space):
        assert space.timestep(between).item() == pytest.approx(500.5, abs=0.01)
        assert space.timestep(space.sigmas[[3, 999]]).tolist() == [3, 999]
        raise KeyError
    assert "timestep" not in vars(space)


def test_flows_keep_their_timesteps() -> None:
    space = Flow()
    with noise_levels.fractional_timesteps(space):
        assert "timestep" not in vars(space)


@pytest.mark.parametrize("kind", [*KINDS, "v_prediction"])
@pytest.mark.parametrize("name", NAMES)
def test_every_spacing_gives_ordered_levels(name: str, kind: str) -> None:
    space = model_sampling(kind)
    for asked in spacing.SPACINGS:
        if asked == "flow" and kind != "flow":
            continue
        for steps, denoise in ((1, 1.0), (7, 1.0), (20, 0.5)):
            sigmas = spacing.sigmas(find(name), space, steps, denoise, asked)
            sampler.check_sigmas(find(name), sigmas)
            assert len(sigmas) == steps + 1
            assert sigmas.max() <= space.sigmas[-1]


def test_levels_without_denoise_are_none() -> None:
    assert len(spacing.sigmas(find("DDIM"), model_sampling("epsilon"), 20, 0.0)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, naming("steps", 0, 1, 1000)),
        ({"steps": 1001}, naming("steps", 1001, 1, 1000)),
        ({"denoise": 1.5}, naming("denoise", 1.5)),
        (
            {"steps": 30, "denoise": 0.5, "scheduler": "LCMScheduler", "options": {"original_inference_steps": 50}},
            naming("original_inference_steps", 50, 60),
        ),
        ({"spacing": "karas"}, naming("spacing", "karas")),
        ({"spacing": "flow"}, "not a rectified flow"),
    ],
)
def test_wrong_levels_are_refused(arguments: dict[str, Any], message: str) -> None:
    entry = find(arguments.get("scheduler", "DDIM"))
    given = {name: value for name, value in arguments.items() if name != "scheduler"}
    with pytest.raises(ValueError, match=message):
        spacing.sigmas(entry, model_sampling("epsilon"), **{"steps": 20, **given})


@pytest.mark.parametrize(
    ("name", "sigmas", "message"),
    [
        ("DDIM", [], naming("sigmas", 0, 2)),
        ("DDIM", [3.0], naming("sigmas", 1, 2)),
        ("DDIM", [0.0, 1.0, 3.0], "DDIMInverseScheduler"),
        ("DDIM", [3.0, 3.0, 0.0], "falling"),
        ("DDIM", [3.0, math.nan, 0.0], "finite"),
        ("DDIMInverse", [3.0, 1.0, 0.0], "rising"),
    ],
)
def test_wrong_sigmas_are_refused(name: str, sigmas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resume(name, Model("epsilon"), noise(), torch.tensor(sigmas))


def test_a_name_may_leave_out_scheduler() -> None:
    assert find("DDIM") is find("DDIMScheduler")
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler"):
        find("DPMSolverMultstep")


def test_options_that_do_not_apply_are_refused() -> None:
    build.check_options(find("DDIM"), {"eta": 0.5})
    with pytest.raises(ValueError, match=naming("solver_order", "DDIMScheduler")):
        build.check_options(find("DDIM"), {"solver_order": 2})


def test_every_option_is_known_to_its_scheduler() -> None:
    for entry in ENTRIES:
        kind = build.scheduler_class(entry.name)
        step = getattr(kind, "step", None)
        known = build.parameters(entry.name) | set(step.__code__.co_varnames if step else ())
        assert set(entry.options) | set(entry.config) <= known


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_is_named_with_its_step(value: float) -> None:
    calls = iter(range(10))
    model = Model("epsilon", denoiser=lambda x, sigma: x * (value if next(calls) == 2 else 0.5))
    with pytest.raises(RuntimeError, match=naming("step 3 of 5", "sigma", "DDIMScheduler")):
        from_noise("DDIM", model, levels("DDIM", model, 5))


def test_a_run_can_be_interrupted_before_every_call() -> None:
    model, calls = Model("epsilon"), []

    def check() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedError

    sigmas = levels("HeunDiscrete", model, 5)
    with pytest.raises(InterruptedError):
        choice = sampler.Choice(find("HeunDiscrete"))
        sampler.sample(model, noise() * sigmas[0], sigmas, {}, choice=choice, check=check)
    assert len(model.calls) == 3
    assert "timestep" not in vars(model.model_sampling)


# ScoreSdeVe reads an index back from the device, DPMSolverSDE makes a generator for it: both need a real one.
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("ScoreSdeVeScheduler", "DPMSolverSDEScheduler")])
@pytest.mark.parametrize("kind", KINDS)
def test_latents_stay_on_their_device_and_tables_on_the_cpu(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta latents stand for those of a GPU: no scheduler mixes devices; only the check for numbers waits for it."""
    read, seen = Tensor.item, []
    monkeypatch.setattr(Tensor, "item", lambda x: seen.append(1) or 0.0 if x.is_meta else read(x))
    model: Any = Model(kind, denoiser=lambda x, sigma: x * 0.5)
    sigmas = levels(name, model, 6)
    x = torch.empty(2, 4, 8, 8, device="meta")
    out = sampler.sample(model, x, sigmas, {"seed": 1}, choice=sampler.Choice(find(name)))
    assert (out.device, out.dtype) == (x.device, x.dtype)
    assert len(seen) == len(model.calls)


def test_missing_diffusers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RuntimeError, match="pip install 'diffusers>="):
        build.scheduler_class("DDIMScheduler")


def test_an_old_diffusers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(__version__="0.10.0")
    monkeypatch.setitem(sys.modules, "diffusers", old)
    with pytest.raises(RuntimeError, match=naming("diffusers", "0.10.0", "LCMScheduler")):
        build.scheduler_class("LCMScheduler")


def test_missing_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.utils import DummyObject  # pyright: ignore[reportPrivateImportUsage]

    dummy = DummyObject("LMSDiscreteScheduler", (), {"_backends": ["torch", "scipy"]})
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(__version__="1", LMSDiscreteScheduler=dummy))
    with pytest.raises(RuntimeError, match=naming("LMSDiscreteScheduler", "pip install torch scipy")):
        build.scheduler_class("LMSDiscreteScheduler")


CHOICES = {
    "solver_order": [1, 2, 3],
    "solver_type": ["midpoint", "heun"],
    "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if set(CHOICES) & set(entry.options)])
def test_options_that_are_taken_have_a_step(entry: SchedulerEntry) -> None:
    """Every combination is refused before the run, or diffusers' class makes finite steps of it."""
    applying = [name for name in CHOICES if name in entry.options]
    for values in itertools.product(*([None, *CHOICES[name]] for name in applying)):
        options = {name: value for name, value in zip(applying, values, strict=True) if value is not None}
        try:
            build.check_options(entry, options)
        except ValueError:
            assert entry.lacks.items() <= options.items(), options
            continue
        scheduler = build.make(entry.name, {**entry.config, **options})
        scheduler.set_timesteps(6)
        x, fresh = torch.ones(1, 1, 2, 2), torch.Generator().manual_seed(0)
        for time in scheduler.timesteps:
            x = scheduler.step(x / 2, time, x, **build.only_known(scheduler.step, {"generator": fresh})).prev_sample
        assert x.isfinite().all(), options
