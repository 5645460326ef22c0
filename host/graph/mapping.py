"""How a node is called: once for each item of the lists that come in, or once with the lists."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from ..progress import throw_exception_if_processing_interrupted
from ..schema.node import ComfyNode, Hidden, bound
from ..schema.object_info import nest


def is_link(value: Any) -> bool:
    """Return whether an input's value is `[node id, output number]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def call_mapped(
    node: type[ComfyNode],
    method: str,
    inputs: Mapping[str, list[Any]],
    info: Mapping[str, Any],
    answers: Mapping[Hidden, Any] | None = None,
    can_be_stopped: bool = False,
) -> list[Any]:
    """Call a method of a node for every item; a shorter list repeats its last. Async methods run side by side.

    Args:
        inputs: a list of values for each argument.
        info: the node's entry in /object_info; with `is_input_list` it is called once, with the lists.
        answers: the hidden inputs.
        can_be_stopped: this is part of a run. Checks are not: another graph may run, and stop, meanwhile.

    Raises:
        ValueError: a list is empty although the node needs an item of it.
        InterruptProcessingException: the run was stopped.
    """
    function = bound(node, method, answers)
    results = []
    for arguments in [dict(inputs)] if info["is_input_list"] else _items(inputs):
        if can_be_stopped:
            throw_exception_if_processing_interrupted()
        results.append(function(**nest(info, arguments)))
    if any(inspect.isawaitable(result) for result in results):
        return asyncio.run(_gather(results))
    return results


def _items(inputs: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    empty = [name for name, values in inputs.items() if not values]
    if empty:
        raise ValueError(f"{', '.join(empty)} is an empty list; the node before it made nothing")
    longest = max((len(values) for values in inputs.values()), default=1)
    return [{name: values[min(i, len(values) - 1)] for name, values in inputs.items()} for i in range(longest)]


async def _gather(results: list[Any]) -> list[Any]:
    async def value_of(result: Any) -> Any:
        return await result if inspect.isawaitable(result) else result

    return list(await asyncio.gather(*(value_of(result) for result in results)))
