"""ComfyUI's official workflow templates whose nodes are all known: the editor sends what we convert them to."""

from __future__ import annotations

import pytest
from browser.editor import Editor, without_meta
from tessera.app.registry import object_info
from tessera.host.graph.documents import from_document
from tessera.host.graph.workflow import to_prompt
from tessera.tools.template_table import templates, unknown_nodes

pytestmark = [pytest.mark.browser, pytest.mark.long]
FEWEST = 60
EMPTY = {"nodes": [], "links": [], "groups": [], "last_node_id": 0, "last_link_id": 0, "version": 0.4}
NOT_LOADED = "Failed to load resource"
"""What the console says of each answer; those of the server are looked at by their addresses."""


def test_templates_are_sent_as_we_convert_them(editor: Editor) -> None:
    if not editor.server.ours:
        pytest.skip("the conversion knows the nodes of the embedded host alone")
    pytest.importorskip("comfyui_workflow_templates_json", reason="needs the package with the templates")
    info, differ = object_info(), {}
    known = {name: document for name, document in templates() if not unknown_nodes(document, info)}
    for name, document in known.items():
        editor.load(document, name)
        ours, theirs = without_meta(to_prompt(from_document(document, name), info)), without_meta(editor.prompt())
        if ours != theirs:
            nodes = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
            differ[name] = {key: (ours.get(key), theirs.get(key)) for key in nodes}
    # What they still ask for ends with the page.
    editor.load(EMPTY, "empty")
    editor.open(editor.nodes_2)
    # Their input images are not there, and nobody answers for the sizes of their models.
    editor.wrong[:] = [each for each in editor.wrong if "/view?" not in each and NOT_LOADED not in each]
    assert len(known) >= FEWEST
    assert differ == {}
