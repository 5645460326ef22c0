"""How a node is declared: schema, hidden inputs, result and the base class of `comfy_api.latest.io`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Protocol

from .dynamic import declared
from .inputs import Input, Output


class Hidden(str, Enum):
    """What a node may ask its host for. The host answers unique_id, prompt and extra_pnginfo, and None to the rest."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"  # noqa: S105 - a name, not a token
    api_key_comfy_org = "API_KEY_COMFY_ORG"
    comfy_usage_source = "COMFY_USAGE_SOURCE"


class HiddenHolder:
    """The answers: an attribute for each member of `Hidden`, None where it was not asked for."""

    def __init__(self, answers: Mapping[Hidden, Any]) -> None:
        self._answers = {hidden.name: value for hidden, value in answers.items()}

    def __getattr__(self, name: str) -> Any:
        return None if name.startswith("__") else self._answers.get(name)


@dataclass
class Schema:
    """A node's declaration; the fields are ComfyUI's."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    not_idempotent: bool = False
    essentials_category: str | None = None
    has_intermediate_output: bool = False
    accept_all_inputs: bool = False

    def validate(self) -> None:
        """Raise ValueError where two inputs, or two outputs, have one id."""
        for kind, slots in (("input", self.inputs), ("output", self.outputs)):
            ids = [str(slot.id) for slot in slots]
            twice = sorted({i for i in ids if ids.count(i) > 1})
            if twice:
                raise ValueError(f"{self.node_id}: {kind} ids must be unique, but {', '.join(twice)} is there twice.")

    def finalize(self) -> None:
        """Give output nodes what they save with an image, and outputs without an id one."""
        if self.is_output_node:
            self.hidden = list(dict.fromkeys([*self.hidden, Hidden.prompt, Hidden.extra_pnginfo]))
        for index, output in enumerate(self.outputs):
            output.id = output.id or f"_{index}_{output.io_type}_"

    def get_v1_info(self, cls: type[ComfyNode]) -> dict[str, Any]:
        """Return the node's entry in /object_info."""
        inputs = self._input_types()
        return {
            "input": inputs,
            "input_order": {kind: list(named) for kind, named in inputs.items()},
            "is_input_list": self.is_input_list,
            "output": [o.io_type for o in self.outputs],
            "output_is_list": [o.is_output_list for o in self.outputs],
            "output_name": [o.display_name or o.io_type for o in self.outputs],
            "output_tooltips": [o.tooltip for o in self.outputs],
            "output_matchtypes": None,
            "name": self.node_id,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": cls.RELATIVE_PYTHON_MODULE,
            "category": self.category,
            "output_node": self.is_output_node,
            "deprecated": self.is_deprecated,
            "experimental": self.is_experimental,
            "dev_only": self.is_dev_only,
            "api_node": False,
            "price_badge": None,
            "search_aliases": self.search_aliases or None,
            "essentials_category": self.essentials_category,
            "has_intermediate_output": self.has_intermediate_output,
        }

    def _input_types(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        kinds: dict[str, dict[str, tuple[Any, ...]]] = {**declared(self.inputs)}
        if self.hidden:
            kinds["hidden"] = {hidden.name: (hidden.value,) for hidden in self.hidden}
        return kinds


class UIOutput(Protocol):
    """What a node shows: see `ui`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the lists that the interface gets, by kind: `{"images": [...], "text": [...]}`."""
        ...


class NodeOutput:
    """What `execute` returns: one value for each output, and what to show."""

    def __init__(self, *args: Any, ui: UIOutput | dict[str, Any] | None = None) -> None:
        self.args = args
        self.ui = ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The values, or None where there are none."""
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class WrongNodeError(TypeError):
    """A node breaks the rules that nodes have."""


class ComfyNode:
    """Base of every node. A node is its class: it has no instances and no state."""

    RELATIVE_PYTHON_MODULE: ClassVar[str] = "nodes"
    hidden: ClassVar[HiddenHolder] = HiddenHolder({})

    @classmethod
    def define_schema(cls) -> Schema:
        """Declare the node. Called often: pure and cheap."""
        raise NotImplementedError

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """Do the node's work; the arguments are the inputs by name. May be async."""
        raise NotImplementedError

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """Check typed-in inputs before anything runs: True, or what is wrong. Inputs named here skip the limits."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a value that changes when the node has to run again although its inputs are the same."""
        raise NotImplementedError

    @classmethod
    def check_lazy_status(cls, *args: Any, **kwargs: Any) -> list[str]:
        """Return which lazy inputs are needed after all; those not there yet are None."""
        return [name for name, value in kwargs.items() if value is None]

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802 - the name ComfyUI gave it
        """Return the finished and checked declaration."""
        schema = cls.define_schema()
        schema.finalize()
        schema.validate()
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802 - the name ComfyUI gave it
        """Return the node's entry in /object_info."""
        return cls.GET_SCHEMA().get_v1_info(cls)


class _Locked(type):
    def __setattr__(cls, name: str, value: Any) -> None:
        raise WrongNodeError(f"{cls.__name__}.{name} cannot be set while the node runs: a node has no state.")


def overrides(node: type[ComfyNode], method: str) -> bool:
    """Return whether a node has its own version of an optional method."""
    return getattr(node, method).__func__ is not getattr(ComfyNode, method).__func__


def bound(node: type[ComfyNode], method: str, answers: Mapping[Hidden, Any] | None = None) -> Any:
    """Return a node's method as the host calls it: the class is locked and knows its hidden inputs."""
    locked = _Locked(node.__name__, (node,), {"hidden": HiddenHolder(answers or {})})
    return getattr(locked, method)
