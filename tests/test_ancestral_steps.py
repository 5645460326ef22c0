"""Steps at the limits of samplers: more noise than a level has, and levels that rise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tessera.host.models.model_base import ModelType, model_sampling
from tessera.host.sampling.k_diffusion import SAMPLERS
from torch import Tensor

START = torch.linspace(-2, 2, 24).reshape(2, 3, 2, 2)
TARGET = 0.3
"""What the denoiser predicts everywhere and always: every solver is exact for it."""


class Denoiser:
    def __init__(self, kind: ModelType) -> None:
        patcher = SimpleNamespace(get_model_object=lambda name: model_sampling(None, kind))
        self.inner_model = SimpleNamespace(model_patcher=patcher)

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        for change in extra.get("model_options", {}).get("sampler_post_cfg_function", []):
            change({"denoised": x, "uncond_denoised": torch.full_like(x, TARGET)})
        return torch.full_like(x, TARGET)


def run(name: str, sigmas: list[float], kind: ModelType = ModelType.EPS, **options: Any) -> tuple[Tensor, list[float]]:
    """The result, and the levels up to which noise was added."""
    levels: list[float] = []

    def noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        levels.append(float(sigma_next))
        return torch.ones_like(START)

    made = SAMPLERS[name](Denoiser(kind), START.clone(), torch.tensor(sigmas), noise_sampler=noise, **options)
    return made, levels


@pytest.mark.parametrize("sigmas", [[9.0, 8.0, 5.0, 1.0], [4500.0, 1.0]])
@pytest.mark.parametrize("name", ["euler_ancestral", "dpm_2_ancestral"])
def test_where_all_would_be_noise_none_is_added(name: str, sigmas: list[float]) -> None:
    """As in ComfyUI: a step that would begin again from noise alone goes to the prediction."""
    made, levels = run(name, sigmas, eta=100.0)
    assert levels == []
    torch.testing.assert_close(made, torch.full_like(START, TARGET))


@pytest.mark.parametrize("name", ["dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp"])
def test_second_order_steps_begin_again_from_noise(name: str) -> None:
    made, levels = run(name, [9.0, 8.0, 5.0, 1.0], eta=100.0)
    assert levels == [8.0, 5.0, 1.0]
    torch.testing.assert_close(made, torch.full_like(START, TARGET + 1.0))


def test_a_flow_adds_its_noise_whatever_eta_is() -> None:
    made, levels = run("euler_ancestral", [0.8, 0.4, 0.1], ModelType.FLOW, eta=2.0)
    assert len(levels) == 2 and made.isfinite().all()


@pytest.mark.parametrize("sigmas", [[9.0, 2.0, 0.5], [0.5, 2.0, 9.0]])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "dpmpp_2m", "dpm_adaptive", "dpm_fast", "lms"])
def test_levels_may_fall_and_rise(name: str, sigmas: list[float]) -> None:
    """Levels that rise add noise again along the same path (FlipSigmas)."""
    made, _ = run(name, sigmas)
    torch.testing.assert_close(made, TARGET + (START - TARGET) * sigmas[-1] / sigmas[0])
