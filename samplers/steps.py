"""Predictions of a sampling run at its steps."""

from __future__ import annotations

import torch
from torch import Tensor


class StepKeeper:
    """Collect the predictions of every n-th step of a run, and of the last one.

    They are copied to the CPU at once, so that a step holds no memory of the device: B * C * H * W * 4 bytes each in
    float32. Only the newest is held where it is, as previews hold it.
    """

    def __init__(self, every: int = 1) -> None:
        """Keep steps `every`, 2 * `every`, ... of those that are counted from 1."""
        self.every = every
        self._kept: dict[int, Tensor] = {}
        self._newest: tuple[int, Tensor] | None = None

    def __call__(self, step: int, x0: Tensor) -> None:
        """Take the prediction (B, C, ...) of a step, counted from 0; a later one of the same step replaces it."""
        self._newest = step, x0
        if (step + 1) % self.every == 0:
            self._kept.pop(step, None)
            self._kept[step] = x0.to("cpu", copy=True)

    def batch(self) -> Tensor | None:
        """Return the kept predictions (steps * B, C, ...), step by step; None where no step was reported."""
        if self._newest is None:
            return None
        step, x0 = self._newest
        earlier = [kept for number, kept in self._kept.items() if number != step]
        return torch.cat([*earlier, x0.cpu()])

    def names(self) -> list[str]:
        """Return a name for each prediction in the batch, as `batch` orders them: "step 5", counted from 1."""
        if self._newest is None:
            return []
        last, x0 = self._newest
        steps = [*(number for number in self._kept if number != last), last]
        return [f"step {step + 1}" for step in steps for _ in range(len(x0))]
