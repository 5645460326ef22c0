"""ComfyUI's own transformers and VAEs on a torus."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from comfyui.server import ROOT, python_of

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to make its models periodic"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui


def test_transformers_and_vaes_are_periodic(tmp_path: Path) -> None:
    checkout, out = Path(os.environ["COMFYUI_PATH"]).resolve(), tmp_path / "found.json"
    script = Path(__file__).with_name("periodic_models.py")
    command = [str(python_of(checkout)), str(script), str(checkout), str(ROOT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    for name, (stock, moved, two_cuts) in found.pop("rolling").items():
        print(f"{name}: stock {stock}, rolled {moved}, two cuts {two_cuts}")
        assert two_cuts <= 1.6, name
        assert min(stock, moved) > 2.0, name
    controlled = found.pop("controlled")
    print(f"with a control network: {controlled}")
    stock, alone, both = controlled["SD"]
    assert both <= 1e-5
    assert min(stock, alone) > 100 * both
    stock, alone, both = controlled["Flux"]
    assert 0.6 < both < 1.6 < stock
    assert both < alone
    for name, (stock, periodic) in found.items():
        print(f"{name}: stock {stock}, on a torus {periodic}")
        if isinstance(periodic, list):
            assert all(0.6 < ratio < 1.6 for ratio in periodic), name
            assert max(stock) > 2.5, name
        else:
            assert periodic <= 1e-5, name
            assert stock > 10 * periodic, name
