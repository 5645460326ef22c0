"""Image prompts on small random transformers: ComfyUI's own networks, the embedded host, diffusers' adapter classes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui.family_cases import CASES, prompts, write
from comfyui.sample_families import difference
from comfyui.server import ROOT, python_of
from tessera.host.models.families.sd3 import SD3
from tessera.host.models.loaders import load_diffusion_model
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import read_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import EMBEDDING, random_instantx, random_timed, random_xlabs
from torch import Tensor

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare image prompts with diffusers"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

CASES_OF = {
    "sd35-large": ("sd35-large", random_timed),
    "chroma, by XLabs": ("chroma", random_xlabs),
    "chroma, by InstantX": ("chroma", random_instantx),
}
"""The model and what makes an adapter for it, by name."""

WIDTHS = {random_timed: 48, random_xlabs: EMBEDDING, random_instantx: EMBEDDING}
"""Of what an adapter reads."""

SCALE = 0.9
RUNS: dict[str, list[tuple[int, float, str]]] = {
    "plain": [],
    "one": [(0, SCALE, "all")],
    "two": [(0, SCALE, "all"), (1, 0.4, "all")],
    "halves": [(0, SCALE, "left"), (1, 0.5, "right")],
}


class Seeing(SD3):
    """Stable Diffusion 3.5 with diffusers' own adapter: an image for positive rows, zeros for negative ones."""

    seen: Tensor

    def forward_transformer(self, x: Tensor, timestep: Tensor, context: Tensor, y: Any, **conds: Any) -> Tensor:
        # The embedded host runs the negative prompt first.
        rows = torch.cat([torch.zeros_like(self.seen), self.seen]).repeat_interleave(len(x) // 2, 0)
        given = {"joint_attention_kwargs": {"ip_adapter_image_embeds": rows}}
        return self.diffusion_model(x, context, y, timestep, **given, return_dict=False)[0]


def _sample(case: str, model: Any) -> Tensor:
    positive, negative, noise = prompts(CASES[case])
    sampler = KSampler(model, 4, "euler", "simple", 1.0)
    with torch.inference_mode():
        return sampler.sample(noise, positive, negative, CASES[case].cfg, torch.zeros_like(noise), seed=0)


def _ours(case: str, model: Any, loaded: LoadedAdapter, uses: list[tuple[int, float, str]]) -> Tensor:
    left = torch.zeros(*(8 * side for side in prompts(CASES[case])[2].shape[-2:]))
    left[:, : left.shape[1] // 2] = 1
    masks = {"all": None, "left": left, "right": 1 - left}
    images = [(torch.full((1, 16, 16, 3), image / 10), scale, masks[side]) for image, scale, side in uses]
    stack = tuple(ImagePrompt(image, scale, "full", mask=mask) for image, scale, mask in images)
    return _sample(case, TesseraApplyImagePrompts.execute(model, stack, "sum", loaded).args[0] if stack else model)


def _plan(name: str, folder: Path) -> dict[str, Any]:
    """What to sample; its files are written."""
    case, make = CASES_OF[name]
    path = folder / f"{case}.safetensors"
    network = load_diffusion_model(path).model.diffusion_model
    file = folder / f"{make.__name__}.bin"
    torch.save(make(network, WIDTHS[make]) if make is random_timed else make(network), file)
    seen = torch.randn(2, 9, WIDTHS[make], generator=torch.Generator().manual_seed(4))
    positive, negative, noise = prompts(CASES[case])
    found = {"model": str(path), "adapter": str(file), "seen": seen, "noise": noise, "runs": RUNS}
    return {**found, "positive": positive, "negative": negative, "cfg": CASES[case].cfg}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("adapters")
    write(folder, list({case for case, _ in CASES_OF.values()}))
    return {name: _plan(name, folder) for name in CASES_OF}


@pytest.fixture(scope="module")
def comfyui(plans: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("comfyui")
    torch.save(plans, folder / "plan.pt")
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    script = Path(__file__).with_name("sample_adapters.py")
    files = [str(folder / name) for name in ("plan.pt", "out.pt")]
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(files[1])


@pytest.mark.parametrize("name", CASES_OF)
def test_latents_are_the_same(name: str, plans: dict[str, Any], comfyui: dict[str, dict[str, Tensor]]) -> None:
    plan, theirs, case = plans[name], comfyui[name], CASES_OF[name][0]

    def encode(image: Tensor, crop: bool) -> Any:
        seen = plan["seen"][image[:, 0, 0, 0].mul(10).round().long()]
        return SimpleNamespace(penultimate_hidden_states=seen, image_embeds=seen.mean(1))

    loaded = LoadedAdapter(read_adapter(plan["adapter"]), SimpleNamespace(encode_image=encode))
    model = load_diffusion_model(Path(plan["model"]))
    ours = {run: _ours(case, model, loaded, uses) for run, uses in RUNS.items()}
    found = {run: difference(ours[run], theirs[run]) for run in RUNS}
    print(f"\n{name}: largest difference of latents {found}")
    assert max(found.values()) <= 1e-3
    assert all(difference(theirs[run], theirs["plain"]) > 0.05 for run in RUNS if run != "plain")


def test_stable_diffusion_3_is_that_of_diffusers(plans: dict[str, Any], comfyui: dict[str, dict[str, Tensor]]) -> None:
    """With one image, whose adapter diffusers' own classes hold."""
    name, plan = "sd35-large", plans["sd35-large"]
    model = load_diffusion_model(Path(plan["model"]))
    network = model.model.diffusion_model
    network._load_ip_adapter_weights(torch.load(plan["adapter"]), low_cpu_mem_usage=False)
    for processor in network.attn_processors.values():
        processor.scale = SCALE
    model.model.__class__, model.model.seen = Seeing, plan["seen"][:1]
    found = difference(comfyui[name]["one"], _sample(name, model))
    print(f"\n{name}, ComfyUI's network and diffusers' adapter: {found:.0e}")
    assert found <= 1e-3
