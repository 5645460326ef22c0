"""Local text models: transformers folders with safetensors, loaded without remote code and without a network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..weights.files import check_folder, read_json, without_progress_bars

EXPECTED = "expected a transformers folder of a causal language model: config.json, tokenizer files and .safetensors"
EXTRA = 'transformers is not installed, which text models need; install it: pip install "tessera-nodes[text]"'


def find_models(roots: Iterable[str | Path]) -> dict[str, Path]:
    """Return folders with a `config.json` one or two levels below `roots`, by relative path."""
    found: dict[str, Path] = {}
    for root in map(Path, roots):
        for config in sorted([*root.glob("*/config.json"), *root.glob("*/*/config.json")]):
            folder = config.parent
            if folder.parent == root or not (folder.parent / "config.json").is_file():
                found.setdefault(folder.relative_to(root).as_posix(), folder)
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model.

    Raises:
        ValueError: there are none, or the folder holds something else than a causal language model.
    """
    names = _architectures(folder)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder.name}: found an adapter; expected a whole model, merge the adapter into its base")
    if not set(names) & _causal():
        raise ValueError(f"{folder.name}: found the architecture {', '.join(names) or 'of no name'}; {EXPECTED}")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        found = ", ".join(pickles) or "no weights"
        raise ValueError(f"{folder.name}: found {found}; expected .safetensors, save the model in that format")
    _check_index(folder)
    return files


def _architectures(folder: Path) -> list[str]:
    config = _json(folder / "config.json")
    names = config.get("architectures") if isinstance(config, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.parent.name}: {error}; {EXPECTED}") from None


def _causal() -> set[str]:
    """Return the names of transformers' causal language models."""
    try:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES
    except ImportError:
        raise ModuleNotFoundError(EXTRA) from None
    return {name for names in NAMES.values() for name in ([names] if isinstance(names, str) else names)}


def _check_index(folder: Path) -> None:
    """Raise ValueError when an index names weights outside its folder."""
    for path in folder.glob("*.safetensors.index.json"):
        index = _json(path)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        names = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
        if wrong := sorted(name for name in names if name != Path(name).name or "\\" in name or not name):
            raise ValueError(f"{folder.name}: {path.name} names {wrong[0]!r}; expected files of the folder itself")


def load(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """Load a model and its tokenizer; torch's random state is not changed.

    Raises:
        ModuleNotFoundError: transformers is not installed; the message names the extra.
        ValueError: the folder holds no causal language model, or a broken one.
    """
    weight_files(folder)
    _whole(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with without_progress_bars(), torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, **local, use_safetensors=True, output_loading_info=True
            )
    # Broken tokenizers and packages that a model wants raise bare exceptions of many kinds.
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{folder.name}: {said}; {EXPECTED}") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder.name}: {len(missing)} weights are missing, among them {missing[0]}; {EXPECTED}")
    return model.to(device), tokenizer


def _whole(folder: Path) -> None:
    """Raise ValueError when a file of a folder is a broken download."""
    try:
        check_folder(folder)
    except ValueError as error:
        raise ValueError(f"{folder.name}: {error}") from None
