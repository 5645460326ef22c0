"""Runs a graph: what its outputs need, each node once, and nothing again that has not changed."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import NodeError, named
from ..progress import (
    InterruptProcessingException,
    interrupt_current_processing,
    throw_exception_if_processing_interrupted,
)
from ..schema.node import Hidden, NodeOutput, Schema, WrongNodeError, overrides
from ..schema.object_info import ObjectInfo, inputs_of
from .circles import linked_nodes
from .failures import explain, input_is_at_fault
from .mapping import call_mapped, is_link
from .workflow import Prompt

log = logging.getLogger(__name__)

_never_again = itertools.count()


@dataclass(frozen=True)
class NodeResult:
    """What a node made: a list of values for each output, and what it shows."""

    values: list[list[Any]]
    ui: dict[str, list[Any]]


@dataclass
class Cache:
    """What the nodes of the last graph made, by signature. Hand one to every run of a process."""

    entries: dict[str, NodeResult] = field(default_factory=dict)


@dataclass
class Run:
    """One run of a validated graph.

    `entries` holds what every node made so far, also after an error or an interruption.

    Args:
        prompt: the graph, from `validation.validate`.
        outputs: the ids of its output nodes.
        extra_pnginfo: what saved images carry beside the graph: `{"workflow": <UI-format>}`.
        resting: other nodes of the graph that were found right; what is kept of them stays, and they do not run.
        on_cached: called before anything runs, with the ids of the needed nodes whose results are kept from before.
        on_node: called with a node's id and class before it runs.
        on_result: called with a node's id and result when it has run, and with that of an output, or of a node that
            has intermediate output, whose result was kept.
    """

    prompt: Prompt
    outputs: Sequence[str]
    object_info: ObjectInfo
    cache: Cache = field(default_factory=Cache)
    extra_pnginfo: Mapping[str, Any] | None = None
    resting: Sequence[str] = ()
    on_cached: Callable[[list[str]], None] = lambda node_ids: None
    on_node: Callable[[str, str], None] = lambda node_id, class_type: None
    on_result: Callable[[str, NodeResult], None] = lambda node_id, result: None

    def __post_init__(self) -> None:
        self.entries: dict[str, NodeResult] = {}
        self._seen: dict[str, set[str]] = {}
        self._signatures: dict[str, str] = {}
        self._ran: set[str] = set()

    @functools.cached_property
    def needed(self) -> list[str]:
        """The ids of the outputs and of all that they depend on, each behind those it is linked to."""
        return _sources_first(self.prompt, self.outputs)

    @property
    def ui(self) -> dict[str, dict[str, list[Any]]]:
        """What the nodes show or saved, by node id."""
        return {node_id: entry.ui for node_id, entry in self.entries.items() if entry.ui}

    def start(self) -> None:
        """Run what the outputs need.

        Raises:
            NodeError: a node failed.
            InterruptProcessingException: the run was stopped.
        """
        interrupt_current_processing(False)
        for node_id in _sources_first(self.prompt, [*self.outputs, *self.resting]):
            self._signatures[node_id] = self._signature(node_id)
        known = set(self._signatures.values())
        self.cache.entries = {key: entry for key, entry in self.cache.entries.items() if key in known}
        self.on_cached([node_id for node_id in self.needed if self._signatures[node_id] in self.cache.entries])
        with torch.inference_mode():
            pending = list(reversed(self.outputs))
            while pending:
                node_id = pending[-1]
                missing = [] if node_id in self.entries or self._recall(node_id) else self._missing(node_id)
                if missing:
                    pending.extend(reversed(missing))
                    continue
                pending.pop()
                if node_id not in self.entries:
                    throw_exception_if_processing_interrupted()
                    self._execute(node_id)
        self._show_kept()

    def _show_kept(self) -> None:
        """Show again what nodes before the outputs have shown, where their results were kept."""
        for node_id in self.needed:
            entry = self.cache.entries.get(self._signatures[node_id])
            if entry is None or not entry.ui or node_id in self._ran or node_id in self.outputs:
                continue
            if self._class(node_id).GET_SCHEMA().has_intermediate_output:
                self.on_result(node_id, entry)

    def loaded(self) -> dict[str, NodeResult]:
        """Return by signature what nodes without links made and do not show, such as models."""
        loaders = (each for each in self.entries if not any(map(is_link, self.prompt[each]["inputs"].values())))
        return {self._signatures[each]: self.entries[each] for each in loaders if not self.entries[each].ui}

    def _recall(self, node_id: str) -> bool:
        entry = self.cache.entries.get(self._signatures[node_id])
        if entry is None:
            return False
        self.entries[node_id] = entry
        if node_id in self.outputs:
            self.on_result(node_id, entry)
        return True

    def _missing(self, node_id: str) -> list[str]:
        """Return the nodes that have to run first; a lazy input counts when the node asks for it."""
        links = {name: value[0] for name, value in self.prompt[node_id]["inputs"].items() if is_link(value)}
        specs = inputs_of(self._info(node_id), self.prompt[node_id]["inputs"])
        lazy = [name for name in links if name in specs and specs[name].options.get("lazy")]
        first = [source for name, source in links.items() if name in specs and name not in lazy]
        seen = self._seen.setdefault(node_id, set(first))
        missing = [source for source in first if source not in self.entries]
        while not missing and (waiting := [name for name in lazy if links[name] not in seen]):
            wanted = self._wanted(node_id)
            asked = [links[name] for name in waiting if name in wanted]
            if not asked:
                break
            seen.update(asked)
            missing = [source for source in asked if source not in self.entries]
        return missing

    def _wanted(self, node_id: str) -> set[str]:
        """Return the names of the lazy inputs that a node asks for."""
        with self._blamed(node_id):
            asked = call_mapped(
                self._class(node_id),
                "check_lazy_status",
                self.inputs(node_id),
                self._info(node_id),
                can_be_stopped=True,
            )
        return {name for names in asked if isinstance(names, list) for name in names}

    def _execute(self, node_id: str) -> None:
        class_type = self.prompt[node_id]["class_type"]
        self.on_node(node_id, class_type)
        info = self._info(node_id)
        with self._blamed(node_id):
            made = call_mapped(
                self._class(node_id),
                "execute",
                self.inputs(node_id),
                info,
                self._hidden(node_id),
                can_be_stopped=True,
            )
            entry = _merge([_normalized(each) for each in made], info)
        self.entries[node_id] = self.cache.entries[self._signatures[node_id]] = entry
        self._ran.add(node_id)
        self.on_result(node_id, entry)

    def inputs(self, node_id: str) -> dict[str, list[Any]]:
        """Return lists of values by input name; a lazy input that was not asked for, or has not run, is None.

        One whose node the node sees through another input, too, counts as asked for.
        """
        given = self.prompt[node_id]["inputs"]
        specs = inputs_of(self._info(node_id), given)
        takes_all = self._schema(node_id).accept_all_inputs
        found = {}
        for name, value in given.items():
            if name in specs and is_link(value):
                seen = value[0] in self.entries and value[0] in self._seen.get(node_id, ())
                found[name] = self.entries[value[0]].values[value[1]] if seen else [None]
            elif name in specs or takes_all:
                found[name] = [value]
        return found

    def _hidden(self, node_id: str) -> dict[Hidden, Any]:
        answers = {
            Hidden.prompt: self.prompt,
            Hidden.extra_pnginfo: self.extra_pnginfo,
            Hidden.unique_id: node_id,
        }
        asked = self._info(node_id)["input"].get("hidden", {})
        return {hidden: answer for hidden, answer in answers.items() if hidden.name in asked}

    def _signature(self, node_id: str) -> str:
        """Return a digest of all that a node's result depends on.

        Class, values, the nodes before it, and its fingerprint.
        """
        node, info, schema = self.prompt[node_id], self._info(node_id), self._schema(node_id)
        parts: list[Any] = [node["class_type"], self._fingerprint(node_id)]
        if Hidden.unique_id in schema.hidden or schema.not_idempotent:
            parts.append(node_id)
        known = node["inputs"] if schema.accept_all_inputs else inputs_of(info, node["inputs"])
        for name, value in sorted(node["inputs"].items()):
            if name in known:
                linked = is_link(value) and value[0] in self._signatures
                parts.append((name, (self._signatures[value[0]], value[1]) if linked else _frozen(value)))
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def _fingerprint(self, node_id: str) -> str:
        node = self._class(node_id)
        if not overrides(node, "fingerprint_inputs"):
            return ""
        given = self.prompt[node_id]["inputs"]
        specs = inputs_of(self._info(node_id), given)
        constants = {name: [None] if is_link(value) else [value] for name, value in given.items() if name in specs}
        try:
            return _frozen(call_mapped(node, "fingerprint_inputs", constants, self._info(node_id)))
        except InterruptProcessingException:
            raise
        except Exception as error:
            # As in ComfyUI, such a node runs again every time; what is really wrong shows when it runs.
            log.warning("%s: fingerprint_inputs failed: %s", self._named(node_id), error)
            return _frozen(math.nan)

    def _class(self, node_id: str) -> Any:
        return self.object_info.classes[self.prompt[node_id]["class_type"]]

    def _schema(self, node_id: str) -> Schema:
        return self.object_info.schema(self.prompt[node_id]["class_type"])

    def _info(self, node_id: str) -> Mapping[str, Any]:
        return self.object_info[self.prompt[node_id]["class_type"]]

    def _named(self, node_id: str) -> str:
        return named(node_id, self.prompt[node_id]["class_type"])

    def _blamed(self, node_id: str) -> _Blame:
        return _Blame(self._named(node_id))


class _Blame:
    """Turns what a node raises into one line that names it."""

    def __init__(self, node: str) -> None:
        self.node = node

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, InterruptProcessingException):
            return
        log.debug("%s failed", self.node, exc_info=error)
        raise NodeError(self.node, explain(error), input_is_at_fault(error)) from error


def _normalized(result: Any) -> NodeOutput:
    if isinstance(result, NodeOutput):
        return result
    if result is None:
        return NodeOutput()
    if isinstance(result, tuple):
        return NodeOutput(*result)
    if isinstance(result, dict):
        return NodeOutput(*result.get("result", ()), ui=result.get("ui"))
    raise WrongNodeError(f"execute returned {type(result).__name__}; expected a NodeOutput")


def _merge(results: list[NodeOutput], info: Mapping[str, Any]) -> NodeResult:
    """Put the results of all calls together: one list for each output, and one for each kind of thing shown."""
    count = len(info["output"])
    for result in results:
        if len(result.args) != count:
            raise WrongNodeError(f"execute returned {len(result.args)} values; the schema has {count} outputs")
    values = [
        [item for result in results for item in (result.args[i] if is_list else [result.args[i]])]
        for i, is_list in enumerate(info["output_is_list"])
    ]
    shown = [each.ui if isinstance(each.ui, dict) else each.ui.as_dict() for each in results if each.ui is not None]
    kinds = shown[0] if shown else {}
    return NodeResult(values, {kind: [item for each in shown for item in each[kind]] for kind in kinds})


def _frozen(value: Any) -> str:
    """Return text that is equal for equal values, and never for what cannot be compared: NaN, tensors, objects."""
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{_frozen(k)}:{_frozen(v)}' for k, v in value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_frozen(each) for each in value)}]"
    if isinstance(value, (str, int, float, bytes, type(None))) and value == value:
        return repr(value)
    return f"unlike anything: {next(_never_again)}"


def _sources_first(prompt: Prompt, outputs: Sequence[str]) -> list[str]:
    """Return the nodes that outputs need, each behind those it is linked to.

    Inputs that a node does not have may be linked to what is not there.
    """
    order: dict[str, None] = {}
    pending = list(reversed(outputs))
    while pending:
        node_id = pending[-1]
        before = [source for source in linked_nodes(prompt[node_id]) if source in prompt and source not in order]
        if before:
            pending.extend(before)
            continue
        order.setdefault(pending.pop())
    return list(order)
