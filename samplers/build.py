"""Making a diffusers scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from typing import Any

from .registry import Entry

OLDEST = "0.35"


def scheduler_class(name: str) -> Any:
    """The class of diffusers.

    Raises:
        RuntimeError: diffusers, the class in it, or what the class needs is missing.
    """
    try:
        import diffusers
    except ImportError as error:
        raise RuntimeError(
            f"{name} needs diffusers, which is not installed; run: pip install 'diffusers>={OLDEST}'"
        ) from error
    found = getattr(diffusers, name, None)
    if found is None:
        raise RuntimeError(
            f"diffusers {diffusers.__version__} has no {name}; update it: pip install --upgrade 'diffusers>={OLDEST}'"
        )
    # What stands for a class whose packages are missing.
    if type(found).__name__ == "DummyObject":
        needed = " ".join(found._backends)
        raise RuntimeError(f"{name} needs packages that are not installed; run: pip install {needed}")
    return found


def make(name: str, arguments: Mapping[str, Any]) -> Any:
    """A fresh scheduler, given those of the arguments that its constructor knows."""
    known = parameters(name)
    return scheduler_class(name)(**{key: value for key, value in arguments.items() if key in known})


def parameters(name: str) -> Set[str]:
    """What the constructor of a class of diffusers takes."""
    return inspect.signature(scheduler_class(name).__init__).parameters.keys()


def only_known(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function has a parameter for."""
    known = inspect.signature(function).parameters
    return {key: value for key, value in arguments.items() if key in known}


def check_options(entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuse options that do not apply.

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
