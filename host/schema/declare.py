"""Nodes made of functions: a declaration of a few lines, whose description is the function's docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from . import io
from .inputs import ComfyType

Function = TypeVar("Function", bound=Callable[..., Any])
Inputs = Sequence[io.Input] | Callable[[], Sequence[io.Input]]
Outputs = Sequence[type[ComfyType] | tuple[str, type[ComfyType]] | io.Output]


BY_NAME = {
    "width": "Width in pixels.",
    "height": "Height in pixels.",
    "x": "Distance from the left edge in pixels.",
    "y": "Distance from the top edge in pixels.",
    "strength": "How strongly it acts; 0 is off.",
    "multiplier": "Factor.",
    "dim": "The axis.",
    "batch_size": "How many are made at once.",
    "seed": "Random seed.",
    "text": "The prompt.",
    "filename_prefix": "Folder and beginning of the names.",
}
BY_TYPE = {
    "CLIP": "The text encoder.",
    "CLIP_VISION": "The image encoder.",
    "CLIP_VISION_OUTPUT": "The encoded image.",
    "CONDITIONING": "The encoded prompt.",
    "CONTROL_NET": "The control network.",
    "IMAGE": "The images.",
    "LATENT": "The latents.",
    "LATENT_OPERATION": "The operation.",
    "MASK": "The mask.",
    "MODEL": "The model; it is not changed.",
    "SIGMAS": "The noise levels.",
    "STYLE_MODEL": "The style model.",
    "VAE": "The VAE, which turns images into latents and back.",
}
"""Tooltips of inputs that have none of their own."""

RESULTS = BY_TYPE | {
    "BOOLEAN": "True or false.",
    "COMFY_MATCHTYPE_V3": "The value that was chosen.",
    "FLOAT": "The number.",
    "GUIDER": "The guider, which combines the predictions of a step.",
    "INT": "The whole number.",
    "MODEL": "The changed model.",
    "SAMPLER": "The sampler, which solves the steps.",
    "STRING": "The text.",
}
"""Tooltips of outputs, by type."""


class Nodes(list[type[io.ComfyNode]]):
    """The nodes of a module, all of one category.

    Called with a node's declaration it is a decorator, which leaves the function as it is and adds the node:

        NODES = Nodes("model/latent")

        @NODES("LatentAdd", "LatentAdd", [latent("samples1"), latent("samples2")], [io.Latent])
        def add(samples1: Latent, samples2: Latent) -> Latent:
            "Add latents."
    """

    def __init__(self, category: str) -> None:
        super().__init__()
        self.category = category

    def __call__(
        self,
        node_id: str,
        display_name: str,
        inputs: Inputs,
        outputs: Outputs,
        category: str | None = None,
        validate: Callable[..., bool | str] | None = None,
        fingerprint: Callable[..., Any] | None = None,
        lazy: Callable[..., list[str]] | None = None,
        **schema: Any,
    ) -> Callable[[Function], Function]:
        """Declare a node.

        Args:
            node_id, display_name, schema: as in `Schema`.
            inputs: declared, or a function that declares those whose choices are files.
            outputs: their types, with a name where the type's does not do.
            category: the module's by default.
            validate, fingerprint, lazy: `validate_inputs`, `fingerprint_inputs` and `check_lazy_status` of the node.

        Returns:
            A decorator for the node's `execute`, a function of its inputs by name (and of `hidden`, if it has such an
            argument) that returns a value, a tuple of them, or a `NodeOutput`.
        """

        def add(function: Function) -> Function:
            def declare(cls: type[io.ComfyNode]) -> io.Schema:
                return io.Schema(
                    node_id=node_id,
                    display_name=display_name,
                    category=category or self.category,
                    description=inspect.getdoc(function) or "",
                    inputs=[_explained(each) for each in (inputs() if callable(inputs) else inputs)],
                    outputs=[_output(each) for each in outputs],
                    **schema,
                )

            methods: dict[str, Any] = {
                "define_schema": classmethod(declare),
                "execute": classmethod(_execute(function)),
            }
            optional = {"validate_inputs": validate, "fingerprint_inputs": fingerprint, "check_lazy_status": lazy}
            methods |= {name: _without_class(method) for name, method in optional.items() if method is not None}
            self.append(type(node_id, (io.ComfyNode,), {**methods, "__doc__": function.__doc__}))
            return function

        return add


def heed(answer: bool | str) -> None:
    """Raise ValueError with what a node's `validate` says against values, which may also come over links.

    Args:
        answer: True, or what is wrong.
    """
    if answer is not True:
        raise ValueError(answer)


def _execute(function: Callable[..., Any]) -> Callable[..., io.NodeOutput]:
    wants_hidden = "hidden" in inspect.signature(function).parameters

    def execute(cls: type[io.ComfyNode], **values: Any) -> io.NodeOutput:
        made = function(**values, **({"hidden": cls.hidden} if wants_hidden else {}))
        if isinstance(made, io.NodeOutput):
            return made
        return io.NodeOutput(*made) if isinstance(made, tuple) else io.NodeOutput(made)

    return execute


class _without_class(classmethod):  # noqa: N801 - a decorator
    """A method of a class that is not told the class; its signature, which the host reads, is the function's own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        def method(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        own = inspect.signature(function)
        first = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        method.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
        super().__init__(method)


def _explained(declared: io.Input) -> io.Input:
    if declared.tooltip is None:
        declared.tooltip = BY_NAME.get(declared.id) or BY_TYPE.get(declared.get_io_type())
    return declared


def _output(declared: type[ComfyType] | tuple[str, type[ComfyType]] | io.Output) -> io.Output:
    if isinstance(declared, io.Output):
        return declared
    name, kind = declared if isinstance(declared, tuple) else (None, declared)
    made: Any = kind
    return made.Output(display_name=name, tooltip=RESULTS.get(made.io_type))


def integer(name: str, default: int, low: int, high: int, step: int = 1, **more: Any) -> io.Int.Input:
    """Return a whole number from `low` to `high`."""
    return io.Int.Input(name, default=default, min=low, max=high, step=step, **more)


def decimal(name: str, default: float, low: float, high: float, step: float = 0.01, **more: Any) -> io.Float.Input:
    """Return a number from `low` to `high`."""
    return io.Float.Input(name, default=default, min=low, max=high, step=step, **more)


def choice(name: str, options: Sequence[str], **more: Any) -> io.Combo.Input:
    """Return one of `options`, the first by default."""
    return io.Combo.Input(name, options=options, **more)


def switch(name: str, default: bool, **more: Any) -> io.Boolean.Input:
    """Return a switch."""
    return io.Boolean.Input(name, default=default, **more)


def text(name: str, **more: Any) -> io.String.Input:
    """Return text on several lines."""
    return io.String.Input(name, multiline=True, **more)
