"""Making a diffusers scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from typing import Any

from .registry import SchedulerEntry

OLDEST = "0.35"


def scheduler_class(name: str) -> Any:
    """Return a class of diffusers by name.

    Raises:
        RuntimeError: diffusers, the class in it, or what the class needs is missing.
    """
    try:
        # Its import ends by replacing its module: a thread that waited for another's was given the one without classes.
        _diffusers()
        diffusers = _diffusers()
    except ImportError as error:
        raise RuntimeError(
            f"{name} needs diffusers, which is not installed; run: pip install 'diffusers>={OLDEST}'"
        ) from error
    found = getattr(diffusers, name, None)
    if found is None:
        raise RuntimeError(
            f"diffusers {diffusers.__version__} has no {name}; update it: pip install --upgrade 'diffusers>={OLDEST}'"
        )
    # diffusers' placeholder for a class whose packages are missing.
    if type(found).__name__ == "DummyObject":
        needed = " ".join(found._backends)
        raise RuntimeError(f"{name} needs packages that are not installed; run: pip install {needed}")
    return found


def _diffusers() -> Any:
    import diffusers

    return diffusers


def make(name: str, arguments: Mapping[str, Any]) -> Any:
    """Make a scheduler with those of the arguments that its constructor takes."""
    known = parameters(name)
    return scheduler_class(name)(**{key: value for key, value in arguments.items() if key in known})


def parameters(name: str) -> Set[str]:
    """Return the names of the constructor's parameters of a class of diffusers."""
    return inspect.signature(scheduler_class(name).__init__).parameters.keys()


def only_known(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function has a parameter for."""
    known = inspect.signature(function).parameters
    return {key: value for key, value in arguments.items() if key in known}


def check_options(entry: SchedulerEntry, options: Mapping[str, Any]) -> None:
    """Check that options apply to a scheduler.

    Raises:
        ValueError: one does not, or diffusers has no step for them together.
    """
    for option in options:
        if option not in entry.options:
            applying = ", ".join(entry.options) or "none"
            raise ValueError(f"{option} does not apply to {entry.name} (these do: {applying}); set it back to auto.")
    if entry.lacks and entry.lacks.items() <= options.items():
        together = " with ".join(f"{name} {value}" for name, value in entry.lacks.items())
        raise ValueError(f"{entry.name} has no step for {together}; set one of them back to auto.")
