"""What the registry and the layers demand of the files, read from the files."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tessera.nodes import NODES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
MEGABYTES = 60
LIBRARIES = {"tiling", "ip_adapter", "samplers", "guidance", "images", "prompts"}
# What everything that reads or writes files stands on, libraries included.
ON_DISK = {"weights", "files"}
SHIPPED_PACKAGES = {"contract", "nodes", "patching"} | ON_DISK | LIBRARIES
HOST_WORDS = re.compile(
    r"\b(transformer_options|model_options|model_patcher|cond_or_uncond|class_obj|get_model_object|patches_replace"
    r"|(add|remove)_wrappers?_with_key|set_model_\w+|WrappersMP|activations_shape|optimized_attention_override)\b"
)
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "server"}
NOT_INSTALLED = ("demo/training", "tools")
"""Training of the demo models and writers of pages: used in a checkout alone."""
HEAVY = {"diffusers", "transformers", "scipy", "peft"}
PYTHON_TRIPWIRES = re.compile(
    r"\bsubprocess\b|\bos\.(environ|system|popen|getenv)\b|\beval\(|\bexec\(|importlib\.import_module|__import__"
    r"|sys\.modules|\burllib\b|\brequests\b|\baiohttp\b(?! import web$)"
    r"|\bhttp\.client\b|\bsocket\b|\bsqlite3?\b|\.(bind|connect|send|recv)\("
)
JAVASCRIPT_TRIPWIRES = re.compile(r"\.(bind|connect|send|recv)\(|\beval\(|new Function\(|document\.cookie")
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".js", ".css", ".yml", ".yaml", ""}
FOREIGN = (
    "host/text/clip_vocabulary/",
    "demo/models/",
    "tools/translations/",
    "locales/zh/",
    "locales/ja/",
    "locales/de/",
)


def git_files(*arguments: str) -> list[Path]:
    """Tracked files that are there, relative to the root."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git clone and git")
    command = [git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", *arguments]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


def archive() -> list[Path]:
    """What the registry gets: tracked files without those that `.comfyignore` names."""
    left_out = set(git_files("--ignored", f"--exclude-from={ROOT / '.comfyignore'}"))
    return [path for path in git_files() if path not in left_out]


def lines_matching(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """What a module imports: the name (relative ones from the root, with a leading "."), at module level?, line."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inner = {id(node) for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)}
    inner |= {id(node) for part in ast.walk(tree) if _is_type_checking(part) for node in ast.walk(part)}
    for node in ast.walk(tree):
        at_top = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", at_top, node.lineno
        elif isinstance(node, ast.ImportFrom):
            package = [*path.parts[: len(path.parts) - node.level], *(node.module or "").split(".")]
            names = [""] if node.module else [alias.name for alias in node.names]
            yield from (("." + ".".join([p for p in [*package, name] if p]), at_top, node.lineno) for name in names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def layer(path: Path) -> str:
    return path.parts[0] if len(path.parts) > 1 else ""


def modules(*layers: str) -> list[Path]:
    return [path for path in git_files("--", "*.py") if layer(path) in layers]


def test_archive_holds_what_comfyui_needs_and_nothing_else() -> None:
    names = {str(path) for path in archive()}
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= names
    assert {"contract", "nodes", "tiling", "web", "locales", "example_workflows", "subgraphs"} <= {
        layer(Path(n)) for n in names
    }
    assert not {"host", "app", "tools", "tests", "benchmarks", ".ci"} & {layer(Path(name)) for name in names}


def test_archive_ships_the_demo_models_without_their_training() -> None:
    demo = [path for path in archive() if layer(path) == "demo"]
    assert not [path for path in demo if path.suffix == ".py"]
    assert any(path.suffix == ".safetensors" for path in demo)


def test_shipped_python_has_no_tripwire() -> None:
    assert not lines_matching([path for path in archive() if path.suffix == ".py"], PYTHON_TRIPWIRES)


def test_shipped_javascript_has_no_tripwire() -> None:
    assert not lines_matching([path for path in archive() if path.suffix == ".js"], JAVASCRIPT_TRIPWIRES)


def test_only_the_contract_knows_the_host() -> None:
    found = [
        f"{path}:{line}: {name}"
        for path in archive()
        if path.suffix == ".py" and layer(path) != "contract"
        for name, _, line in imports(path)
        if name.split(".")[0] in COMFYUI or name.startswith(".host")
    ]
    assert not found


def test_each_floor_knows_those_below_it_alone() -> None:
    """The floors are contracts of import-linter in pyproject.toml."""
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint is not None, 'install the extra "test"'
    found = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_only_patching_speaks_the_protocol_of_the_host() -> None:
    assert not lines_matching(modules("nodes", *LIBRARIES), HOST_WORDS)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    found = [
        f"{path}:{line}: {name}"
        for path in modules("", *SHIPPED_PACKAGES)
        for name, at_top, line in imports(path)
        if at_top and name.split(".")[0] in HEAVY
    ]
    assert not found


def test_door_is_small_and_has_one_way_in() -> None:
    door = (ROOT / "__init__.py").read_text(encoding="utf-8")
    assert len(door.splitlines()) < 30
    assert "NODE_CLASS_MAPPINGS" not in door
    assert "web" not in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["comfy"]


def test_requirements_equal_the_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert requirements == project["dependencies"]
    assert not [line for line in requirements if re.search(r"==|<|~=", line)], "lower bounds only"


def test_every_package_is_in_the_distribution() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = [path.parent for path in git_files("--", "*__init__.py") if layer(path) not in ("tests", "benchmarks")]
    folders = [folder for folder in packages if not str(folder).startswith(NOT_INSTALLED)]
    assert set(setuptools["packages"]) == {".".join(["tessera", *folder.parts]) for folder in folders}


def test_text_is_ascii() -> None:
    texts = [path for path in git_files() if path.suffix in TEXT and not str(path).startswith(FOREIGN)]
    assert not lines_matching(texts, re.compile(r"[^\x00-\x7f]"))


def test_demo_models_do_not_name_the_folder_they_were_trained_in() -> None:
    configs = list((ROOT / "demo" / "models").rglob("config.json"))
    assert configs
    assert not [path for path in configs if "_name_or_path" in path.read_text()]


def test_checkout_is_small() -> None:
    assert sum((ROOT / path).stat().st_size for path in git_files()) < MEGABYTES * 2**20


def test_scanners_find_every_node() -> None:
    """ComfyUI Manager reads source: it wants `io.ComfyNode` as direct base and a literal node_id."""
    found = set()
    for path in modules("nodes"):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["io.ComfyNode"]:
                found |= set(re.findall(r"node_id='(\w+)'", ast.unparse(node)))
    assert found == {node.define_schema().node_id for node in NODES}


@pytest.mark.parametrize("node_id", [node.define_schema().node_id for node in NODES])
def test_node_has_a_place_in_an_example(node_id: str) -> None:
    graphs: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "example_workflows").glob("*.json")
    ]
    assert node_id in {node["type"] for graph in graphs for node in graph["nodes"]}


def test_every_example_has_a_image_and_an_api_twin() -> None:
    for path in (ROOT / "example_workflows").glob("*.json"):
        assert path.with_suffix(".jpg").is_file(), path.name
        assert (ROOT / "tests" / "workflows" / f"{path.stem}.api.json").is_file(), path.name
