"""A dispatch mode that finds what a GPU would wait for, on a machine without one: `meta` tensors stand for its own.

A wait is a value that is read (`.item()`, a branch, `.tolist()`), a size that values decide (`nonzero`, a boolean
index, `unique`), and a copy between host and device, a tensor of Python numbers included.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from typing_extensions import Self

READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"}
SIZES = {"nonzero", "nonzero_numpy", "argwhere", "masked_select", "_unique", "_unique2", "unique_dim", "bincount"}
SIZES |= {"unique_consecutive", "unique_dim_consecutive"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
CALLED = {"tolist", "numpy", "cpu"}
"""Methods that read without an operation that a dispatch mode sees."""


class WaitError(RuntimeError):
    """A device would wait."""


class Calls(TorchFunctionMode):
    """Tells of calls that reach no dispatch mode."""

    def __init__(self, device: str, wait: Callable[[str], None]) -> None:
        super().__init__()
        self.device, self.wait = device, wait

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        read = name in CALLED and args[0].device.type == self.device
        # A device has no numbers of its own; on a CPU they are where they are.
        made = name in {"tensor", "new_tensor", "as_tensor"} and self.device != "cpu" and out.device.type == self.device
        if read or (made and not isinstance(args[0] if name != "new_tensor" else None, Tensor)):
            self.wait(name)
        return out


class NoSync(TorchDispatchMode):
    """Fails on waits of a device, or counts them.

    Args:
        device: "meta" to stand for a GPU; "cpu" finds reads on what stands for both.
        allowed: how many waits there may be.
    """

    def __init__(self, device: str = "meta", allowed: int = 0) -> None:
        super().__init__()
        self.device, self.allowed = device, allowed
        self.found: list[str] = []
        self.calls = Calls(device, self._wait)

    def __enter__(self) -> Self:
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.calls.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        name = func._schema.name.split("::")[1]
        here = any(each.device.type == self.device for each in given)
        if here and (name in READS | SIZES or (name in INDEXED and _by_values(args[1]))):
            self._wait(name)
        if name == "repeat_interleave" and func._overloadname == "Tensor" and here:
            self._wait(name)
        out = func(*args, **(kwargs or {}))
        places = {each.device.type for each in [*given, *_tensors(out)]}
        if name in {"_to_copy", "copy_", "to"} and len(places) > 1 and self.device in places:
            self._wait(f"{name} from {' and '.join(sorted(places))}")
        return out

    def _wait(self, what: str) -> None:
        self.found.append(f"{what} at {_caller()}")
        if len(self.found) > self.allowed:
            raise WaitError(f"a device would wait: {', '.join(self.found)}")


def _caller() -> str:
    """Return the file and line that asked, outside of torch and of this module."""
    frames = traceback.extract_stack()[::-1]
    asked = next(each for each in frames if each.filename != __file__ and "/torch/" not in each.filename)
    return f"{asked.filename}:{asked.lineno}"


def _by_values(indices: Any) -> bool:
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices)


def _tensors(out: Any) -> list[Tensor]:
    return [each for each in tree_leaves(out) if isinstance(each, Tensor)]
