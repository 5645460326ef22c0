"""Inputs that depend on each other: several of one type, those of a choice, and rows that grow.

The names of inner inputs are `<outer>.<inner>` in a graph; the node gets a dictionary of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .inputs import ComfyType, Input, Output, WidgetInput

MATCH = "COMFY_MATCHTYPE_V3"
AUTOGROW = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"


def declared(inputs: Sequence[Input]) -> dict[str, dict[str, tuple[str, dict[str, Any]]]]:
    """Return inputs as /object_info spells them, by "required" and "optional"."""
    kinds: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {"required": {}}
    for each in inputs:
        options = {name: value for name, value in each.as_dict().items() if name != "optional"}
        kinds.setdefault("optional" if each.optional else "required", {})[each.id] = (each.get_io_type(), options)
    return kinds


class MatchType(ComfyType):
    """Whatever comes, as long as all inputs and outputs of one template have the same type."""

    io_type = MATCH

    @dataclass(frozen=True)
    class Template:
        """The type that they share."""

        template_id: str
        allowed_types: Sequence[type[ComfyType]] = ()

        def as_dict(self) -> dict[str, str]:
            """Return it as /object_info spells it."""
            types = ",".join(each.io_type for each in self.allowed_types) or "*"
            return {"template_id": self.template_id, "allowed_types": types}

    class Input(Input):
        """A socket of the template's type."""

        io_type = MATCH

        def __init__(self, id: str, template: MatchType.Template, **more: Any) -> None:
            super().__init__(id, **more)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """Return the options as /object_info spells them."""
            return {**super().as_dict(), "template": self.template.as_dict()}

    class Output(Output):
        """A result of the template's type."""

        io_type = MATCH

        def __init__(self, template: MatchType.Template, display_name: str | None = None, **more: Any) -> None:
            super().__init__(display_name=display_name or "MATCHTYPE", **more)
            self.template = template


class MultiType(ComfyType):
    """One of some types."""

    class Input(Input):
        """A socket that takes any of them."""

        def __init__(self, id: str, types: Sequence[type[ComfyType]], **more: Any) -> None:
            super().__init__(id, **more)
            self.types = types

        def get_io_type(self) -> str:
            """Return the types' names."""
            return ",".join(each.io_type for each in self.types)


class Autogrow(ComfyType):
    """A row of inputs, of which the next appears when the last is linked."""

    io_type = AUTOGROW

    @dataclass
    class TemplatePrefix:
        """Inputs `<prefix>0`, `<prefix>1`, ..."""

        input: Input
        prefix: str
        min: int = 1
        max: int = 10

        def as_dict(self) -> dict[str, Any]:
            """Return it as /object_info spells it."""
            return {"input": _only_linked(self.input), "prefix": self.prefix, "min": self.min, "max": self.max}

    @dataclass
    class TemplateNames:
        """Inputs of given names."""

        input: Input
        names: Sequence[str]
        min: int = 1

        def as_dict(self) -> dict[str, Any]:
            """Return it as /object_info spells it."""
            return {"input": _only_linked(self.input), "names": list(self.names), "min": self.min}

    class Input(Input):
        """The row; the node gets a dictionary of what is linked."""

        io_type = AUTOGROW

        def __init__(self, id: str, template: Autogrow.TemplatePrefix | Autogrow.TemplateNames, **more: Any) -> None:
            super().__init__(id, **more)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            """Return the options as /object_info spells them."""
            return {**super().as_dict(), "template": self.template.as_dict()}


def _only_linked(template: Input) -> dict[str, Any]:
    linked = copy.copy(template)
    if isinstance(linked, WidgetInput):
        linked.force_input = True
    return declared([linked])


class DynamicCombo(ComfyType):
    """A choice that brings inputs of its own."""

    io_type = DYNAMIC_COMBO

    @dataclass
    class Option:
        """One choice."""

        key: str
        inputs: Sequence[Input]

        def as_dict(self) -> dict[str, Any]:
            """Return it as /object_info spells it."""
            return {"key": self.key, "inputs": declared(self.inputs)}

    class Input(Input):
        """The choice; the node gets a dictionary of it and of its inputs."""

        io_type = DYNAMIC_COMBO

        def __init__(self, id: str, options: Sequence[DynamicCombo.Option], **more: Any) -> None:
            super().__init__(id, **more)
            self.options = options

        def as_dict(self) -> dict[str, Any]:
            """Return the options as /object_info spells them."""
            return {**super().as_dict(), "options": [each.as_dict() for each in self.options]}
