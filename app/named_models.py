"""What the names of model files tell of a workflow whose models are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..host.errors import named

DENOISERS = {
    "CheckpointLoaderSimple": "ckpt_name",
    "unCLIPCheckpointLoader": "ckpt_name",
    "UNETLoader": "unet_name",
}
"""Inputs that name a denoiser, by their nodes."""

CONTROLS = {"ControlNetLoader", "DiffControlNetLoader"}


def of_no_family(prompt: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each denoiser and control network of a graph that, by their names, need ComfyUI."""
    from ..host.models.families import names, of_file_name

    lines, families = [], []
    for node_id, node in prompt.items():
        name = node["inputs"].get(DENOISERS.get(node["class_type"], ""))
        if not isinstance(name, str):
            continue
        family = of_file_name(name)
        families.append(family)
        if family is None:
            where = named(node_id, node["class_type"], DENOISERS[node["class_type"]])
            lines.append(f"{where}: {name} may need ComfyUI (--engine); by its name it is not {names()}")
    uncontrolled = [family.name for family in families if family and not family.controlled]
    for node_id, node in prompt.items():
        if uncontrolled and len(uncontrolled) == len(families) and node["class_type"] in CONTROLS:
            name = node["inputs"].get("control_net_name")
            where = named(node_id, node["class_type"], "control_net_name")
            lines.append(f"{where}: {name} may need ComfyUI (--engine), as control networks of {uncontrolled[0]} do")
    return lines
