"""Nodes that change what a model predicts: latents after 4 steps, ComfyUI's nodes and loaders against ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from comfyui.family_cases import write
from comfyui.sample_families import difference, in_comfyui, run_of, sample
from tessera.app.registry import node_classes
from tessera.host.models.loaders import load_diffusion_model

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to compare nodes", allow_module_level=True)

pytestmark = pytest.mark.comfyui

TOLERANCE = 1e-3
FACTORS = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
WHOLE = {"start_percent": 0.0, "end_percent": 1.0}
LAYERS = {"double_layers": "0", "single_layers": "1"}
SKIPPED = {"start_percent": 0.0, "end_percent": 1.0, "scale": 3.0}
NAG = {"nag_scale": 4.0, "nag_alpha": 0.6, "nag_tau": 1.3}
NODES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "FreeU": ("sd15-wide", "nodes_freelunch", FACTORS),
    "FreeU_V2": ("sd15-wide", "nodes_freelunch", FACTORS),
    "SelfAttentionGuidance": ("sd15-wide", "nodes_sag", {"scale": 0.7, "blur_sigma": 2.0}),
    "PerturbedAttentionGuidance": ("sd15-wide", "nodes_pag", {"scale": 3.0}),
    "SkipLayerGuidanceDiT": ("flux", "nodes_slg", {**LAYERS, **WHOLE, "scale": 3.0, "rescaling_scale": 0.3}),
    "SkipLayerGuidanceDiTSimple": ("flux", "nodes_slg", {**LAYERS, **WHOLE}),
    "SkipLayerGuidanceSD3": ("sd35", "nodes_sd3", {"layers": "0", **SKIPPED}),
    "NAGuidance": ("flux", "nodes_nag", NAG),
    "FluxKVCache": ("flux2-edit", "nodes_flux", {}),
    **{
        f"SkipLayerGuidanceDiT, {case}": (case, "nodes_slg", {**LAYERS, **SKIPPED, "rescaling_scale": 0.3})
        for case in ("chroma", "flux2-dev", "qwen-image-reference")
    },
    "SkipLayerGuidanceDiTSimple, sd35": ("sd35", "nodes_slg", {**LAYERS, **WHOLE}),
    "NAGuidance, flux2": ("flux2", "nodes_nag", NAG),
    "NAGuidance, sd15": ("sd15", "nodes_nag", NAG),
}
"""By a node, and a case where there are several: the case that it changes, ComfyUI's module of it, and its inputs."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    write(folder, list(dict.fromkeys(case for case, _, _ in NODES.values())))
    return folder


@pytest.fixture(scope="module")
def theirs(files: Path) -> dict[str, Any]:
    runs = {
        name: {**run_of(case, files), "node": (module, name.split(",")[0], given)}
        for name, (case, module, given) in NODES.items()
    }
    return in_comfyui(files, runs)


@pytest.mark.parametrize("name", NODES)
def test_latents_with_a_node(name: str, files: Path, theirs: dict[str, Any]) -> None:
    case, _, inputs = NODES[name]
    expected = theirs[name]
    assert not isinstance(expected, str), f"ComfyUI failed: {expected}"
    model = load_diffusion_model(files / f"{case}.safetensors")
    found = sample(case, node_classes()[name.split(",")[0]].execute(model=model, **inputs).args[0])
    change = difference(sample(case, model), found)
    print(f"{name}: {difference(found, expected):.0e}, changed by {change:.2f}")
    assert change > 0.01
    assert difference(found, expected) <= TOLERANCE
