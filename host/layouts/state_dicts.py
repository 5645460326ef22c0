"""Weights from files, with errors that say what is wrong with the file.

Drop-in replacement for `comfy.utils.load_torch_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...weights.files import (
    DOWNLOAD,
    PICKLES,
    SAFETENSORS,
    BrokenFileError,
    broken,
    read_json,
    read_pickle,
    read_safetensors,
    read_shapes,
)

StateDict = dict[str, torch.Tensor]

QUANTIZED = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant", ".absmax", ".quant_map")
"""Endings of what accompanies weights that are more than rounded."""


def load_state_dict(path: str | Path, widen: bool = False) -> StateDict:
    """Return tensors of a `.safetensors` file, of a pickle that holds nothing but tensors, or of a sharded index.

    Args:
        path: of the file.
        widen: whether half precision of `.safetensors` becomes float32, a tensor at a time: both at once take half as
            much memory again, and longer.

    Raises:
        FileNotFoundError: no such file, or a shard is missing.
        ValueError: the file is damaged, is not what its name says, or holds code.
    """
    return _load(Path(path), partial(read_safetensors, widen=widen), read_pickle)


def load_shapes(path: str | Path) -> StateDict:
    """Return what `load_state_dict` does, as tensors without memory; of the file little more is read than its header.

    Raises:
        FileNotFoundError, ValueError: as `load_state_dict`, as far as the header shows.
    """
    found = _load(Path(path), _read_meta, partial(read_pickle, shapes_only=True))
    return {key: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for key, tensor in found.items()}


def _read_meta(path: Path) -> StateDict:
    return {key: torch.empty(shape, device="meta") for key, shape in read_shapes(path).items()}


def _load(path: Path, of_safetensors: Callable[[Path], StateDict], of_pickle: Callable[[Path], Any]) -> StateDict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    if path.suffix.lower() == ".gguf":
        raise ValueError(
            f"{path} is a GGUF file, which is not read here; take a .safetensors file (fp8 is as small), "
            "or run it in ComfyUI"
        )
    if path.name.endswith(".index.json"):
        return {
            key: tensor for shard in _shards(path) for key, tensor in _load(shard, of_safetensors, of_pickle).items()
        }
    if path.suffix.lower() in SAFETENSORS:
        return of_safetensors(path)
    if path.suffix.lower() in PICKLES:
        return _tensors(path, of_pickle(path))
    raise ValueError(f"{path} has the ending {path.suffix!r}, expected one of {', '.join(SAFETENSORS + PICKLES)}")


@contextmanager
def made_of(path: Path) -> Iterator[None]:
    """Name the file or folder in errors of the code inside, which builds a model of it.

    Raises:
        ValueError: the weights or settings are not those of such a model.
        FileNotFoundError: a part is missing.
    """
    try:
        yield
    except BrokenFileError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{path.name}: {error}") from None
    # What code that derives shapes from weights trips over where one is missing or has another number of axes.
    except (LookupError, AttributeError, TypeError, ZeroDivisionError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path.name} is incomplete, or of another kind ({said}); {DOWNLOAD}") from error


def _tensors(path: Path, content: Any) -> StateDict:
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    named = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in named if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no weights by name, expected a dictionary of them")
    return tensors


def _shards(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    shards = sorted(set(places.values())) if isinstance(places, dict) else []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise broken(index, "no weight_map that names files")
    return [index.parent / shard for shard in shards]


def with_prefix(state_dict: StateDict, prefix: str) -> StateDict:
    """Return the entries under a prefix, without it."""
    return {key[len(prefix) :]: tensor for key, tensor in state_dict.items() if key.startswith(prefix)}


def count_blocks(state_dict: Collection[str], prefix: str) -> int:
    """Return how many of `<prefix>0.`, `<prefix>1.`, ... there are."""
    count = 0
    while any(key.startswith(f"{prefix}{count}.") for key in state_dict):
        count += 1
    return count


def name_keys(state_dict: StateDict) -> str:
    """Return a few keys, for an error message."""
    shown = sorted(state_dict)[:3]
    return ", ".join(shown) + (f" and {len(state_dict) - 3} more" if len(state_dict) > 3 else "")


def refuse_quantized(sd: StateDict) -> None:
    """Raise ValueError for weights that need more than a change of precision."""
    found = next((key for key in sd if key.endswith(QUANTIZED)), None)
    if found:
        raise ValueError(f"the weights are quantized ({found}), expected float32, float16, bfloat16 or plain float8")


def fill(module: Any, state_dict: StateDict, dtype: torch.dtype, what: str) -> torch.nn.Module:
    """Put weights into a module that was built on the meta device.

    Args:
        dtype: of the filled module.
        what: names the weights in errors.

    Raises:
        ValueError: weights are missing, superfluous, of other shapes, not numbers, or whole numbers.
    """
    if dtype == torch.float32:
        _refuse_broken(module, state_dict, what)  # Half precisions have half the bytes, and nothing overflows.
    # Cast before filling: diffusers' modules warn when they are cast themselves.
    state_dict = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}
    if dtype != torch.float32:
        _refuse_broken(module, state_dict, what)
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


def _refuse_broken(module: Any, state_dict: StateDict, what: str) -> None:
    """Raise ValueError for weights that are not finite, or of a type that nothing is computed in."""
    parameters = dict(module.named_parameters())
    for key, tensor in state_dict.items():
        if not tensor.is_floating_point():
            if key in parameters:
                kind = str(tensor.dtype).removeprefix("torch.")
                raise ValueError(f"{what} has weights of type {kind}, such as {key}, expected floating point")
        # Minimum and maximum are NaN where one weight is; this takes a thirtieth of the time of isfinite.
        elif tensor.numel() and not all(end.isfinite() for end in torch.aminmax(tensor)):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{what} has weights that are not finite (NaN) in {kind}, such as {key}; {DOWNLOAD}, "
                "or choose another precision, such as --dtype fp32"
            )
