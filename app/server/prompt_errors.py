"""What is wrong with a prompt, in ComfyUI's shape and words.

The words are ComfyUI's own because editors and scripts look for them; ours stand beside them, as `line`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...host.graph.faults import Fault, Kind
from ...host.graph.validation import Examined, needed
from ...host.schema.object_info import InputInfo

LONGEST_CHOICE = 20
"""A list of more choices is not sent back."""

MESSAGES = {
    Kind.MISSING: "Required input is missing",
    Kind.BAD_LINK: "Bad linked input, must be a length-2 list of [node_id, slot_index]",
    Kind.MISMATCH: "Return type mismatch between linked nodes",
    Kind.WRONG_TYPE: "Failed to convert an input value to a {type} value",
    Kind.TOO_SMALL: "Value {found} smaller than min of {min}",
    Kind.TOO_BIG: "Value {found} bigger than max of {max}",
    Kind.NOT_IN_LIST: "Value not in list",
    Kind.REFUSED: "Custom validation failed for node",
}

Error = dict[str, Any]


def error(kind: str, message: str, details: str = "", **extra_info: Any) -> Error:
    """Return one error."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def node_errors(examined: Examined) -> dict[str, Error]:
    """Return by node id what is wrong with it, and which outputs cannot run for it."""
    found: dict[str, Error] = {}
    for fault in examined.faults:
        for node_id in fault.node_ids:
            class_type = examined.prompt[node_id]["class_type"]
            told = found.setdefault(node_id, {"errors": [], "dependent_outputs": [], "class_type": class_type})
            told["errors"].extend(_errors(fault, node_id, examined))
    for output in examined.outputs:
        for node_id in found.keys() & set(needed(examined.prompt, [output])):
            found[node_id]["dependent_outputs"].append(output)
    return found


def prompt_error(examined: Examined, prompt: Mapping[str, Any]) -> Error | None:
    """Return why nothing of a prompt can run; None where something can."""
    unknown = [fault for fault in examined.faults if fault.kind is Kind.UNKNOWN_CLASS]
    if unknown:
        node_id = unknown[0].node_ids[0]
        return missing_class(node_id, prompt[node_id], unknown[0].line)
    if any(fault.kind is Kind.NO_OUTPUTS for fault in examined.faults):
        return error(Kind.NO_OUTPUTS.value, "Prompt has no outputs", line=examined.faults[0].line)
    if examined.runnable:
        return None
    every = (each for told in node_errors(examined).values() for each in told["errors"])
    details = "\n".join(f"{each['message']}: {each['details']}" for each in every)
    return error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)


def missing_class(node_id: str, node: Any, line: str) -> Error:
    """Return the error of a node whose class is unknown, or not said."""
    meta = node.get("_meta") if isinstance(node, dict) else None
    title = meta.get("title") if isinstance(meta, dict) else None
    class_type = node.get("class_type") if isinstance(node, dict) else None
    if class_type is None:
        who = title or f"ID #{node_id}"
        message = f"Node '{who}' has no class_type. The workflow may be corrupted or a custom node is missing."
    else:
        message = f"Node '{title or class_type}' not found. The custom node may not be installed."
    about = {"node_id": node_id, "class_type": class_type, "node_title": title or class_type}
    return error(Kind.UNKNOWN_CLASS.value, message, f"Node ID '#{node_id}'", **about, line=line)


def _errors(fault: Fault, node_id: str, examined: Examined) -> list[Error]:
    if fault.kind is Kind.CYCLE:
        path = " -> ".join(f"{each} ({examined.prompt[each]['class_type']})" for each in fault.found)
        about = {"node_id": node_id, "cycle_nodes": list(fault.node_ids), "line": fault.line}
        return [error(Kind.CYCLE.value, "Dependency cycle detected", path, **about)]
    return [_input_error(fault, spec) for spec in fault.inputs]


def _input_error(fault: Fault, spec: InputInfo) -> Error:
    about: dict[str, Any] = {"input_name": spec.name}
    if fault.kind not in (Kind.MISSING, Kind.REFUSED):
        hidden = fault.kind is Kind.NOT_IN_LIST and len(spec.options.get("options", [])) > LONGEST_CHOICE
        about["input_config"] = None if hidden else [spec.type, dict(spec.options)]
        about["received_value"] = fault.found
    if fault.kind is Kind.MISMATCH:
        about["received_type"], about["linked_node"] = fault.reason, about.pop("received_value")
    if fault.kind is Kind.WRONG_TYPE:
        about["exception_message"] = fault.reason
    message = MESSAGES[fault.kind].format(
        type=spec.type, found=fault.found, min=spec.options.get("min"), max=spec.options.get("max")
    )
    return error(fault.kind.value, message, _details(fault, spec), **about, line=fault.line)


def _details(fault: Fault, spec: InputInfo) -> str:
    if fault.kind is Kind.WRONG_TYPE:
        return f"{spec.name}, {fault.found}, {fault.reason}"
    if fault.kind is Kind.MISMATCH:
        return f"{spec.name}, received_type({fault.reason}) mismatch input_type({spec.type})"
    if fault.kind is Kind.NOT_IN_LIST:
        options = spec.options.get("options", [])
        known = str(options) if len(options) <= LONGEST_CHOICE else f"(list of length {len(options)})"
        return f"{spec.name}: {fault.found!r} not in {known}"
    if fault.kind is Kind.REFUSED:
        return f"{spec.name} - {fault.reason}"
    return f"{spec.name}, {fault.reason}" if fault.reason else spec.name
