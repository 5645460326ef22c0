# pyright: reportMissingImports=false
"""Nodes that expand into others when they run, made of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy_api.latest import io

OURS = {"IPADAPTER": "IP_ADAPTER"}
"""Types of other packs that are a type of ours here."""
WIDGETS = {"INT": "Int", "FLOAT": "Float", "STRING": "String", "BOOLEAN": "Boolean"}
"""Names in `io` of types that are typed in."""
BOUNDS = {"INT": {"min": 0, "max": 2**64 - 1}, "FLOAT": {"min": -100.0, "max": 100.0, "step": 0.01}}


def make(
    ours: str, theirs: str, entry: Mapping[str, Any], rule: Callable[..., Any], files: Callable[[], list[str]]
) -> type[io.ComfyNode]:
    """Make one node that stands in for another pack's; the arguments are those of `stand_ins` for it."""

    def define_schema(cls: Any) -> io.Schema:
        return io.Schema(
            node_id=ours,
            display_name=theirs,
            category="Tessera/moved in",
            description=f"Stands in for {theirs} of another pack, and is made of Tessera's and ComfyUI's nodes.",
            is_deprecated=True,
            enable_expand=True,
            inputs=[
                _input(name, kind, options, group == "optional")
                for group, named in entry["input"].items()
                for name, (kind, options) in named.items()
            ],
            outputs=[
                *(io.Custom(OURS.get(kind, kind)).Output(display_name=kind.lower()) for kind in entry["output"]),
                io.String.Output(display_name="report"),
            ],
        )

    def execute(cls: Any, **given: Any) -> io.NodeOutput:
        parts = rule(given, files())
        said = "\n".join(parts.notes) or "Every value has a counterpart."
        graph, outputs = _graph(parts)
        return io.NodeOutput(*outputs[: len(entry["output"])], said, expand=graph, ui={"text": (said,)})

    methods = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    return type(ours, (io.ComfyNode,), methods)


def _input(name: str, kind: str, options: Mapping[str, Any], optional: bool) -> Any:
    told = {"optional": optional, "tooltip": f"As in the other pack: {name}."}
    if kind == "COMBO" and options["options"]:
        return io.Combo.Input(name, options=list(options["options"]), default=options["default"], **told)
    if kind == "COMBO":
        return io.String.Input(name, default=options.get("default", ""), **told)
    if kind in WIDGETS:
        more = {key: options[key] for key in ("default", "control_after_generate") if key in options}
        return getattr(io, WIDGETS[kind]).Input(name, **BOUNDS.get(kind, {}), **more, **told)
    return io.Custom(OURS.get(kind, kind)).Input(name, raw_link=True, **told)


def _graph(parts: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return what ComfyUI runs in the node's place, and where its outputs come from."""
    from comfy_execution.graph_utils import GraphBuilder

    builder = GraphBuilder()
    made = {name: builder.node(node["class_type"], name or "self") for name, node in parts.nodes.items()}

    def linked(value: Any) -> Any:
        inside = isinstance(value, list) and str(value[0]).startswith("@")
        return made[value[0][1:]].out(value[1]) if inside else value

    for name, node in parts.nodes.items():
        for key, value in node["inputs"].items():
            made[name].set_input(key, linked(value))
    return builder.finalize(), [linked(value) for value in parts.outputs]
