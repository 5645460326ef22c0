"""Wrappers around the calls of a run: how they get into a MODEL, and how they are found and taken out again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .calls import Call, SamplingRun
from .schedule import LEVELS, KnownLevels

Hook = Callable[[Any], Any]
"""Receives a call of the kind that it surrounds, and returns what the call gives."""


@dataclass(frozen=True, eq=False)
class Wrapper:
    """A hook in the form that hosts call.

    Attributes:
        owner: object that the hook belongs to; `installed` returns it.
        call: the kind of call that it surrounds.
        hook: what surrounds it.
    """

    owner: Any
    call: type[Call]
    hook: Hook

    def __call__(self, executor: Any, *positional: Any, **named: Any) -> Any:
        call = self.call.read(executor, positional, named)
        if isinstance(call, SamplingRun):
            # An object, which hosts hand on as it is, where they copy dictionaries.
            call.options.setdefault(LEVELS, KnownLevels(schedule=tuple(map(float, call.sigmas))))
        return self.hook(call)


def install(model: Any, key: str, owner: Any, hooks: Mapping[type[Call], Hook]) -> Any:
    """Return a clone of a host's MODEL with hooks, in place of those that had the same key.

    Args:
        model: the MODEL; it is not changed.
        key: under which the hooks are found.
        owner: what the hooks belong to.
        hooks: by the kind of call that they surround.
    """
    clone = remove(model, key).clone()
    for call, hook in hooks.items():
        clone.add_wrapper_with_key(call.kind, key, Wrapper(owner, call, hook))
    return clone


def remove(model: Any, key: str) -> Any:
    """Return the MODEL itself where no hooks have this key, else a clone without them."""
    kinds = [call.kind for call in Call.__subclasses__() if model.get_wrappers(call.kind, key)]
    if not kinds:
        return model
    clone = model.clone()
    for kind in kinds:
        clone.remove_wrappers_with_key(kind, key)
    return clone


def installed(model: Any, key: str) -> Any:
    """Return the owner of the hooks with this key, None where a MODEL has none."""
    found = (each for call in Call.__subclasses__() for each in model.get_wrappers(call.kind, key))
    return next((wrapper.owner for wrapper in found), None)


def option(model: Any, name: str) -> Any:
    """Return a transformer option of a MODEL, None where it has none of this name."""
    return model.model_options["transformer_options"].get(name)


def set_option(clone: Any, name: str, value: Any) -> None:
    """Write a transformer option into a clone of a MODEL; it reaches every run of the clone."""
    clone.model_options["transformer_options"][name] = value
