"""What became of a request's parameters, read off the finished graph.

A parameter acts where the graph with it differs from the graph without it. Where both are equal, other values are
tried: if one of them changes the graph, the value is what the graph has anyway; otherwise the parameter has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...host.errors import closest, listed, one_line, shown
from ...host.schema.object_info import inputs_of
from .bodies import nested
from .bodies.nested import Keys
from .bodies.parameters import APPROXIMATED, MAPPED, MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN, Parameter
from .bodies.request import Request
from .drawing.graph_layout import LaidOutGraph, Node
from .drawing.recipe import Note, Recipe

Nodes = Mapping[str, Node]

AS_BY_DEFAULT = "as by default"
IDLE = "nothing in this workflow takes it"
MOST_PLACES = 3
"""Number of inputs that are named where the table of the service names none that changed."""

_NUMBER = re.compile(r" \d+")
"""The number in a role of which there are several: "lora 5", "image prompt 2 image"."""

# What the table says about a value that is left out.
_DEFAULTS = re.compile(r";?\s*(?:Left out:|The document has no default;).*?(?:\.(?=\s|$)|$)")


@dataclass(frozen=True)
class Line:
    """What became of one parameter.

    Attributes:
        refused: whether `--strict` refuses the request for it.
    """

    name: str
    outcome: str
    text: str
    refused: bool = False

    def __str__(self) -> str:
        return one_line(f"{self.name}: {self.outcome}; {self.text}" if self.text else f"{self.name}: {self.outcome}")


@dataclass(frozen=True)
class Report:
    """What is said of a request.

    Attributes:
        recipe: with notes on what its builders left out.
        graph: the finished graph.
        redraw: the nodes that act in the graph of another request; None where it cannot be drawn.
        without: the request without a parameter.
        named: whether the caller names the model instead of the request.
    """

    request: Request
    recipe: Recipe
    graph: LaidOutGraph
    redraw: Callable[[Request], Nodes | None]
    without: Callable[[str], Request]
    named: bool

    @cached_property
    def acting(self) -> Nodes:
        """The nodes that act in the graph."""
        return self.graph.acting()

    def lines(self) -> list[Line]:
        """Return a line for each parameter that has a value and each name in it, and for those not documented."""
        told: list[Line] = []
        for parameter in filter(self._has_value, self.request.table().values()):
            whole = self._line(parameter)
            told += [whole, *self._inside(parameter, whole)]
        return told + [_unknown(self.request, name) for name in self.request.unknown]

    def _inside(self, parameter: Parameter, whole: Line) -> Iterator[Line]:
        """Return a line for each name in the objects of a list; none for objects that do nothing as a whole.

        Args:
            whole: what is said of the list.
        """
        if parameter.keys is None or parameter.name not in self.request.given:
            return
        items = list(self.request[parameter.name])
        for place, item in enumerate(items):
            if self._redrawn(parameter, [*items[:place], *items[place + 1 :]]) == self.acting:
                continue
            for path, value in nested.leaves(item):

                def graph(changed: dict[str, Any], place: int = place) -> Nodes | None:
                    return self._redrawn(parameter, [*items[:place], changed, *items[place + 1 :]])

                outcome, text = self._named(parameter, whole, item, path, value, graph)
                refused = outcome in (UNKNOWN, NOT_YET, NO_EFFECT)
                yield Line(f"{parameter.name}[{place}].{'.'.join(path)}", outcome, text.rstrip("."), refused)

    def _redrawn(self, parameter: Parameter, value: Any) -> Nodes | None:
        return self.redraw(self.request.changed(parameter.name, value))

    def _named(
        self,
        parameter: Parameter,
        whole: Line,
        item: dict[str, Any],
        path: nested.Path,
        value: Any,
        graph: Callable[[dict[str, Any]], Nodes | None],
    ) -> Note:
        """Return what became of the value at a path of an object; `graph` draws the request with another object."""
        name, keys = ".".join(path), parameter.keys or Keys({})
        if name in keys.meaningless:
            return MEANINGLESS, keys.meaningless[name]
        if name not in keys.known:
            return UNKNOWN, f"{self.request.title} documents no such name here; left out{closest(name, keys.known)}"
        if keys.strange(name, value):
            return NOT_YET, f"left out: {shown(value)} is none of {listed(keys.known[name])}"
        other = graph(nested.without(item, path))
        if other != self.acting:
            return parameter.outcome, ", ".join(self._places(parameter, other)) if other else "needed"
        others = (graph(nested.with_value(item, path, each)) for each in keys.known[name] if each != value)
        if any(each not in (None, self.acting) for each in others):
            return MAPPED, AS_BY_DEFAULT
        if reason := keys.why_idle(name, item):
            return NO_EFFECT, reason
        if whole.outcome == NOT_YET:
            return NOT_YET, f"as {parameter.name}"
        return NO_EFFECT, IDLE

    def _has_value(self, parameter: Parameter) -> bool:
        if self.request[parameter.name] is not None or self.request.is_strange(parameter.name):
            return True
        # A model that stands in for one that is not named is told as well.
        stands_in = "model" in self.recipe.missing and "model" in _roles(parameter)
        return stands_in and all(
            self.request[each.name] is None for each in self.request.table().values() if "model" in _roles(each)
        )

    def _line(self, parameter: Parameter) -> Line:
        given = parameter.name in self.request.given
        outcome, text = self._outcome(parameter, given)
        refused = given and outcome in (APPROXIMATED, NOT_YET, NO_EFFECT) and not self._is_harmless(parameter, outcome)
        return Line(parameter.name, outcome, _text(parameter, self.request, text), refused)

    def _is_harmless(self, parameter: Parameter, outcome: str) -> bool:
        """Whether a parameter without effect asks for nothing: it has its default, or the caller replaces it."""
        if outcome != NO_EFFECT or parameter.outcome == NO_EFFECT:
            return False
        default = self.without(parameter.name)[parameter.name]
        return self.request[parameter.name] == default or (self.named and "model" in _roles(parameter))

    def _outcome(self, parameter: Parameter, given: bool) -> Note:
        value, acting = self.request[parameter.name], self.acting
        if self.request.is_strange(parameter.name):
            return NOT_YET, self.request.beside_list(parameter.name)
        if parameter.outcome == MEANINGLESS:
            return MEANINGLESS, parameter.how
        other = self.redraw(self.without(parameter.name)) if given else acting
        changed = other != acting
        if value is not None and not value and not given:
            return MAPPED, "off"
        # What is on unless a request turns it off may have something to say then.
        is_off = value is False and not (parameter.default and parameter.name in self.recipe.notes)
        if is_off or (not changed and value in ("", [], {})):
            return MAPPED, "off" if value is False else "empty"
        note = self._note(parameter)
        if note and not (changed and note[0] == NO_EFFECT):
            usual = AS_BY_DEFAULT if note[0] == MAPPED and given and not changed else ""
            remark = self._remark(parameter)
            return note[0], "; ".join(part for part in (note[1], remark, usual) if part)
        other = other if changed else self._another(parameter, acting)
        if other == acting:
            return NO_EFFECT, self._why_not(parameter)
        return self._acts(parameter, other, given and not changed)

    def _note(self, parameter: Parameter) -> Note | None:
        keys = [*_roles(parameter), *parameter.to.places[:1]]
        missing = next((self.recipe.missing[key] for key in keys if key in self.recipe.missing), None)
        note = self.recipe.notes.get(parameter.name)
        if note and missing and missing[0] == NOT_YET and note[0] != NO_EFFECT:
            # What a request leaves out of a list says nothing of the rest, for which a file is missing.
            return NOT_YET, "; ".join(dict.fromkeys((missing[1], note[1])))
        return note or missing

    def _remark(self, parameter: Parameter) -> str:
        keys = (parameter.name, *_roles(parameter))
        return next((self.recipe.remarks[key] for key in keys if key in self.recipe.remarks), "")

    def _acts(self, parameter: Parameter, other: Nodes | None, usual: bool) -> Note:
        """Return what is said of a parameter that acts; `other` is the graph with another value of it."""
        name = parameter.name
        moved, remark = self.request.beside_list(name), self._remark(parameter)
        how = _DEFAULTS.sub("", parameter.how) if name in self.request.given else parameter.how
        said = [", ".join(self._places(parameter, other)), moved, remark, how, AS_BY_DEFAULT if usual else ""]
        outcome = MAPPED if parameter.outcome == NO_EFFECT else parameter.outcome
        outcome = APPROXIMATED if moved and outcome == MAPPED else outcome
        return outcome, "; ".join(part.rstrip(".") for part in said if part)

    def _another(self, parameter: Parameter, acting: Nodes) -> Nodes | None:
        """Return the graph of the first other value that changes it; the graph as it is where none does."""
        for value in self._others(parameter):
            other = self.redraw(self.request.changed(parameter.name, value))
            if other != acting:
                return other
        return acting

    def _others(self, parameter: Parameter) -> list[Any]:
        """Return other values of a parameter, enough to see whether one changes the graph."""
        value = self.request[parameter.name]
        if parameter.type is bool:
            return [not value]
        if isinstance(value, int | float) and not parameter.choices:
            bounds = parameter.range_for(self.request.family)
            ends = [bound for bound in bounds if bound is not None and bound != value]
            return ends or [value + (parameter.step or 1), value - (parameter.step or 1)]
        offered = (
            [each for place in parameter.to.places for each in self._offered(place)] if parameter.type is str else []
        )
        return [each for each in (*parameter.choices, *offered) if each != value]

    def _offered(self, place: str) -> list[str]:
        """Return what the list of an input offers."""
        role, _, name = place.partition(".")
        node = self.graph.nodes.get(role)
        spec = inputs_of(self.graph.info[node.class_type]).get(name) if node else None
        return list(spec.options.get("options") or []) if spec else []

    def _why_not(self, parameter: Parameter) -> str:
        if self.named and "model" in _roles(parameter):
            return "the model is the one given with --model"
        if parameter.outcome == NO_EFFECT:
            return parameter.how
        return f"needs {parameter.to.needs}" if parameter.to.needs else IDLE

    def _places(self, parameter: Parameter, other: Nodes | None) -> list[str]:
        """Return the changed inputs, first those that the table names; the roles "lora 5" and "lora" are one."""
        changed = [
            (role, name)
            for role, node in self.acting.items()
            for name in inputs_of(self.graph.info[node.class_type])
            if not _is_same(other, node, name) and not self._is_linked_widget(node, name)
        ]
        changed.sort(key=lambda place: list(self.graph.nodes).index(place[0]))
        tabled = [place for entry in parameter.to.places for place in changed if self._is_at(*place, entry)]
        inputs = {role: self.graph.nodes[role].inputs for role, _ in changed}
        values = [(role, name) for role, name in changed if not isinstance(inputs[role].get(name, ()), tuple)]
        found = [*dict.fromkeys(tabled)] or values[:MOST_PLACES]
        return [f"node {self.graph.number(role)} {self.graph.nodes[role].class_type}.{name}" for role, name in found]

    def _is_linked_widget(self, node: Node, name: str) -> bool:
        """Whether the value of a widget comes from another node, which has it then."""
        spec = inputs_of(self.graph.info[node.class_type]).get(name)
        return spec is not None and spec.is_widget and isinstance(node.inputs.get(name), tuple)

    def _is_at(self, role: str, name: str, entry: str) -> bool:
        # The cfg of a model that has its guidance elsewhere is 1.
        elsewhere = name == "cfg" and "guidance" in self.graph.nodes
        return f"{_NUMBER.sub('', role)}.{name}" == entry and not elsewhere


def _is_same(other: Nodes | None, node: Node, name: str) -> bool:
    there = None if other is None else other.get(node.role)
    return there is not None and there.class_type == node.class_type and there.inputs.get(name) == node.inputs.get(name)


def _roles(parameter: Parameter) -> list[str]:
    return [place.partition(".")[0] for place in parameter.to.places]


def _unknown(request: Request, name: str) -> Line:
    title, hint = request.title, closest(name, request.table())
    return Line(name, UNKNOWN, f"{title} documents no such parameter; left out{hint}", True)


def _text(parameter: Parameter, request: Request, text: str) -> str:
    given, value = parameter.name in request.given, request[parameter.name]
    default = "" if given else "left out" if value is None else f"left out, so {shown(value)}"
    deprecated = f"deprecated, use {parameter.to.instead}" if parameter.to.instead and given else ""
    return "; ".join(part.rstrip(".") for part in (default, text, deprecated) if part)
