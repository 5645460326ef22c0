"""Which of ComfyUI's official workflow templates the embedded host takes, with their models taken to be there.

`python -m tessera.tools.template_table` writes `tests/golden/templates.json`, where
`comfyui-workflow-templates-json` is installed; a test compares it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ..app import registry
from ..app.named_models import of_no_family
from ..host.errors import GraphError
from ..host.graph.documents import from_document
from ..host.graph.ui_graph import every_node, read_graph
from ..host.graph.validation import validate
from ..host.graph.virtual_nodes import VIRTUAL_NODES
from ..host.graph.workflow import to_prompt
from ..host.schema.object_info import ObjectInfo

PACKAGE = "comfyui-workflow-templates-json"
PATH = Path(__file__).parents[1] / "tests" / "golden" / "templates.json"
PASSES = "passes"


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the templates that use no paid service, by name.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    folder = resources.files("comfyui_workflow_templates_json") / "templates"
    index = json.loads((folder / "index.json").read_text("utf-8"))
    for group in index:
        for each in group["templates"]:
            path = folder / f"{each['name']}.json"
            if each.get("openSource") is not False and not each["name"].startswith("api_") and path.is_file():
                yield each["name"], json.loads(path.read_text("utf-8"))


def verdict(document: Mapping[str, Any], info: ObjectInfo) -> str:
    """Return that a template passes, or the nodes, the models or the values that stop it."""
    missing = unknown_nodes(document, info)
    if missing:
        return f"needs nodes: {', '.join(missing)}"
    try:
        prompt, _ = validate(to_prompt(from_document(dict(document), "template"), info), info, any_file=True)
    except GraphError as error:
        return f"refused: {error.lines[0]}"
    models = of_no_family(prompt)
    return f"needs a model: {models[0].split(': ')[1].split(' may ')[0]}" if models else PASSES


def unknown_nodes(document: Mapping[str, Any], info: ObjectInfo) -> list[str]:
    """Return the classes of a workflow, subgraphs included, that are not in `info`, in order."""
    classes = {node["type"] for _, node in every_node(read_graph(document))}
    return sorted(classes - set(info) - VIRTUAL_NODES)


def table() -> dict[str, Any]:
    """Return the version of the templates, and the verdict of each."""
    info = registry.object_info()
    verdicts = {name: verdict(document, info) for name, document in sorted(templates())}
    return {"version": metadata.version(PACKAGE), "templates": verdicts}


if __name__ == "__main__":
    PATH.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
