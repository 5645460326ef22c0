"""Which host the contract takes: ComfyUI where there is one, also a broken one, else the embedded host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tessera import contract
from tessera.host import io as host_io

LOOK = "import tessera.contract as contract; print(contract.io.__name__)"


def look(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import the contract where `folder` is on the path."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {LOOK}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


WHOLE = {
    "folder_paths.py": "folder_names_and_paths = dict.fromkeys(('ipadapter', 'safety_checker', 'text_generation'))",
    "comfy/__init__.py": "",
    "comfy/ldm/__init__.py": "",
    "comfy/ldm/modules/__init__.py": "",
    "comfy/ldm/modules/attention.py": "optimized_attention = None",
    "comfy/sampler_helpers.py": "convert_cond = None",
    "comfy/samplers.py": "calc_cond_batch = None",
    "comfy/model_management.py": "throw_exception_if_processing_interrupted = None",
    "comfy/patcher_extension.py": "WrappersMP = None",
    "comfy/utils.py": "ProgressBar = None",
    "comfy_api/__init__.py": "",
    "comfy_api/latest/__init__.py": "ComfyExtension = None; from . import io, ui",
    "comfy_api/latest/io.py": "",
    "comfy_api/latest/ui.py": "",
}


def test_without_comfyui_the_host_is_taken() -> None:
    assert contract.io is host_io
    assert not contract.IN_COMFYUI


def test_comfyui_is_taken(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    assert look(tmp_path).stdout.strip() == "comfy_api.latest.io"


@pytest.mark.parametrize(
    "damage",
    [
        {"comfy_api/latest/__init__.py": "raise RuntimeError('broken')"},
        {"comfy_api/latest/__init__.py": "import a_missing_requirement"},
        {"comfy/utils.py": ""},
        {"folder_paths.py": "raise ImportError('broken')"},
    ],
)
def test_broken_comfyui_is_an_error(damage: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, WHOLE | damage)
    looked = look(tmp_path)
    assert looked.returncode != 0
    assert "tessera.host" not in looked.stdout


def test_unknown_demo_model_is_refused() -> None:
    with pytest.raises(ValueError, match="texture-sd"):
        contract.demo_checkpoint("../../texture-sd")
