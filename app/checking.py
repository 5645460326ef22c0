"""What is wrong with a prompt: with its nodes, and with latents that go to a VAE of another family.

Files tell their channels without being loaded, so this is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..host.errors import GraphError, named
from ..host.graph.faults import Fault, Kind
from ..host.graph.mapping import is_link
from ..host.graph.validation import Examined, check_again, needed
from ..host.graph.validation import examine as examine_nodes
from ..host.graph.workflow import Prompt
from ..host.schema.object_info import ObjectInfo, inputs_of

FROM_MODELS = ("model", "guider")
"""Inputs of nodes whose latents are their model's."""


def examine(prompt: Prompt, info: ObjectInfo, wanted: Iterable[str] | None = None, any_file: bool = False) -> Examined:
    """Check a graph and the files that it names, and tell what is wrong.

    Args:
        prompt: the graph.
        info: the nodes that are known.
        wanted: the outputs that shall run, by id; all of them by default.
        any_file: whether every file that the graph names is taken to be there.
    """
    found = examine_nodes(prompt, info, wanted, any_file)
    right = {node_id: found.prompt[node_id] for node_id in needed(found.prompt, found.runnable)}
    return replace(found, faults=[*found.faults, *mismatches(right, info)])


def validate(prompt: Prompt, info: ObjectInfo, any_file: bool = False) -> tuple[Prompt, list[str]]:
    """Return a graph with its values converted and the ids of its outputs.

    Raises:
        GraphError: something is wrong; one line for each thing that is.
    """
    found = examine(prompt, info, any_file=any_file)
    refuse(found.faults)
    return found.prompt, found.outputs


def validate_again(prompt: Prompt, changed: Iterable[str], info: ObjectInfo) -> Prompt:
    """Return a graph of which only the values of some nodes were changed since it was found right.

    Raises:
        GraphError: something is wrong; one line for each thing that is.
    """
    found = check_again(prompt, changed, info)
    refuse(mismatches(found, info))
    return found


def refuse(faults: Iterable[Fault]) -> None:
    """Raise GraphError for what is wrong, if anything is."""
    lines = [fault.line for fault in faults]
    if lines:
        raise GraphError(lines)


def mismatches(prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    """Yield the VAEs that decode latents of a model of other channels, in a graph that is right otherwise.

    Nothing is said where a file does not tell, or where latents come from several models.
    """
    from ..host.models.headers import denoiser_channels, file_vae_channels

    for node_id, node in prompt.items():
        links = _links(node)
        kinds = {name: _type(prompt, info, link) for name, link in links.items()}
        latents = [links[name] for name, kind in kinds.items() if kind == "LATENT"]
        vaes = [name for name, kind in kinds.items() if kind == "VAE"]
        if len(latents) != 1 or len(vaes) != 1:
            continue
        vae = _file(prompt[links[vaes[0]][0]])
        denoisers = _denoisers(prompt, info, latents[0][0])
        if vae is None or len(denoisers) != 1:
            continue
        (denoiser,) = denoisers
        wanted, found = denoiser_channels(denoiser), file_vae_channels(vae)
        if wanted and found and wanted != found:
            reason = f"the VAE {vae.name} has {found} channels, the latents of {denoiser.name} have {wanted}"
            line = f"{named(node_id, node['class_type'], vaes[0])}: {reason}; use the model's own VAE"
            spec = inputs_of(info[node["class_type"]])[vaes[0]]
            yield Fault(Kind.REFUSED, line, (node_id,), (spec,), reason=reason)


def _links(node: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: value for name, value in node["inputs"].items() if is_link(value)}


def _type(prompt: Prompt, info: Mapping[str, Mapping[str, Any]], link: list[Any]) -> str | None:
    outputs = info[prompt[link[0]]["class_type"]]["output"]
    return outputs[link[1]] if link[1] < len(outputs) else None


def _denoisers(prompt: Prompt, info: Mapping[str, Mapping[str, Any]], start: str) -> set[Path]:
    """Return the files of the models that a node's latents come from."""
    found: set[Path] = set()
    seen: set[str] = set()
    pending = [start]
    while pending:
        node_id = pending.pop()
        if node_id in seen:
            continue
        seen.add(node_id)
        file, links = _file(prompt[node_id]), _links(prompt[node_id])
        if file is not None:
            found.add(file)
            continue
        chosen = [links[name] for name in FROM_MODELS if name in links] or [
            link for link in links.values() if _type(prompt, info, link) in ("LATENT", "MODEL", "GUIDER")
        ]
        pending += [link[0] for link in chosen]
    return found


def _file(node: Mapping[str, Any]) -> Path | None:
    """Return the file of models that a node loads."""
    from ..host import folder_paths
    from ..host.models.headers import LOADERS

    folder, name = LOADERS.get(node["class_type"], ("", ""))
    value = node["inputs"].get(name)
    path = folder_paths.get_full_path(folder, value) if isinstance(value, str) else None
    return Path(path) if path else None
