"""Node classes of no use but to test the graph runner, and graphs made of them."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import torch
from tessera.host import progress
from tessera.host.schema import io, ui
from tessera.host.schema.node import ComfyNode
from tessera.host.schema.object_info import ObjectInfo

# The ids of the nodes that ran, in order; a test clears it first.
CALLS: list[str] = []
FAILURES = {
    "value": ValueError("the file is cut short; get it again"),
    "bug": KeyError("weight"),
    "memory": torch.cuda.OutOfMemoryError("tried to allocate 3 GiB"),
    "memory of the processor": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: tried to allocate 9 bytes."
    ),
    "full disk": OSError(errno.ENOSPC, "No space left on device", "a.png"),
    "a file for a folder": NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"),
    "package": ModuleNotFoundError("No module named 'spandrel'"),
    "lines": RuntimeError("one\ntwo\r\n\tthree \x1b[31m"),
}
COLOURS = ["red", "green", "blue"]


class Number(io.ComfyNode):
    """A number, every kind of widget, and nothing linked."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Number",
            inputs=[
                io.Int.Input("value", default=1, min=0, max=10),
                io.Float.Input("weight", default=0.5, min=0.0, max=1.0, optional=True),
                io.String.Input("text", default="", dynamic_prompts=True, optional=True),
                io.Boolean.Input("on", default=True, optional=True),
                io.Combo.Input("colour", options=COLOURS, default="red", optional=True),
            ],
            outputs=[io.Int.Output(), io.String.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, value: int, text: str = "", **_: Any) -> io.NodeOutput:
        CALLS.append(cls.hidden.unique_id)
        return io.NodeOutput(value, text)


class Seeded(io.ComfyNode):
    """A seed before another widget: the interface puts a word between the two."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Seeded",
            inputs=[
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1),
                io.Int.Input("steps", default=20, min=1, max=100),
                io.Custom("NUMBER,INT").Input("start", optional=True),
            ],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, seed: int, steps: int, start: int = 0) -> io.NodeOutput:
        return io.NodeOutput(seed + steps + start)


class Add(io.ComfyNode):
    """The sum of two numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Add",
            inputs=[io.Int.Input("a", force_input=True), io.Int.Input("b", force_input=True)],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, a: int, b: int) -> io.NodeOutput:
        CALLS.append("Add")
        return io.NodeOutput(a + b)


class Spread(io.ComfyNode):
    """A list of numbers; each following node runs for each of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Spread",
            inputs=[io.Int.Input("count", default=3, min=0, max=9)],
            outputs=[io.Int.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, count: int) -> io.NodeOutput:
        return io.NodeOutput(list(range(count)))


class Total(io.ComfyNode):
    """The sum of a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Total",
            is_input_list=True,
            inputs=[io.Int.Input("values", force_input=True), io.Int.Input("scale", default=1)],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, values: list[int], scale: list[int]) -> io.NodeOutput:
        return io.NodeOutput(sum(values) * scale[0])


class Later(io.ComfyNode):
    """An async node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Later", inputs=[io.Int.Input("value")], outputs=[io.Int.Output()])

    @classmethod
    async def execute(cls, value: int) -> io.NodeOutput:
        await asyncio.sleep(0)
        return io.NodeOutput(value)


class Either(io.ComfyNode):
    """One of two numbers; the other is never made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Either",
            inputs=[
                io.Boolean.Input("first", default=True),
                io.Int.Input("a", force_input=True, lazy=True),
                io.Int.Input("b", force_input=True, lazy=True),
            ],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def check_lazy_status(cls, first: bool, a: int | None, b: int | None) -> list[str]:
        return ["a" if first else "b"]

    @classmethod
    def execute(cls, first: bool, a: int | None, b: int | None) -> io.NodeOutput:
        return io.NodeOutput(a if first else b)


class Clock(io.ComfyNode):
    """A node that says itself when it has changed."""

    now: float = 0.0

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Clock", inputs=[], outputs=[io.Float.Output()])

    @classmethod
    def fingerprint_inputs(cls) -> float:
        return Clock.now

    @classmethod
    def execute(cls) -> io.NodeOutput:
        CALLS.append("Clock")
        return io.NodeOutput(Clock.now)


class Once(io.ComfyNode):
    """A node whose twins do not share a result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Once", inputs=[], outputs=[io.Int.Output()], not_idempotent=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        CALLS.append("Once")
        return io.NodeOutput(len(CALLS))


class Even(io.ComfyNode):
    """A node with rules of its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Even", inputs=[io.Int.Input("value", default=2, min=0, max=10)], outputs=[io.Int.Output()]
        )

    @classmethod
    def validate_inputs(cls, value: int) -> bool | str:
        return value % 2 == 0 or f"{value} is odd; set an even number"

    @classmethod
    def execute(cls, value: int) -> io.NodeOutput:
        return io.NodeOutput(value)


class Broken(io.ComfyNode):
    """Fails, in the way it is told."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        ways = [*FAILURES, "interrupt", "two outputs"]
        return io.Schema(node_id="Broken", inputs=[io.Combo.Input("way", options=ways)], outputs=[io.Int.Output()])

    @classmethod
    def execute(cls, way: str) -> io.NodeOutput:
        if way in FAILURES:
            raise FAILURES[way]
        if way == "interrupt":
            progress.interrupt_current_processing()
            progress.ProgressBar(2).update(1)
        return io.NodeOutput(1, 2)


class Show(io.ComfyNode):
    """An output: shows whatever comes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Show", is_output_node=True, inputs=[io.AnyType.Input("value")])

    @classmethod
    def execute(cls, value: Any) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(str(value)))


class Glimpse(io.ComfyNode):
    """Shows a number, and hands it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Glimpse",
            has_intermediate_output=True,
            inputs=[io.Int.Input("value", force_input=True)],
            outputs=[io.Int.Output()],
        )

    @classmethod
    def execute(cls, value: int) -> io.NodeOutput:
        return io.NodeOutput(value, ui=ui.PreviewText(str(value)))


class Paint(io.ComfyNode):
    """Small grey images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Paint", inputs=[io.Int.Input("batch", default=1, min=1, max=4)], outputs=[io.Image.Output()]
        )

    @classmethod
    def execute(cls, batch: int) -> io.NodeOutput:
        return io.NodeOutput(torch.full((batch, 4, 6, 3), 0.5))


class Save(io.ComfyNode):
    """An output: saves images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Save",
            is_output_node=True,
            inputs=[io.Image.Input("images"), io.String.Input("filename_prefix", default="image")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, filename_prefix: str) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.ImageSaveHelper.get_save_images_ui(images, filename_prefix, cls))


class Pick(io.ComfyNode):
    """A file of the input folder, with an upload button, and a widget after it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Pick",
            inputs=[
                io.Combo.Input("image", options=["a.png", "b.png"], upload=io.UploadType.image),
                io.Combo.Input("channel", options=COLOURS),
                io.Int.Input("border", default=0, optional=True),
            ],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, image: str, channel: str, border: int = 0) -> io.NodeOutput:
        return io.NodeOutput(f"{image} {channel} {border}")


CLASSES: dict[str, type[ComfyNode]] = {
    node.GET_SCHEMA().node_id: node
    for node in (
        *(Number, Seeded, Add, Spread, Total, Later, Either, Clock, Once, Even, Broken, Show),
        *(Glimpse, Paint, Save, Pick),
    )
}
INFO = ObjectInfo(CLASSES)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """An API-format node."""
    return {"class_type": class_type, "inputs": inputs}
