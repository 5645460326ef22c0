"""Which of ComfyUI's samplers and schedulers are which of diffusers': the table on the help page, measured."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from double_precision import double_precision
from margins import within
from scheduler_models import SEED, Model, levels, noise, relative, resume
from tessera.host.sampling.k_diffusion import SAMPLERS
from tessera.host.sampling.schedules import calculate_sigmas
from tessera.tools.scheduler_page import PAGE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
EQUAL = 5e-6
BOTH = ["epsilon", "flow"]
# ComfyUI's name, diffusers' name, options, kinds of models on which they are equal.
SAME: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("euler", "EulerDiscrete", {}, BOTH),
    ("euler", "DDIM", {}, BOTH),
    ("euler", "DPMSolverMultistep", {"solver_order": 1}, BOTH),
    ("heun", "HeunDiscrete", {}, BOTH),
    ("lcm", "LCM", {}, BOTH),
    ("dpm_2", "KDPM2Discrete", {}, ["flow"]),
    ("euler_ancestral", "EulerAncestralDiscrete", {}, ["epsilon"]),
    ("euler_ancestral", "DDPM", {}, ["epsilon"]),
    ("ddpm", "DDPM", {}, ["epsilon"]),
    ("dpm_2_ancestral", "KDPM2AncestralDiscrete", {}, ["epsilon"]),
    ("dpmpp_2m", "DPMSolverMultistep", {}, ["epsilon"]),
    ("res_multistep", "DPMSolverMultistep", {"solver_type": "heun"}, ["epsilon"]),
]
OTHER = ["lms", "ipndm", "ipndm_v", "deis", "uni_pc", "uni_pc_bh2"]
SAME_LEVELS = [
    ("simple", "trailing", 20),
    # At whole timesteps; between two, one interpolates sigma and the other its logarithm.
    ("normal", "linspace", 28),
    ("ddim_uniform", "leading", 20),
    ("karras", "karras", 20),
    ("exponential", "exponential", 20),
]


def both(kind: str, comfyui: str, diffusers: str, options: dict[str, Any]) -> float:
    """The difference on the same levels, noise and seed."""
    model: Any = Model(kind)
    model.get_model_object = lambda name: model.model_sampling
    model.inner_model = SimpleNamespace(inner_model=model, model_patcher=model)
    sigmas = calculate_sigmas(model.model_sampling, "simple", 20)
    x = model.model_sampling.noise_scaling(sigmas[0], noise(), torch.zeros_like(noise()))
    theirs = SAMPLERS[comfyui](model, x, sigmas.clone(), {"seed": SEED})
    return relative(resume(diffusers, model, x, sigmas, **options), theirs)


@pytest.mark.parametrize(
    ("kind", "comfyui", "diffusers", "options"), [(kind, *names) for *names, kinds in SAME for kind in kinds], ids=str
)
def test_these_are_equal(kind: str, comfyui: str, diffusers: str, options: dict[str, Any]) -> None:
    with double_precision():
        assert within(both(kind, comfyui, diffusers, options), EQUAL)


@pytest.mark.parametrize("comfyui", OTHER)
def test_these_are_not(comfyui: str) -> None:
    names = {
        "lms": "LMSDiscrete",
        "ipndm": "IPNDM",
        "ipndm_v": "IPNDM",
        "deis": "DEISMultistep",
        "uni_pc": "UniPCMultistep",
        "uni_pc_bh2": "UniPCMultistep",
    }
    assert both("epsilon", comfyui, names[comfyui], {}) > 1e-4


@pytest.mark.parametrize(("comfyui", "spacing", "steps"), SAME_LEVELS)
def test_these_levels_are_equal(comfyui: str, spacing: str, steps: int) -> None:
    model = Model("epsilon")
    found = levels("EulerDiscrete", model, steps, spacing=spacing)
    assert within(relative(found, calculate_sigmas(model.model_sampling, comfyui, steps)), EQUAL)


def test_simple_levels_are_those_of_flows() -> None:
    model = Model("flow")
    assert torch.equal(levels("DDIM", model, 20), calculate_sigmas(model.model_sampling, "simple", 20))


def test_the_page_says_so() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for comfyui, diffusers, _, _ in SAME:
        assert re.search(rf"\| {comfyui} \|.*\b{diffusers}\b", page), comfyui
    for comfyui, spacing, _ in SAME_LEVELS:
        assert re.search(rf"\| {comfyui} \|.*\b{spacing}\b", page), comfyui
    for comfyui in OTHER:
        assert comfyui in page
