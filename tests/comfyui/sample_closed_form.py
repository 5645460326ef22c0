"""Runs in ComfyUI's interpreter: writes `tests/data/comfyui_samplers.safetensors`, ComfyUI's own results in float64.

    python tests/comfyui/sample_closed_form.py COMFYUI

The runs are those of `tests/sampler_cases.py`. A run in which the last bit of a number decides (a noise level just in
the middle of two trained ones, or just at the start of a prompt's range) is refused: no other machine would repeat it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from inside import start

TESTS = Path(__file__).parents[1]
OUT = TESTS / "data" / "comfyui_samplers.safetensors"
# Far above the rounding of float64, and far below the distance of two trained noise levels (about 0.01 of either).
NUDGE = 1e-12
MOST_MOVED = 1e-9

(comfyui,) = sys.argv[1:]
sys.path.insert(0, str(TESTS))
start(comfyui)

import comfy.latent_formats  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.model_base  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.model_management  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.model_patcher  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.model_sampling  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sample  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.samplers  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.supported_models_base  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfyui_version  # noqa: E402  # pyright: ignore[reportMissingImports]
import sampler_cases  # noqa: E402
import torch  # noqa: E402
from double_precision import double_precision  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


class Config(comfy.supported_models_base.BASE):
    """A model without a network of its own."""

    latent_format = comfy.latent_formats.SD15
    memory_usage_factor = 1.0

    def __init__(self, sampling_settings: dict[str, Any]) -> None:
        super().__init__({"disable_unet_model_creation": True})
        self.sampling_settings = sampling_settings


class Network(torch.nn.Module):
    """The denoiser as ComfyUI's networks answer: a tensor, no tuple."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.denoiser = sampler_cases.Analytic(kind)
        self.dtype = self.denoiser.weight.dtype

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.denoiser(*args, **kwargs)[0]


def model(kind: str, zsnr: bool = False) -> Any:
    """The denoiser in closed form as a MODEL."""
    config = Config(sampler_cases.settings(kind, zsnr))
    made = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[kind])
    made.diffusion_model = Network(kind).requires_grad_(False)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(made, cpu, cpu)


@contextmanager
def moved_levels(factor: float) -> Iterator[None]:
    """Let every schedule come out a little higher or lower, but for its first level, which may be a limit, and zero."""
    own = comfy.samplers.calculate_sigmas

    def moved(*args: Any) -> torch.Tensor:
        sigmas = own(*args)
        sigmas[1:] *= factor
        return sigmas

    with patch.object(comfy.samplers, "calculate_sigmas", moved):
        yield


def sensitivity(case: sampler_cases.Case, latents: torch.Tensor) -> float:
    """How far a run moves, over its largest value, for a relative change `NUDGE` of its noise levels either way."""
    worst = 0.0
    for factor in (1 + NUDGE, 1 - NUDGE):
        with moved_levels(factor):
            worst = max(worst, float((run(case) - latents).abs().max() / latents.abs().max()))
    return worst


def run(case: sampler_cases.Case) -> torch.Tensor:
    """One run as the KSampler nodes make it."""
    latent = sampler_cases.image() if case.get("image") else torch.zeros_like(sampler_cases.image())
    noise = comfy.sample.prepare_noise(latent, case["seed"], case.get("batch_index"))
    if not case.get("add_noise", True):
        noise = torch.zeros_like(latent)
    return comfy.sample.sample(
        model(case["type"], case.get("zsnr", False)),
        noise,
        case["steps"],
        case["cfg"],
        case["sampler"],
        case["scheduler"],
        *sampler_cases.prompts(case.get("conds")),
        latent,
        denoise=case.get("denoise", 1.0),
        start_step=case.get("start"),
        last_step=case.get("last"),
        force_full_denoise=case.get("full", False),
        noise_mask=sampler_cases.mask() if case.get("mask") else None,
        disable_pbar=True,
        seed=case["seed"],
    )


def schedules() -> dict[str, torch.Tensor]:
    """Every schedule of every model type; one that ComfyUI cannot make is left out."""
    out = {}
    for kind in sampler_cases.TYPES:
        sampling = model(kind).get_model_object("model_sampling")
        for name in comfy.samplers.SCHEDULER_NAMES:
            for steps in sampler_cases.SCHEDULE_STEPS:
                sigmas = comfy.samplers.calculate_sigmas(sampling, name, steps)
                if torch.isfinite(sigmas).all():  # kl_optimal divides by steps - 1
                    out[f"sigmas/{kind}/{name}/{steps}"] = sigmas
    return out


def main() -> None:
    comfy.model_management.intermediate_dtype = lambda: torch.float64
    latent = torch.zeros(2, 4, 4, 4)
    found = {
        "noise": comfy.sample.prepare_noise(latent, 7),
        "noise/rows": comfy.sample.prepare_noise(latent, 7, [3, 1]),
    }
    cases = sampler_cases.cases(comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES)
    with double_precision():
        latents: list[torch.Tensor] = []
        refused: list[str] = []
        for case in cases:
            latents.append(run(case))
            found_moves = sensitivity(case, latents[-1])
            if found_moves > MOST_MOVED:
                refused.append(f"{found_moves:.1e} {case}")
        found |= {"latents": torch.stack(latents)} | schedules()
        empty = torch.zeros(1, 4, 16, 16)
        noise = comfy.sample.prepare_noise(empty, 7)
        prompts = sampler_cases.area_prompts()
        found["areas"] = comfy.sample.sample(
            model("EPS"), noise, 2, 3.0, "euler", "normal", *prompts, empty, disable_pbar=True, seed=7
        )
    if refused:
        what = f"moved by more than {MOST_MOVED:.0e} when the noise levels moved by {NUDGE:.0e}:"
        raise SystemExit("\n".join([what, *refused]))
    wrong = [name for name, value in found.items() if value.dtype != torch.float64 and not name.startswith("noise")]
    if wrong:
        raise SystemExit(f"not in float64: {', '.join(wrong)}")
    source = (
        f"ComfyUI {comfyui_version.__version__}, torch {version('torch')}, CPU, float64 (noise: float32): "
        "comfy.sample.sample and comfy.samplers.calculate_sigmas on the denoiser of sampler_cases.py"
    )
    metadata = {"source": source, "cases": json.dumps(cases, separators=(",", ":"))}
    save_file({name: value.contiguous() for name, value in found.items()}, OUT, metadata)
    print(f"{OUT.name}: {len(cases)} runs, {len(found)} tensors, {OUT.stat().st_size} bytes")


main()
