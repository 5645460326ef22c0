"""Summary of a chosen scheduler."""

from __future__ import annotations

from torch import Tensor

from .registry import SchedulerEntry


def model_calls(entry: SchedulerEntry, sigmas: Tensor) -> int:
    """Return how often a run over these levels calls the model."""
    steps = len(sigmas) - 1
    ends = int(sigmas[-1] == 0)
    return {"n": steps, "n + 1": steps + (steps > ends), "2n - 1": 2 * steps - ends, "2n": 2 * steps}[entry.calls]


def describe(entry: SchedulerEntry, sigmas: Tensor, spacing: str, asked: int, flow: bool) -> str:
    """Return the summary and warnings of a run, a line each.

    Args:
        entry: the scheduler.
        sigmas: of the run (steps + 1,), or empty.
        spacing: the spacing.
        asked: number of steps that were asked for.
        flow: whether the model is a rectified flow.
    """
    if len(sigmas) < 2:
        return f"{entry.name}: no step, because denoise is 0."
    steps, fewest = len(sigmas) - 1, entry.fewest[flow]
    lines = [
        f"{entry.name}: {steps} steps, {model_calls(entry, sigmas)} model calls, {spacing} spacing, "
        f"sigma {sigmas[0]:.4g} to {sigmas[-1]:.4g}."
    ]
    if steps < asked:
        lines.append(f"{asked} steps were asked for; {spacing} spacing has only {steps} different noise levels.")
    if steps < fewest:
        lines.append(
            f"It wants {fewest} steps or more{' on a flow model' if flow else ''}; fewer are noisy or unstable."
        )
    if entry.warning:
        lines.append(entry.warning)
    return "\n".join(lines)
