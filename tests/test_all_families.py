"""What the pack does on every family of models, or the line that says why not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from comfyui.family_cases import CASES, Case, prompts, z_image
from tessera.app.registry import node_classes
from tessera.host.models.families import FAMILIES, make_model, recognise
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.tiling.circular import NotPeriodicError
from tiny_adapters import Encoder, plain_image, random_adapter, random_xlabs

CASE = {
    "Stable Diffusion 1.5": "sd15",
    "Stable Diffusion 2": "sd2",
    "Stable Diffusion 2.1 unCLIP": "sd2-unclip-none",
    "Lotus": "lotus",
    "SDXL": "koala",
    "SDXL refiner": "sdxl-refiner",
    "Stable Diffusion 3": "sd35",
    "Flux.1": "flux",
    "Chroma": "chroma",
    "Flux.2": "flux2",
    "Z-Image": "z-image",
    "Qwen-Image": "qwen-image",
}
UNETS = ["Stable Diffusion 1.5", "Stable Diffusion 2", "Stable Diffusion 2.1 unCLIP", "Lotus", "SDXL", "SDXL refiner"]
SEAMLESS = dict.fromkeys(CASE, "torus_rope") | dict.fromkeys(UNETS, "circular") | {"Stable Diffusion 3": "rolling"}
"""The method of Seamless Model that is chosen by itself."""

NAMES = [family.name for family in FAMILIES]
STEPS, SIDE = 2, 8
CFG = 3.0


@cache
def case_of(name: str) -> Case:
    case = CASES[CASE[name]]
    return replace(case, weights=lambda: z_image(2)) if name == "Z-Image" else case


@cache
def model_of(name: str) -> ModelPatcher:
    weights = {key.removeprefix("model.diffusion_model."): each for key, each in case_of(name).weights().items()}
    family, weights = recognise(weights)
    assert family.name == name
    return make_model(weights, family=family)


def inputs_of(name: str) -> tuple[Any, Any, torch.Tensor]:
    """Both prompts, and noise of a small image."""
    positive, negative, noise = prompts(case_of(name))
    return positive, negative, noise[..., :SIDE, :SIDE]


def run(node: str, **inputs: Any) -> Any:
    return node_classes()[node].execute(**inputs).args[0]


def sample(model: ModelPatcher, name: str, cfg: float = CFG) -> torch.Tensor:
    positive, negative, noise = inputs_of(name)
    with torch.inference_mode():
        sampler = KSampler(model, STEPS, "euler", case_of(name).scheduler, 1.0)
        return sampler.sample(noise, positive, negative, cfg, torch.zeros_like(noise), seed=0)


@cache
def plain(name: str) -> torch.Tensor:
    return sample(model_of(name), name)


def test_every_family_is_here() -> None:
    assert set(CASE) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_seamless_model(name: str) -> None:
    model = model_of(name)
    before, found = plain(name), sample(run("TesseraSeamlessModel", model=model, tiling="both"), name)
    chosen = run("TesseraSeamlessModel", model=model, tiling="both", method=SEAMLESS[name])
    assert torch.equal(found, sample(chosen, name)) and not torch.allclose(found, before)
    assert torch.equal(sample(model, name), before)
    methods = ["circular", "torus_rope", "rolling"]
    for other in methods[: methods.index(SEAMLESS[name])]:
        with pytest.raises(NotPeriodicError, match=r"^[^\n]+$"):
            sample(run("TesseraSeamlessModel", model=model, tiling="both", method=other), name)


@pytest.mark.parametrize("name", NAMES)
def test_flux_negative(name: str) -> None:
    model, (_, negative, _) = model_of(name), inputs_of(name)
    wanted = {"model": model, "negative": negative, "strength": 4.0, "end_percent": 1.0}
    if name == "Flux.1":
        assert not torch.allclose(sample(run("TesseraFluxNegative", **wanted), name, 1.0), sample(model, name, 1.0))
        return
    with pytest.raises(ValueError, match=type(model.model.diffusion_model).__name__):
        sample(run("TesseraFluxNegative", **wanted), name, 1.0)
    assert not torch.allclose(
        sample(run("TesseraFluxNegative", **wanted, method="cfg"), name, 1.0), sample(model, name, 1.0)
    )


@pytest.mark.parametrize("name", NAMES)
def test_schedulers_of_diffusers(name: str) -> None:
    positive, negative, noise = inputs_of(name)
    latent = {"samples": torch.zeros_like(noise)}
    inputs = {"seed": 1, "steps": STEPS, "cfg": CFG, "positive": positive, "negative": negative, "latent_image": latent}
    with torch.inference_mode():
        for scheduler in ("EulerDiscrete", "FlowMatchEulerDiscrete"):
            made = run("TesseraSchedulerKSampler", model=model_of(name), scheduler=scheduler, **inputs)
            assert made["samples"].shape == noise.shape and made["samples"].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_image_prompts(name: str) -> None:
    model = model_of(name)
    network: Any = model.model.diffusion_model
    prompt = (ImagePrompt(plain_image(0.3), 0.8, "full"),)
    if name in UNETS:
        adapter = LoadedAdapter(parse_adapter(random_adapter(network), "adapter"), Encoder())
    elif name == "Flux.1":
        adapter = LoadedAdapter(parse_adapter(random_xlabs(network), "adapter"), Encoder())
    else:
        flux: Any = model_of("Flux.1").model.diffusion_model
        adapter = LoadedAdapter(parse_adapter(random_xlabs(flux), "adapter"), Encoder())
        with pytest.raises(ValueError, match=r"(?i)^[^\n]*adapter[^\n]*$"):
            run("TesseraApplyImagePrompts", model=model, image_prompts=prompt, ip_adapter=adapter)
        return
    changed = run("TesseraApplyImagePrompts", model=model, image_prompts=prompt, ip_adapter=adapter)
    assert not torch.allclose(sample(changed, name), plain(name))
