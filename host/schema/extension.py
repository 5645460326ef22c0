"""Drop-in replacement for `comfy_api.latest`: what a pack hands over, its nodes, answers and replacements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from .node import ComfyNode

Answer = Callable[[Mapping[str, str]], dict[str, Any]]

ROUTES: dict[str, Answer] = {}
"""Paths that packs answer with JSON, and what makes it of the query."""
REPLACEMENTS: dict[str, list[dict[str, Any]]] = {}
"""Nodes that stand in for others that are not installed, by the id of these, as /node_replacements lists them."""


class ComfyExtension(ABC):
    """A pack."""

    async def on_load(self) -> None:  # noqa: B027 - optional
        """Prepare what the pack needs; called once."""

    @abstractmethod
    async def get_node_list(self) -> list[type[ComfyNode]]:
        """Return the pack's nodes."""


def add_route(path: str, answer: Answer) -> None:
    """Answer a GET of a path with JSON, which `answer` makes of the query."""
    ROUTES[path] = answer


async def add_replacement(entry: Mapping[str, Any]) -> None:
    """Offer a node where a workflow has one that is not installed; entries are ComfyUI's NodeReplace."""
    offered = REPLACEMENTS.setdefault(entry["old_node_id"], [])
    if dict(entry) not in offered:
        offered.append(dict(entry))
