"""Node ids of UI-format files: each occurs once in the whole file, subgraphs included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Level = dict[str, Any]


def unique_ids(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give nodes of subgraphs whose ids occur before them others, as ComfyUI's interface does when it opens a file.

    Ids at the top stay; the others are numbered on from the highest id that the file has counted so far. What is not
    as the format says stays for whoever reads it.
    """
    inside = document.get("definitions")
    definitions: Level = inside if isinstance(inside, dict) else {}
    subgraphs = definitions.get("subgraphs")
    if not isinstance(subgraphs, list) or not isinstance(document.get("nodes"), list):
        return document
    used = {str(node["id"]) for node in _nodes(document) if isinstance(node["id"], int)}
    last = _last_id(document)
    renamed: dict[str, dict[str, int]] = {}
    made: list[Any] = []
    for subgraph in subgraphs:
        changes, last = _renamings(subgraph, used, last)
        if changes:
            renamed[str(subgraph.get("id"))] = changes
        made.append(_renamed(subgraph, changes) if changes else subgraph)
    if not renamed:
        return document
    made = [_with_proxies(each, renamed) if isinstance(each, dict) else each for each in made]
    return _with_proxies(dict(document), renamed) | {"definitions": {**definitions, "subgraphs": made}}


def _nodes(level: Any) -> list[Level]:
    nodes = level.get("nodes") if isinstance(level, dict) else None
    return [node for node in nodes if isinstance(node, dict) and "id" in node] if isinstance(nodes, list) else []


def _last_id(document: Mapping[str, Any]) -> int:
    state = document.get("state")
    last = document.get("last_node_id", state.get("lastNodeId") if isinstance(state, dict) else None)
    return last if isinstance(last, int) else 0


def _renamings(subgraph: Any, used: set[str], last: int) -> tuple[dict[str, int], int]:
    """Return the new ids of one subgraph's nodes, and the highest id so far. Takes note of the ids that are in use."""
    changes: dict[str, int] = {}
    ids = [str(node["id"]) for node in _nodes(subgraph)]
    if len(ids) != len(set(ids)):
        return changes, last
    for node_id in ids:
        if node_id in used:
            last += 1
            while str(last) in used:
                last += 1
            changes[node_id] = last
            used.add(str(last))
        else:
            used.add(node_id)
            last = max(last, int(node_id)) if node_id.isascii() and node_id.isdigit() and len(node_id) < 9 else last
    return changes, last


def _renamed(subgraph: Level, changes: Mapping[str, int]) -> Level:
    nodes = [
        node | {"id": changes[str(node["id"])]} if isinstance(node, dict) and str(node.get("id")) in changes else node
        for node in subgraph["nodes"]
    ]
    links = subgraph.get("links")
    if isinstance(links, list):
        links = [_renamed_link(link, changes) for link in links]
    return subgraph | {"nodes": nodes, "links": links}


def _renamed_link(link: Any, changes: Mapping[str, int]) -> Any:
    if isinstance(link, dict):
        ends = {key: changes.get(str(link[key]), link[key]) for key in ("origin_id", "target_id") if key in link}
        return link | ends
    if isinstance(link, list):
        return [changes.get(str(part), part) if place in (1, 3) else part for place, part in enumerate(link)]
    return link


def _with_proxies(level: Level, renamed: Mapping[str, Mapping[str, int]]) -> Level:
    """Return a level whose frames name the nodes inside by their new ids."""
    nodes = level.get("nodes")
    if not isinstance(nodes, list):
        return level
    return level | {"nodes": [_with_new_proxies(node, renamed) for node in nodes]}


def _with_new_proxies(node: Any, renamed: Mapping[str, Mapping[str, int]]) -> Any:
    changes = renamed.get(str(node.get("type"))) if isinstance(node, dict) else None
    given = node.get("properties") if changes else None
    properties: Level = given if isinstance(given, dict) else {}
    proxies = properties.get("proxyWidgets")
    if not changes or not isinstance(proxies, list):
        return node
    new = [
        [str(changes.get(str(proxy[0]), proxy[0])), *proxy[1:]] if isinstance(proxy, list) and proxy else proxy
        for proxy in proxies
    ]
    return node | {"properties": {**properties, "proxyWidgets": new}}
