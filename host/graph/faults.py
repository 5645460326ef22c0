"""What can be wrong with a graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..schema.object_info import InputInfo


class Kind(Enum):
    """Kinds of faults, by ComfyUI's names."""

    UNKNOWN_CLASS = "missing_node_type"
    NO_OUTPUTS = "prompt_no_outputs"
    MISSING = "required_input_missing"
    BAD_LINK = "bad_linked_input"
    MISMATCH = "return_type_mismatch"
    WRONG_TYPE = "invalid_input_type"
    TOO_SMALL = "value_smaller_than_min"
    TOO_BIG = "value_bigger_than_max"
    NOT_IN_LIST = "value_not_in_list"
    REFUSED = "custom_validation_failed"
    CYCLE = "dependency_cycle"


@dataclass(frozen=True)
class Wrong:
    """What is wrong with one input: its kind, what to say about it, and why in short, where that is more."""

    kind: Kind
    text: str
    reason: str = ""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        line: it in words, with the node, what was found, what was expected, and what to do.
        node_ids: the nodes it is about; none where it is the whole graph, several on a circle.
        inputs: those it is about.
        found: the input's value; the ids along a circle.
        reason: what the node, a conversion or a type that does not fit says in short.
    """

    kind: Kind
    line: str
    node_ids: tuple[str, ...] = ()
    inputs: tuple[InputInfo, ...] = ()
    found: Any = None
    reason: str = ""
