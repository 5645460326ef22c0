"""Calculate in float64 what the code under test calculates in float32.

Two programs that follow one formula agree in float32 only as far as both round alike, which depends on the
processor: where a rounded number decides (the nearest of a table, the size of the next step), its last bit becomes
visible. In float64 the same difference is a billionth of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch


@contextmanager
def double_precision() -> Iterator[None]:
    """Let torch's names of float32 (`float32`, `float`, `FloatTensor`, `Tensor.float`) mean float64, also the default.

    Code that asks for float32 by another way (a dtype bound at import, a tensor made before) is not changed, so a test
    should check the dtype of what it gets.
    """
    before = torch.get_default_dtype()
    double = torch.float64
    with ExitStack() as stack:
        for name in ("float32", "float"):
            stack.enter_context(patch.object(torch, name, double))
        stack.enter_context(patch.object(torch, "FloatTensor", torch.DoubleTensor))
        stack.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        torch.set_default_dtype(double)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
