"""Everything that is wrong with a graph, before any of it runs. The rules are those of ComfyUI's `validate_prompt`."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .. import folder_paths
from ..errors import GraphError, Hints, closest, listed, named, one_line, shown
from ..schema.node import overrides
from ..schema.object_info import InputInfo, ObjectInfo, accepts, inputs_of
from .circles import Circle, find_circles, linked_nodes
from .failures import explain
from .faults import Fault, Kind, Wrong
from .mapping import call_mapped, is_link
from .workflow import Prompt

log = logging.getLogger(__name__)

TYPES_IN_WORDS = {"INT": "a whole number", "FLOAT": "a number", "STRING": "text", "BOOLEAN": "true or false"}
CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass(frozen=True)
class Examined:
    """A graph and what is wrong with it.

    Attributes:
        prompt: the nodes whose classes are known, with their values converted.
        outputs: the ids of its output nodes.
        faults: everything that is wrong.
        sound: the nodes with which nothing is wrong, nor with any that they depend on; also those that no output needs.
    """

    prompt: Prompt
    outputs: list[str]
    faults: list[Fault]
    sound: list[str]

    @property
    def runnable(self) -> list[str]:
        """The outputs that depend on nothing that is wrong; none where the graph as a whole is."""
        wrong = {node_id for fault in self.faults for node_id in fault.node_ids}
        whole = any(not fault.node_ids or fault.kind is Kind.UNKNOWN_CLASS for fault in self.faults)
        return [] if whole else [each for each in self.outputs if wrong.isdisjoint(needed(self.prompt, [each]))]

    @property
    def resting(self) -> list[str]:
        """The sound nodes that do not run; what is kept of them stays, as in ComfyUI."""
        running = set(needed(self.prompt, self.runnable))
        return [node_id for node_id in self.sound if node_id not in running]


def validate(prompt: Prompt, object_info: ObjectInfo, any_file: bool = False) -> tuple[Prompt, list[str]]:
    """Check a graph.

    Only what outputs need has to be right, but every class has to be known. Values become the type of their input, as
    in ComfyUI: "5" is a whole number, 7 is text.

    Args:
        prompt: the graph.
        object_info: the nodes that are known.
        any_file: whether every file that the graph names is taken to be there.

    Returns:
        The graph with its values converted, and the ids of its output nodes.

    Raises:
        GraphError: something is wrong; one line for each thing that is.
    """
    examined = examine(prompt, object_info, any_file=any_file)
    if examined.faults:
        raise GraphError(fault.line for fault in examined.faults)
    return examined.prompt, examined.outputs


def examine(
    prompt: Prompt, object_info: ObjectInfo, wanted: Iterable[str] | None = None, any_file: bool = False
) -> Examined:
    """Check a graph as `validate` does, and tell what is wrong instead of raising it.

    Args:
        wanted: the outputs that shall run, by id; all of them by default.
        any_file: as for `validate`.
    """
    hints = Hints()
    faults = [_unknown(node_id, node, object_info, hints) for node_id, node in prompt.items()]
    faults = [fault for fault in faults if fault]
    known = {node_id: node for node_id, node in prompt.items() if node["class_type"] in object_info}
    outputs = [node_id for node_id, node in known.items() if object_info[node["class_type"]]["output_node"]]
    if wanted is not None:
        chosen = set(wanted)
        outputs = [node_id for node_id in outputs if node_id in chosen]
    if not outputs and not faults:
        line = "the graph has no outputs; add a node that saves or shows something, such as SaveImage"
        faults.append(Fault(Kind.NO_OUTPUTS, line))
    checked = dict(known)
    wanting, faulty = set(needed(known, outputs)), set()
    for node_id in known:
        check = _Check(node_id, known, prompt, object_info, hints, any_file)
        if node_id in wanting:
            check.warn_of_unknown()
        if found := check.run():
            faulty.add(node_id)
            faults.extend(found if node_id in wanting else [])
        checked[node_id] = known[node_id] | {"inputs": check.inputs}
    faults.extend(_cycle(circle, known) for circle in find_circles(known, outputs))
    return Examined(checked, outputs, faults, _sound(known, faulty))


def _sound(known: Prompt, faulty: set[str]) -> list[str]:
    """Return the nodes that depend on none that is faulty, unknown or in a circle."""
    sorter = TopologicalSorter({node_id: linked_nodes(node) for node_id, node in known.items()})
    with suppress(CycleError):  # What is in no circle, nor behind one, is sorted all the same.
        sorter.prepare()
    sound: set[str] = set()
    while ready := sorter.get_ready():
        good = (node_id for node_id in ready if node_id in known and node_id not in faulty)
        sound.update([node_id for node_id in good if sound.issuperset(linked_nodes(known[node_id]))])
        sorter.done(*ready)
    return [node_id for node_id in known if node_id in sound]


def _unknown(node_id: str, node: Mapping[str, Any], object_info: ObjectInfo, hints: Hints) -> Fault | None:
    class_type = node["class_type"]
    if class_type in object_info:
        return None
    hint = (
        hints.closest(class_type, object_info)
        or "; take it out, or open the workflow in ComfyUI with the pack that has it"
    )
    line = f"{named(node_id, class_type)}: unknown node type; expected one that tessera nodes lists{hint}"
    return Fault(Kind.UNKNOWN_CLASS, line, (node_id,))


def _cycle(circle: Circle, known: Prompt) -> Fault:
    drawn = " -> ".join(f"{one_line(i)} {one_line(known[i]['class_type'])}" for i in circle)
    line = f"the links run in a circle: {drawn}; take one of them away"
    return Fault(Kind.CYCLE, line, circle[:-1], found=circle)


def check_again(prompt: Prompt, changed: Iterable[str], object_info: ObjectInfo) -> Prompt:
    """Check nodes of a graph whose other nodes `validate` has found right.

    Args:
        prompt: the graph, with values that were changed and the same links.
        changed: the ids of the nodes that they belong to.

    Returns:
        The graph with their values converted.

    Raises:
        GraphError: something is wrong; one line for each thing that is.
    """
    hints = Hints()
    checks = [_Check(node_id, prompt, prompt, object_info, hints) for node_id in changed]
    for check in checks:
        check.warn_of_unknown()
    faults = [fault for check in checks for fault in check.run()]
    if faults:
        raise GraphError(fault.line for fault in faults)
    return {**prompt, **{check.node_id: {**prompt[check.node_id], "inputs": check.inputs} for check in checks}}


def needed(prompt: Mapping[str, Mapping[str, Any]], outputs: list[str]) -> list[str]:
    """Return the ids of the outputs and of all they depend on, in the order of the graph."""
    found: set[str] = set()
    pending = list(outputs)
    while pending:
        node_id = pending.pop()
        if node_id not in found and node_id in prompt:
            found.add(node_id)
            pending.extend(linked_nodes(prompt[node_id]))
    return [node_id for node_id in prompt if node_id in found]


@dataclass
class _Check:
    """The check of one node. `inputs` are its values, converted as far as they could be."""

    node_id: str
    known: Mapping[str, Mapping[str, Any]]
    prompt: Prompt
    object_info: ObjectInfo
    hints: Hints
    any_file: bool = False

    def __post_init__(self) -> None:
        self.class_type = self.prompt[self.node_id]["class_type"]
        self.inputs = dict(self.prompt[self.node_id]["inputs"])
        self.node = self.object_info.classes[self.class_type]
        self.specs = inputs_of(self.object_info[self.class_type], self.inputs)
        self.has_own = overrides(self.node, "validate_inputs")
        signature = inspect.getfullargspec(self.node.validate_inputs)
        self.own_takes_all = self.has_own and signature.varkw is not None
        # As in ComfyUI, which does not see arguments behind a star.
        self.own_names = set(signature.args[1:]) if self.has_own else set()

    def run(self) -> list[Fault]:
        wrong = [(spec, found) for spec in self.specs.values() if (found := self._check_input(spec))]
        faults = [self._fault(spec, found) for spec, found in wrong]
        return faults + (self._own_check(sure=not faults) if self.has_own else [])

    def _fault(self, spec: InputInfo, wrong: Wrong) -> Fault:
        line = f"{named(self.node_id, self.class_type, spec.name)}: {wrong.text}"
        return Fault(wrong.kind, line, (self.node_id,), (spec,), self.inputs.get(spec.name), wrong.reason)

    def warn_of_unknown(self) -> None:
        """Log the names of inputs that the node does not have."""
        if self.object_info.accepts_all(self.class_type):
            return
        for name in self.inputs.keys() - self.specs.keys():
            if name.partition(".")[0] in self.specs:
                continue  # One of the inputs that a group such as `images` grows: `images.image0`.
            hint = self.hints.closest(name, self.specs)
            log.warning("%s: unknown input, left out%s", named(self.node_id, self.class_type, name), hint)

    def _check_input(self, spec: InputInfo) -> Wrong | None:
        if spec.name not in self.inputs:
            text = f"missing; expected {expected(spec)}; {_remedy(spec)}"
            return Wrong(Kind.MISSING, text) if spec.required else None
        value = self.inputs[spec.name]
        if isinstance(value, list):
            return self._check_link(spec, value)
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        if not spec.takes_values:
            if value is None and not spec.required:
                return None
            text = f"found {shown(value)}; expected a link to {spec.type}; {_remedy(spec)}"
            return Wrong(Kind.WRONG_TYPE, text, "a value, not a link")
        try:
            value = CONVERSIONS.get(spec.type, lambda same: same)(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            text = f"found {shown(value)}; expected {expected(spec)}; {_remedy(spec)}"
            return Wrong(Kind.WRONG_TYPE, text, str(error))
        value = _option(spec, value)
        self.inputs[spec.name] = value
        if self.any_file and _names_file(spec):
            return None
        if self._own_checks(spec.name):
            options = spec.options.get("options", [])
            return None if _may_be_chosen(spec, value) else Wrong(Kind.NOT_IN_LIST, _not_in_list(spec, value, options))
        return _check_value(spec, value)

    def _own_checks(self, name: str) -> bool:
        return self.own_takes_all or name in self.own_names

    def _check_link(self, spec: InputInfo, link: list[Any]) -> Wrong | None:
        if not is_link(link):
            text = f'found {shown(link)}; expected a link ["node id", output number]; connect it anew'
            return Wrong(Kind.BAD_LINK, text)
        source, slot = link
        if source not in self.prompt:
            hint = self.hints.closest(source, self.prompt) or "; connect it anew"
            text = f"linked to node {shown(source)}, which is not there{hint}"
            return Wrong(Kind.BAD_LINK, text, f"there is no node {shown(source)}")
        if source not in self.known:
            return None  # That class is unknown, which is reported by itself.
        class_type = self.prompt[source]["class_type"]
        given = self.object_info[class_type]["output"]
        if not 0 <= slot < len(given):
            last = f"0 to {len(given) - 1}" if given else "none"
            text = f"linked to output {slot} of {named(source, class_type)}; it has {last}; connect it anew"
            return Wrong(Kind.BAD_LINK, text, f"there is no output {slot}")
        if "input_types" in self.own_names or accepts(spec.type, given[slot]):
            return None
        text = (
            f"linked to output {slot} of {named(source, class_type)}, which gives {given[slot]}; "
            f"expected {spec.type}; connect an output of that type"
        )
        return Wrong(Kind.MISMATCH, text, given[slot])

    def _own_check(self, sure: bool) -> list[Fault]:
        """Ask the node itself; linked inputs are None to it, and those that the graph leaves out are left out.

        As in ComfyUI, what the node says belongs to the inputs that it was asked for; where there are none, it says
        nothing.

        Args:
            sure: nothing else is wrong with the node; else it may stumble over what has been refused already.
        """
        given = {
            name: [None] if is_link(value) else [value] for name, value in self.inputs.items() if name in self.specs
        }
        asked = {name: value for name, value in given.items() if self._own_checks(name)}
        if self.any_file and any(_names_file(self.specs[name]) for name in asked):
            return []
        if "input_types" in self.own_names:
            asked["input_types"] = [self._received_types()]
        if not asked:
            return []
        try:
            answers = call_mapped(self.node, "validate_inputs", asked, self.object_info[self.class_type])
        except Exception as error:
            log.debug("validate_inputs of %s failed", self.class_type, exc_info=True)
            if not sure:
                return []
            answers = [explain(error)]
        reasons = [
            str(answer) if answer is not False else "the node refuses these values"
            for answer in answers
            if answer is not True
        ]
        specs = tuple(self.specs[name] for name in asked if name in self.specs)
        lines = {reason: f"{self._where(reason, asked)}: {reason}" for reason in reasons}
        return [Fault(Kind.REFUSED, line, (self.node_id,), specs, None, reason) for reason, line in lines.items()]

    def _where(self, reason: str, asked: Iterable[str]) -> str:
        """Return the node, and its inputs that a reason names; all that it was asked for where it names none."""
        told = [name for name in asked if re.search(rf"\b{re.escape(name)}\b", reason)]
        return named(self.node_id, self.class_type, ", ".join(told or asked))

    def _received_types(self) -> dict[str, str]:
        links = {name: value for name, value in self.inputs.items() if is_link(value) and value[0] in self.known}
        received = {}
        for name, (source, slot) in links.items():
            given = self.object_info[self.known[source]["class_type"]]["output"]
            if 0 <= slot < len(given):
                received[name] = given[slot]
        return received


def _names_file(spec: InputInfo) -> bool:
    return isinstance(spec.options.get("options"), folder_paths.FileNames)


def _check_value(spec: InputInfo, value: Any) -> Wrong | None:
    if spec.is_dynamic:
        keys = [option["key"] for option in spec.options["options"]]
        return None if value in keys else Wrong(Kind.NOT_IN_LIST, _not_in_list(spec, value, keys))
    if spec.type == "COMBO":
        options = spec.options.get("options", [])
        return None if value in options else Wrong(Kind.NOT_IN_LIST, _not_in_list(spec, value, options))
    low, high = spec.options.get("min"), spec.options.get("max")
    text = f"found {shown(value)}; expected {expected(spec)}; {_remedy(spec)}"
    # Written so that NaN, which compares false with everything, is out of range.
    if low is not None and not value >= low:
        return Wrong(Kind.TOO_SMALL, text)
    return Wrong(Kind.TOO_BIG, text) if high is not None and not value <= high else None


def _option(spec: InputInfo, value: Any) -> Any:
    """Return the option that a value is on another system: Windows writes "sd\\moss.safetensors"."""
    options = spec.options.get("options", [])
    if spec.type != "COMBO" or not isinstance(value, str) or value in options:
        return value
    slashed = value.replace("\\", "/")
    same = (each for each in options if isinstance(each, str) and each.replace("\\", "/") == slashed)
    return next(same, value)


def _may_be_chosen(spec: InputInfo, value: Any) -> bool:
    """Return whether the node itself can be asked about a value: options are texts, as names of files are."""
    options = spec.options.get("options", [])
    return spec.type != "COMBO" or isinstance(value, str) or value in options


def _not_in_list(spec: InputInfo, value: Any, options: list[Any]) -> str:
    if not options:
        uploads = any(name.endswith("_upload") and on for name, on in spec.options.items())
        folder = folder_paths.get_input_directory() if uploads else folder_paths.models_dir
        return f"found {shown(value)}; there is no such file to choose; put one into its folder in {folder}"
    hint = closest(value, options) or "; choose one of them"
    return f"found {shown(value)}; expected one of {listed(options)}{hint}"


def expected(spec: InputInfo) -> str:
    """Say in words what an input takes."""
    if spec.is_dynamic:
        return f"one of {listed([option['key'] for option in spec.options['options']])}"
    if spec.type == "COMBO":
        return f"one of {listed(spec.options.get('options', []))}"
    if not spec.is_widget:
        return f"a link to {spec.type}"
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and high is not None:
        return f"{TYPES_IN_WORDS.get(spec.type, spec.type)} from {low} to {high}"
    bounds = [f" of at least {low}"] * (low is not None) + [f" of at most {high}"] * (high is not None)
    return TYPES_IN_WORDS.get(spec.widget_type, "a value") + "".join(bounds)


def _remedy(spec: InputInfo) -> str:
    if not spec.is_widget:
        return "connect it"
    default = spec.options.get("default")
    return "set it" if default is None else f"set it, for example to {shown(default)}"
