"""What both trainings share: device, learning rate, moving average, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> AbstractContextManager[Any]:
    """bfloat16 where it is safe: twice as fast on CPUs with AVX512-BF16, and no gradient scaling."""
    return torch.autocast(DEVICE.type, torch.bfloat16)


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Linear warmup, then a cosine to 2 % of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * cosine)


class Average:
    """Exponential moving average of the floating point weights of some modules.

    Args:
        modules: what to follow.
        decay: the final decay a step; it rises to there as (step + 1) / (step + 10).
    """

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self.weights = [p for m in modules for p in m.state_dict().values() if p.is_floating_point()]
        self.mean = [p.detach().clone() for p in self.weights]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(self.mean, self.weights, weight)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their mean; a second call exchanges them back."""
        for weight, mean in zip(self.weights, self.mean, strict=True):
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)


class TrainingRun:
    """Everything a checkpoint holds, and the update itself.

    Args:
        modules: what is trained.
        total: updates in all.
        peak: highest learning rate.
        path: checkpoint file; training goes on from there if it exists.
    """

    def __init__(self, modules: list[nn.Module], total: int, peak: float, path: Path, warmup: int = 200) -> None:
        self.modules = modules
        self.total, self.peak, self.path, self.warmup = total, peak, path, warmup
        self.parameters = [p for m in modules for p in m.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
        self.average = Average(modules, 0.998)
        self.step = 0
        if path.exists():
            self._load()

    def update(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.total, self.peak, self.warmup)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.step)
        self.step += 1

    def save(self) -> None:
        state = {
            "modules": [m.state_dict() for m in self.modules],
            "optimizer": self.optimizer.state_dict(),
            "mean": self.average.mean,
            "step": self.step,
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def _load(self) -> None:
        state = torch.load(self.path, map_location=DEVICE, weights_only=True)
        for module, weights in zip(self.modules, state["modules"], strict=True):
            module.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for mean, saved in zip(self.average.mean, state["mean"], strict=True):
            mean.copy_(saved)
        self.step = state["step"]
