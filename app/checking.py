"""Latents that go to a VAE of another family, which the headers of the files tell before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..host.errors import GraphError, named
from ..host.graph.mapping import is_link
from ..host.graph.workflow import Prompt

FROM_MODELS = ("model", "guider")
"""Inputs of nodes whose latents are their model's."""


def check_latents(prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a prompt that decodes latents of a model with a VAE of other channels.

    Nothing is said where a file does not tell, or where latents come from several models.

    Raises:
        GraphError: a line for each node that decodes them.
    """
    lines = list(_mismatches(prompt, info))
    if lines:
        raise GraphError(lines)


def _mismatches(prompt: Prompt, info: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
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
            where = named(node_id, node["class_type"], vaes[0])
            yield f"{where}: the VAE {vae.name} has {found} channels, the latents of {denoiser.name} have {wanted}; "\
                "use the model's own VAE"  # fmt: skip


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
