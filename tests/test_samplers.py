"""Samplers, schedules and conditioning batches against ComfyUI's own results and against their slow obvious forms.

`data/comfyui_samplers.safetensors` holds what ComfyUI made, in float64, of the closed-form denoiser of `sampler_cases`;
its header names the version. Each case says how the run was set up. `comfyui/sample_closed_form.py` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from double_precision import double_precision
from margins import within
from naming import naming
from safetensors import safe_open
from sampler_cases import Analytic, Case, area_prompts, image, mask, prompts, settings, texts
from tessera.host.models import latent_formats, model_base
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling import cond_batch, conds, guidance, ksampler, noise, samplers, schedules
from torch import Tensor

GOLDEN = Path(__file__).parent / "data" / "comfyui_samplers.safetensors"
# Of float64, of which the least well-conditioned run keeps 11 digits; float32 has 7 at best.
TOLERANCE = 1e-9


def analytic_model(kind: str = "EPS", zsnr: bool = False) -> ModelPatcher:
    made = model_base.SD15(Analytic(kind), model_base.ModelType[kind], settings(kind, zsnr))
    return ModelPatcher(made, "cpu", "cpu")


def run(case: Case, model: ModelPatcher | None = None) -> Tensor:
    model = model or analytic_model(case["type"], case.get("zsnr", False))
    latent = image() if case.get("image") else torch.zeros_like(image())
    start = noise.prepare_noise(latent, case["seed"], case.get("batch_index"))
    if not case.get("add_noise", True):
        start = noise.prepare_empty_noise(latent)
    positive, negative = prompts(case.get("conds"))
    steps = ksampler.KSampler(model, case["steps"], case["sampler"], case["scheduler"], case.get("denoise", 1.0))
    return steps.sample(
        start,
        positive,
        negative,
        case["cfg"],
        latent,
        case.get("start"),
        case.get("last"),
        case.get("full", False),
        mask() if case.get("mask") else None,
        seed=case["seed"],
    )


def golden_cases() -> list[Any]:
    with safe_open(GOLDEN, "pt") as file:
        cases = json.loads(file.metadata()["cases"])
    return [pytest.param(i, case, id=f"{i}-{case['type']}-{case['sampler']}") for i, case in enumerate(cases)]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a file, not a dictionary


@pytest.mark.filterwarnings("ignore:Should have")
@pytest.mark.parametrize(("index", "case"), golden_cases())
def test_sampler_gives_comfyui_latents(index: int, case: Case, golden: dict[str, Tensor]) -> None:
    expected = golden["latents"][index]
    with double_precision():
        found = run(case)
    assert found.dtype == torch.float64
    assert within((found - expected).abs().max() / expected.abs().max(), TOLERANCE)


@contextmanager
def noise_of_float32() -> Iterator[None]:
    """Let float64 be drawn as float32: torch has another stream for each."""
    own, single = torch.randn, torch.float32

    def randn(*args: Any, **kwargs: Any) -> Tensor:
        return own(*args, **kwargs | {"dtype": single}).double()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", randn)
        yield


@pytest.mark.filterwarnings("ignore:Should have")
@pytest.mark.parametrize("name", samplers.SAMPLER_NAMES)
def test_sampler_in_float32_is_that_of_float64(name: str) -> None:
    case: Case = {"type": "FLUX", "sampler": name, "scheduler": "simple", "steps": 6, "cfg": 3.0, "seed": 7}
    single = run(case)
    with noise_of_float32(), double_precision():
        double = run(case)
    assert single.dtype == torch.float32
    assert within((single - double).abs().max() / double.abs().max(), 1e-3)


def test_areas_blend_as_in_comfyui(golden: dict[str, Tensor]) -> None:
    with double_precision():
        latent = torch.zeros(1, 4, 16, 16)
        steps = ksampler.KSampler(analytic_model(), 2, "euler", "normal")
        got = steps.sample(noise.prepare_noise(latent, 7), *area_prompts(), 3.0, latent, seed=7)
    torch.testing.assert_close(got, golden["areas"], rtol=TOLERANCE, atol=TOLERANCE)


def test_noise_is_that_of_comfyui(golden: dict[str, Tensor]) -> None:
    latent = torch.zeros(2, 4, 4, 4)
    torch.testing.assert_close(noise.prepare_noise(latent, 7), golden["noise"], rtol=0, atol=1e-5)
    torch.testing.assert_close(noise.prepare_noise(latent, 7, [3, 1]), golden["noise/rows"], rtol=0, atol=1e-5)


def test_golden_file_covers_every_name() -> None:
    cases = [param.values[1] for param in golden_cases()]
    assert {case["sampler"] for case in cases} == set(samplers.SAMPLER_NAMES)
    assert {case["scheduler"] for case in cases} == set(schedules.SCHEDULER_NAMES)


def test_schedules_give_comfyui_sigmas(golden: dict[str, Tensor]) -> None:
    compared = 0
    for key, expected in golden.items():
        if key.startswith("sigmas/"):
            _, kind, scheduler, steps = key.split("/")
            with double_precision():
                sampling = analytic_model(kind).get_model_object("model_sampling")
                sigmas = schedules.calculate_sigmas(sampling, scheduler, int(steps))
            torch.testing.assert_close(sigmas, expected, rtol=TOLERANCE, atol=0.0)
            compared += 1
    assert compared == 4 * (4 * len(schedules.SCHEDULER_NAMES) - 1)


@pytest.mark.parametrize("scheduler", schedules.SCHEDULER_NAMES)
def test_schedules_fall_to_zero(scheduler: str) -> None:
    sigmas = schedules.calculate_sigmas(analytic_model().get_model_object("model_sampling"), scheduler, 12)
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=naming("sampler", "eular", "euler")):
        samplers.sampler_object("eular")
    with pytest.raises(ValueError, match=naming("scheduler", "karas", "simple")):
        ksampler.KSampler(analytic_model(), 4, "euler", "karas")


BASE: Case = {"type": "EPS", "sampler": "euler", "scheduler": "normal", "steps": 4, "cfg": 3.0, "seed": 5}


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m_sde", "uni_pc", "euler_ancestral"])
@pytest.mark.filterwarnings("ignore:Should have")
def test_same_seed_gives_the_same_bits(name: str) -> None:
    case = BASE | {"sampler": name}
    assert torch.equal(run(case), run(case))
    assert not torch.equal(run(case), run(case | {"seed": 6}))


def test_batch_equals_single_runs_with_the_same_noise() -> None:
    batch = run(BASE)
    single = analytic_model()
    positive, negative = prompts(None)
    for i in range(2):
        latent = torch.zeros(1, 4, 4, 4)
        steps = ksampler.KSampler(single, 4, "euler", "normal")
        alone = steps.sample(noise.prepare_noise(latent, 5, [i]), positive, negative, 3.0, latent)
        torch.testing.assert_close(alone[0], batch[i], rtol=1e-5, atol=1e-5)


def test_noise_by_batch_index_is_a_row_of_the_whole_batch() -> None:
    whole = torch.cat([noise.prepare_noise(torch.zeros(1, 4, 8, 8), 3, [i]) for i in range(4)])
    assert torch.equal(noise.prepare_noise(torch.zeros(2, 4, 8, 8), 3, [3, 1]), whole[[3, 1]])
    assert not torch.equal(whole[0], whole[1])


def test_no_denoise_and_no_steps_left_return_the_image() -> None:
    assert torch.equal(run(BASE | {"denoise": 0.0, "image": True}), image())
    assert torch.equal(run(BASE | {"start": 4, "image": True}), image())


def test_masked_cells_keep_the_image() -> None:
    out = run(BASE | {"image": True, "mask": True, "denoise": 0.7})
    kept = torch.arange(4) % 4 == 0
    torch.testing.assert_close(out[..., kept], image()[..., kept])
    assert (out[..., 3] - image()[..., 3]).abs().mean() > 0.1


def test_denoise_mask_function_replaces_the_mask_at_every_step() -> None:
    model = analytic_model()
    seen: list[float] = []

    def whole(sigma: Tensor, mask: Tensor, extra_options: dict[str, Any]) -> Tensor:
        seen.append(float(sigma[0]))
        return torch.ones_like(mask)

    model.set_model_denoise_mask_function(whole)
    case = BASE | {"image": True, "mask": True}
    torch.testing.assert_close(run(case, model), run(BASE | {"image": True}))
    assert len(seen) == 4


def test_an_empty_latent_is_no_image_also_where_zero_is_a_colour() -> None:
    model = analytic_model("FLUX")
    model.model.latent_format = latent_formats.Flux()
    seen: list[Tensor] = []

    class Look(samplers.Sampler):
        def sample(self, *args: Any, **kwargs: Any) -> Tensor:
            seen.append(args[5])
            return args[4]

    positive, negative = prompts(None)
    for latent in (torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 4, 4)):
        ksampler.sample(model, latent, positive, negative, 1.0, Look(), torch.tensor([1.0, 0.0]), latent)
    assert not seen[0].any()
    assert torch.equal(seen[1], model.model.process_latent_in(torch.ones(1, 4, 4, 4)))


def test_sigmas_of_the_caller_are_not_changed() -> None:
    steps = ksampler.KSampler(analytic_model(), 4, "euler", "normal")
    before = steps.sigmas.clone()
    empty, (some, other) = torch.zeros(1, 4, 4, 4), prompts(None)
    steps.sample(empty, some, other, 2.0, empty, last_step=2, force_full_denoise=True)
    assert torch.equal(steps.sigmas, before)
    sigmas = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.0])
    positive, negative = prompts(None)
    latent = torch.zeros(1, 4, 4, 4)
    sampler = samplers.sampler_object("uni_pc")
    ksampler.sample(analytic_model(), noise.prepare_noise(latent, 1), positive, negative, 2.0, sampler, sigmas, latent)
    assert sigmas[-1] == 0


def network(model: ModelPatcher) -> Analytic:
    return model.model.diffusion_model


def test_positive_and_negative_share_one_call() -> None:
    model = analytic_model()
    run(BASE, model)
    assert network(model).batches == [4] * 4


def test_cfg_1_leaves_out_the_negative_unless_told_otherwise() -> None:
    model = analytic_model()
    run(BASE | {"cfg": 1.0}, model)
    assert network(model).batches == [2] * 4
    both = analytic_model()
    both.disable_model_cfg1_optimization()
    torch.testing.assert_close(run(BASE | {"cfg": 1.0}, both), run(BASE | {"cfg": 1.0}))
    assert network(both).batches == [4] * 4


def started(model: ModelPatcher, kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """The prepared conditionings of a model in the middle of a run."""
    model.pre_run()
    positive, negative = prompts(kind)
    named = {"positive": conds.convert_cond(positive), "negative": conds.convert_cond(negative)}
    return conds.process_conds(model.model, image(), named, "cpu")


@pytest.mark.parametrize("kind", [None, "areas", "masks", "percents", "lengths"])
def test_batched_predictions_equal_separate_ones(kind: str | None) -> None:
    model = analytic_model()
    prepared = started(model, kind)
    sigma = torch.full((2,), 3.0)
    groups = [prepared["positive"], prepared["negative"]]
    together = cond_batch.calc_cond_batch(model.model, groups, image(), sigma, {})
    for group, prediction in zip(groups, together, strict=True):
        alone = cond_batch.calc_cond_batch(model.model, [group], image(), sigma, {})[0]
        torch.testing.assert_close(alone, prediction)


def test_overlapping_conditionings_are_a_mean_weighted_by_strength() -> None:
    model = analytic_model()
    pos, neg = texts()
    model.pre_run()
    named = {"positive": conds.convert_cond([[pos, {"strength": 3.0}], [neg, {}]])}
    prepared = conds.process_conds(model.model, image(), named, "cpu")["positive"]
    sigma = torch.full((2,), 3.0)
    first, second, both = (
        cond_batch.calc_cond_batch(model.model, [group], image(), sigma, {})[0]
        for group in ([prepared[0]], [prepared[1]], prepared)
    )
    torch.testing.assert_close(both, (3 * first + second) / 4)


def test_no_conditioning_in_force_predicts_zeros() -> None:
    model = analytic_model()
    started(model)
    out = cond_batch.calc_cond_batch(model.model, [[], None], image(), torch.full((2,), 3.0), {})
    assert all(torch.equal(prediction, torch.zeros_like(image())) for prediction in out)


def test_guidance_functions_get_and_change_the_predictions() -> None:
    model = analytic_model()
    model.set_model_sampler_cfg_function(lambda args: args["uncond"] + 3.0 * (args["cond"] - args["uncond"]))
    plain = run(BASE)
    torch.testing.assert_close(run(BASE | {"cfg": 50.0}, model), plain)
    old_style = analytic_model()
    old_style.set_model_sampler_cfg_function(lambda cond, uncond, scale: uncond + scale * (cond - uncond))
    torch.testing.assert_close(run(BASE, old_style), plain)
    swapped = analytic_model()
    swapped.set_model_sampler_pre_cfg_function(lambda args: [args["conds_out"][1], args["conds_out"][0]])
    swapped.set_model_sampler_post_cfg_function(
        lambda args: args["uncond_denoised"] + 3.0 * (args["cond_denoised"] - args["uncond_denoised"])
    )
    swapped.set_model_sampler_post_cfg_function(lambda args: 2 * args["denoised"])
    sigma = torch.full((2,), 3.0)
    prepared = started(swapped)
    options = swapped.model_options
    got = guidance.sampling_function(
        swapped.model, image(), sigma, prepared["negative"], prepared["positive"], 9.0, options
    )
    neg, pos = cond_batch.calc_cond_batch(
        swapped.model, [prepared["negative"], prepared["positive"]], image(), sigma, {}
    )
    torch.testing.assert_close(got, 2 * (pos + 3.0 * (neg - pos)))


def test_model_function_wrapper_surrounds_the_model() -> None:
    model = analytic_model()
    orders: list[list[int]] = []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        orders.append(args["cond_or_uncond"])
        assert args["c"]["transformer_options"]["cond_or_uncond"] == args["cond_or_uncond"]
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(wrapper)
    assert torch.equal(run(BASE, model), run(BASE))
    assert orders == [[1, 0]] * 4


def test_mask_bounds_become_an_area() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, 4:20, 6:30] = 1.0
    cond = conds.resolve_area_and_mask({"mask": mask, "set_area_to_bounds": True}, 32, 32, torch.device("cpu"))
    assert cond["area"] == (16, 24, 4, 6)
    empty = conds.mask_bounds(torch.zeros(1, 32, 32))
    assert empty == (8, 8, 0, 0)
