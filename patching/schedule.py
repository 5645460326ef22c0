"""The part of a run's schedule in which a patch acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

PercentToSigma = Callable[[float], float]
"""A host's `model_sampling.percent_to_sigma`: from a fraction of the schedule, 0 at its start, to a sigma."""


@dataclass(frozen=True)
class ScheduleRange:
    """A part of the schedule, from its start at 0 to its end at 1; both ends belong to it.

    Attributes:
        start: fraction of the schedule at which the patch begins to act.
        end: fraction of the schedule at which it ceases to.

    Examples:
        >>> from tessera.patching.schedule import ScheduleRange
        >>> ScheduleRange(0.0, 0.5).covers(0.25, lambda percent: 1.0 - percent)
        False
    """

    start: float = 0.0
    end: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether the patch acts at every step: then no sigma has to be read, for which a GPU would wait."""
        return (self.start, self.end) == (0.0, 1.0)

    def covers(self, sigma: float | Tensor, percent_to_sigma: PercentToSigma) -> bool:
        """Return whether the patch acts at a noise level.

        Args:
            sigma: the noise level, or those of a batch (B,), of which the highest decides.
            percent_to_sigma: of the model.
        """
        if self.whole:
            return True
        level = float(sigma.max()) if isinstance(sigma, Tensor) else sigma
        return percent_to_sigma(self.end) <= level <= percent_to_sigma(self.start)

    def covers_any(self, sigmas: Iterable[Tensor], percent_to_sigma: PercentToSigma) -> bool:
        """Return whether the patch acts at any step of a run over `sigmas`, of which the last one is its end."""
        return any(self.covers(sigma, percent_to_sigma) for sigma in list(sigmas)[:-1])
