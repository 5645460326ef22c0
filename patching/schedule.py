"""The part of a run's schedule in which a patch acts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

_log = logging.getLogger(__name__)

PercentToSigma = Callable[[float], float]
"""A host's `model_sampling.percent_to_sigma`: from a fraction of the schedule, 0 at its start, to a sigma."""

LEVELS = "tessera_known_levels"
"""Option of a run: its `KnownLevels`."""


@dataclass(eq=False)
class KnownLevels:
    """Noise levels of a run that the host has read from its device: reading one is a wait, so that no hook repeats it.

    Attributes:
        tensor: sigmas of the latest prediction, as the host hands them to every hook.
        value: the highest of them.
        bounds: sigma by fraction of the schedule.
        schedule: noise levels of the run (steps + 1,), read before it begins.
    """

    tensor: Tensor | None = None
    value: float = 0.0
    bounds: dict[float, float] = field(default_factory=dict)
    schedule: tuple[float, ...] = ()

    def highest(self, sigma: Tensor) -> float:
        """Return the highest of sigmas (B,), read once for all hooks of a prediction."""
        if sigma is not self.tensor:
            self.tensor, self.value = sigma, float(sigma.max())
        return self.value

    def at(self, percent: float, percent_to_sigma: PercentToSigma) -> float:
        """Return the sigma at a fraction of the schedule, which a model may have to read from its device."""
        if percent not in self.bounds:
            self.bounds[percent] = percent_to_sigma(percent)
        return self.bounds[percent]


class InSchedule(Protocol):
    """A call or a run whose noise levels are known."""

    @property
    def levels(self) -> KnownLevels:
        """Those that were read."""
        ...

    @property
    def percent_to_sigma(self) -> PercentToSigma:
        """Of the model."""
        ...


class Prediction(InSchedule, Protocol):
    """A call at one noise level."""

    @property
    def level(self) -> float:
        """The noise level, on the host."""
        ...


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

    def prepare(self, run: InSchedule, name: str, lost: str) -> None:
        """Find the sigmas of both ends before the first step of a run, and warn where no step is between them.

        Args:
            name: of the patch, for the log.
            lost: what does not happen without a step.
        """
        if self.whole:
            return
        highest, lowest = (run.levels.at(percent, run.percent_to_sigma) for percent in (self.start, self.end))
        steps = run.levels.schedule[:-1]
        if steps and not any(lowest <= level <= highest for level in steps):
            part = f"{self.start:.0%} and {self.end:.0%}"
            _log.warning("%s: no step of this run is between %s of the schedule, so %s.", name, part, lost)

    def acts(self, call: Prediction) -> bool:
        """Return whether the patch acts in a call; its noise level is read once for all hooks of a prediction."""
        return self.whole or self.covers(call.level, lambda percent: call.levels.at(percent, call.percent_to_sigma))

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
