"""Which host the contract takes: the one that the entry point says, whatever can be imported."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from naming import naming
from tessera import contract
from tessera.contract import protocols
from tessera.contract.demo import demo_checkpoint
from tessera.contract.folders import OWN
from tessera.host.models.vae import VAE
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.schema import io as host_io
from tessera.host.text.clip import CLIP

ROOT = Path(__file__).parents[1]
BY_COMFYUI = "import asyncio, tessera; asyncio.run(tessera.comfy_entrypoint())"
BY_THE_COMMAND_LINE = "from tessera.app.cli.main import main; assert main(['nodes']) == 0"
BROKEN = {"comfy_api/__init__.py": "raise RuntimeError('broken')", "folder_paths.py": "raise ImportError('broken')"}


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code where `folder` is on the path."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


WHOLE = {
    "folder_paths.py": f"folder_names_and_paths = dict.fromkeys({OWN!r})",
    "comfy/__init__.py": "",
    "comfy/ldm/__init__.py": "",
    "comfy/ldm/modules/__init__.py": "",
    "comfy/ldm/modules/attention.py": "optimized_attention = None",
    "comfy/sampler_helpers.py": "convert_cond = None",
    "comfy/samplers.py": "calc_cond_batch = None",
    "comfy/model_management.py": "throw_exception_if_processing_interrupted = None",
    "comfy/utils.py": "ProgressBar = None",
    "comfy_api/__init__.py": "",
    "comfy_api/latest/__init__.py": "ComfyExtension = None; from . import io, ui",
    "comfy_api/latest/io.py": "",
    "comfy_api/latest/ui.py": "",
}


def test_python_and_the_tests_run_on_the_embedded_host() -> None:
    assert contract.io is host_io


def test_comfyui_is_taken_where_comfyui_opens_the_door(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    code = "from tessera import contract; contract.choose('comfyui'); print(contract.io.__name__)"
    assert run(code, tmp_path).stdout.strip() == "comfy_api.latest.io"


@pytest.mark.parametrize("files", [WHOLE, BROKEN], ids=["whole", "broken"])
def test_the_command_line_never_looks_at_comfyui(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    done = run(BY_THE_COMMAND_LINE, tmp_path)
    assert done.returncode == 0 and "TesseraSeamlessModel" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        {"comfy_api/latest/__init__.py": "raise RuntimeError('broken')"},
        {"comfy_api/latest/__init__.py": "import a_missing_requirement"},
        {"comfy/utils.py": ""},
        {"folder_paths.py": "raise ImportError('broken')"},
    ],
)
def test_a_broken_comfyui_is_an_error(damage: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, WHOLE | damage)
    done = run(f"{BY_COMFYUI}; print('opened')", tmp_path)
    assert done.returncode != 0 and "opened" not in done.stdout


def test_one_process_has_one_host() -> None:
    with pytest.raises(RuntimeError, match=naming("embedded", "comfyui")):
        contract.choose("comfyui")
    contract.choose("embedded")


def test_a_name_that_no_host_has_is_an_error() -> None:
    with pytest.raises(AttributeError, match="picture"):
        _ = contract.picture


def names_of(host: str, module: str) -> set[str]:
    tree = ast.parse((ROOT / "contract" / host / f"{module}.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return set(ast.literal_eval(assigned["__all__"]))


@pytest.mark.parametrize("module", ["__init__", "sampling"])
def test_both_hosts_have_the_same_names(module: str) -> None:
    assert names_of("comfyui", module) == names_of("embedded", module)


def test_the_contract_hands_out_what_the_hosts_have() -> None:
    assert set(contract.__all__) == names_of("embedded", "__init__") | {"choose"}


def test_unknown_demo_model_is_refused() -> None:
    with pytest.raises(ValueError, match="texture-sd"):
        demo_checkpoint("../../texture-sd")


def functions_of(path: Path) -> dict[str, str]:
    """The signatures in a module, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"))
    return {
        node.name: f"{ast.unparse(node.args)} -> {ast.unparse(node.returns or ast.Constant(None))}" for node in found
    }


def exported(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return ast.literal_eval(lists[0])


def test_both_hosts_hand_out_the_same_names_with_the_same_signatures() -> None:
    comfyui, embedded = ROOT / "contract" / "comfyui", ROOT / "contract" / "embedded"
    signatures = functions_of(embedded / "__init__.py")
    theirs = functions_of(comfyui / "__init__.py")
    assert theirs.pop("manage") and contract.manage is None, "the embedded host has no memory management"
    assert signatures == theirs
    assert {"load_demo", "add_lora"} <= set(signatures)
    for name in ("__init__.py", "sampling.py"):
        assert exported(comfyui / name) == exported(embedded / name)
    assert set(exported(embedded / "__init__.py")) == set(contract.__all__) - {"choose"}


@pytest.mark.parametrize(
    ("protocol", "found"), [(protocols.MODEL, ModelPatcher), (protocols.CLIP, CLIP), (protocols.VAE, VAE)]
)
def test_the_embedded_host_names_arguments_as_the_protocols_do(protocol: type, found: type) -> None:
    for name, method in methods_of(protocol).items():
        given = list(inspect.signature(getattr(found, name)).parameters)
        assert given[: len(method)] == method, name


def methods_of(protocol: type) -> dict[str, list[str]]:
    """The parameters of a protocol's methods, by name."""
    own = {name: value for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}
    return {name: list(inspect.signature(value).parameters) for name, value in own.items()}
