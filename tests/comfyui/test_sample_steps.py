"""Sample and Keep Steps in a real ComfyUI: the latents of its SamplerCustomAdvanced, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from comfyui.server import ROOT, python_of
from safetensors.torch import load_file

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare nodes with its own"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

SAMPLERS = ["euler", "euler_ancestral", "heun", "dpmpp_2m_sde", "uni_pc", "lms", "dpm_fast", "dpm_adaptive"]


def test_latents_are_those_of_the_core_node(tmp_path: Path) -> None:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    names, out = tmp_path / "samplers.json", tmp_path / "latents.safetensors"
    names.write_text(json.dumps(SAMPLERS), encoding="utf-8")
    script = Path(__file__).with_name("sample_steps.py")
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), str(names), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = load_file(out)
    for name in SAMPLERS:
        for place in (0, 1):
            assert torch.equal(found[f"{name}.ours.{place}"], found[f"{name}.core.{place}"]), name
        steps = found[f"{name}.ours.2"]
        assert torch.equal(steps[-2:], found[f"{name}.ours.1"]), name
        assert len(steps) > 2, name
        assert len(torch.unique(steps, dim=0)) == len(steps), name
    assert found["ours.previews"] == found["core.previews"] > 0
