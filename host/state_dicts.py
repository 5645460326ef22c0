"""Weights from files, with errors that say what is wrong with the file (stands for `comfy.utils.load_torch_file`)."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch

StateDict = dict[str, torch.Tensor]

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# Longest header that the safetensors format allows, in bytes.
MAX_HEADER = 100_000_000
# Endings of what accompanies weights that are more than rounded.
QUANTIZED = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant", ".absmax", ".quant_map")


def load_state_dict(path: str | Path) -> StateDict:
    """Tensors of a `.safetensors` file, of a pickle that holds nothing but tensors, or of a sharded index.

    Raises:
        FileNotFoundError: no such file, or a shard is missing.
        ValueError: the file is damaged, is not what its name says, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    if path.name.endswith(".index.json"):
        return _load_sharded(path)
    if path.suffix.lower() in SAFETENSORS:
        return _load_safetensors(path)
    if path.suffix.lower() in PICKLES:
        return _tensors(path, load_pickle(path))
    raise ValueError(f"{path} has the ending {path.suffix!r}, expected one of {', '.join(SAFETENSORS + PICKLES)}")


def _load_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {_damage(path, error)}") from None


def _damage(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "it is a pickle under another name; rename it to .ckpt, which is read without running its code"
    if len(start) < 8 or int.from_bytes(start, "little") <= MAX_HEADER:
        return f"it is cut off or damaged ({_first_line(error)}); download it again"
    return "it is something else; look where it came from"


def load_pickle(path: Path) -> Any:
    """What a pickle of tensors, containers and numbers holds; everything else is refused, code first of all.

    Raises:
        ValueError: the file is damaged, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused, because it holds more than tensors ({_refused(error)}); use a .safetensors file"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no readable pickle ({_first_line(error)}); download it again") from None


def _tensors(path: Path, content: Any) -> StateDict:
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors, expected a dictionary of them")
    return tensors


def _refused(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    return named[1] if named else "objects of other kinds"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _load_sharded(index: Path) -> StateDict:
    shards = sorted(set(read_json(index)["weight_map"].values()))
    return {key: tensor for shard in shards for key, tensor in load_state_dict(index.parent / shard).items()}


def read_json(path: Path) -> dict:
    """A JSON object of a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def with_prefix(state_dict: StateDict, prefix: str) -> StateDict:
    """The entries under a prefix, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}


def count_blocks(state_dict: StateDict, prefix: str) -> int:
    """How many of `<prefix>0.`, `<prefix>1.`, ... there are."""
    count = 0
    while any(key.startswith(f"{prefix}{count}.") for key in state_dict):
        count += 1
    return count


def name_keys(state_dict: StateDict) -> str:
    """A few keys, for an error message."""
    shown = sorted(state_dict)[:3]
    return ", ".join(shown) + (f" and {len(state_dict) - 3} more" if len(state_dict) > 3 else "")


def refuse_quantized(sd: StateDict) -> None:
    """Raises ValueError for weights that need more than a change of precision."""
    found = next((key for key in sd if key.endswith(QUANTIZED)), None)
    if found:
        raise ValueError(f"the weights are quantized ({found}), expected float32, float16, bfloat16 or plain float8")


def fill(module: Any, state_dict: StateDict, dtype: torch.dtype, what: str) -> torch.nn.Module:
    """Puts weights into a module that was built on the meta device.

    Args:
        dtype: of the filled module.
        what: names the weights in errors.

    Raises:
        ValueError: weights are missing, superfluous, or of other shapes.
    """
    # Cast before filling: diffusers' modules warn when they are cast themselves.
    state_dict = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}
    try:
        missing, superfluous = module.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{what} does not fit the layout it looks like: {detail}") from None
    if missing:
        raise ValueError(f"{what} lacks {len(missing)} weights, such as {missing[0]}; it is incomplete")
    unknown = [key for key in superfluous if not key.endswith("position_ids")]
    if unknown:
        raise ValueError(
            f"{what} has {len(unknown)} weights too many, such as {unknown[0]}; it is of another architecture"
        )
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if buffer.is_meta:
                # Transformers' position_ids, the only buffer outside the files.
                owner.register_buffer(name, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False)
    return module.requires_grad_(False).eval()
