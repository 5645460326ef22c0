"""Nodes whose jobs a test can follow and disturb, graphs of them, and what a batch of them leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from graph_nodes import node
from tessera.host import folder_paths
from tessera.host.schema import io, ui

Outcome = tuple[int, list[str], list[str]]
Tessera = Callable[..., Outcome]
RUNS: list[int] = []
FAULTS: dict[int, list[BaseException]] = {}
"""What a shade raises, try by try."""


class Shade(io.ComfyNode):
    """A grey image, or a fault."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Shade",
            inputs=[io.Int.Input("grey", default=0, min=0, max=255), io.String.Input("model", default="")],
            outputs=[io.Image.Output(), io.Int.Output(display_name="grey")],
        )

    @classmethod
    def execute(cls, grey: int, model: str) -> io.NodeOutput:
        RUNS.append(grey)
        if FAULTS.get(grey):
            raise FAULTS[grey].pop(0)
        return io.NodeOutput(torch.full((1, 4, 6, 3), grey / 255), grey)


class Open(io.ComfyNode):
    """An image of the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Open",
            inputs=[io.Combo.Input("image", options=[], upload=io.UploadType.image)],
            outputs=[io.String.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        return folder_paths.exists_annotated_filepath(image) or f"{image} is not there"

    @classmethod
    def fingerprint_inputs(cls, image: str) -> str:
        return Path(folder_paths.get_annotated_filepath(image)).read_text()

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        return io.NodeOutput(Path(folder_paths.get_annotated_filepath(image)).read_text())


class Tell(io.ComfyNode):
    """An output that shows a text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="Tell", is_output_node=True, inputs=[io.String.Input("text", force_input=True)])

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput(ui=ui.PreviewText(text))


GRAPH = {"1": node("Shade", grey=1, model="a"), "2": node("Save", images=["1", 0], filename_prefix="tile")}
FILES = {"1": node("Open", image="x.png"), "2": node("Tell", text=["1", 0])}


def table(*greys: object) -> str:
    Path("table.csv").write_text("\n".join(["grey", *map(str, greys), ""]))
    return "table.csv"


def lines(folder: str = "batch") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def contents(folder: str = "batch") -> dict[str, bytes]:
    """The files of all jobs, each named by exactly one line."""
    named = [name for line in lines(folder) for name in line["files"]]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).glob("*/*")}
    assert sorted(named) == sorted(found)
    return found
