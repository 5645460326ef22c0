"""A run that is stopped at any of its steps leaves the model as it was: the plain image is the same to the bit.

`pytest -m faults` stops a few short examples at every step; `pytest -m faults --long tests/faults/test_interrupts.py`
stops every example at every step, with as many steps as it has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tessera
from graph_nodes import node
from PIL import Image
from tessera.app import api
from tessera.host import folder_paths
from tessera.host.progress import interrupt_current_processing, processing_interrupted

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "tests" / "workflows").glob("*.api.json"))
SHORT = {"seamless_texture": 2, "flux_negative": 1, "image_prompts": 1, "sampling_steps": 2}
"""Examples of CI, and how many steps they are given: one for each way in which nodes change a model."""

STEPS = ("steps", "total_steps")


def shortened(graph: dict[str, Any], steps: int) -> dict[str, Any]:
    """A graph that samples a few steps of small images."""
    sizes = dict.fromkeys(STEPS, steps) | {"width": 64, "height": 64}
    return {
        node_id: each
        | {
            "inputs": {
                name: sizes[name] if name in sizes and isinstance(value, int) else value
                for name, value in each["inputs"].items()
            }
        }
        for node_id, each in graph.items()
    }


def plain(graph: dict[str, Any]) -> dict[str, Any] | None:
    """A graph of ComfyUI's own nodes on the models of another, loaded by the same node; None without a model."""
    loaders = [each for each in graph.values() if each["class_type"] == "TesseraDemoCheckpoint"]
    if not loaders:
        return None
    made = {"load": loaders[0]}
    for name, text in (("positive", "blue dots"), ("negative", "")):
        made[name] = node("CLIPTextEncode", clip=["load", 1], text=text)
    made["empty"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    sampled = {"seed": 5, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {
        "model": ["load", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["empty", 0],
    }
    made["sample"] = node("KSampler", **sampled, **links)
    made["decode"] = node("VAEDecode", samples=["sample", 0], vae=["load", 2])
    made["save"] = node("SaveImage", images=["decode", 0], filename_prefix="plain")
    return made


def pixels(graph: dict[str, Any]) -> list[bytes]:
    """What a run saves or shows, read at once: previews go with the next run."""
    shown = tessera.run(graph).outputs.values()
    paths = [each["path"] for outputs in shown for each in outputs.get("images", [])]
    return [Image.open(path).tobytes() for path in paths]


def loaded() -> set[int]:
    """The identities of what is kept between runs."""
    return {id(entry) for cache in api._caches.values() for entry in cache.entries.values()}


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem.removesuffix(".api")) for path in EXAMPLES])
def test_a_stopped_run_leaves_the_model_as_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = path.stem.removesuffix(".api")
    long = request.config.getoption("long")
    if not long and name not in SHORT:
        pytest.skip("with --long")
    graph = json.loads(path.read_text())
    graph = graph if long else shortened(graph, SHORT[name])
    simple = plain(graph)
    monkeypatch.chdir(tmp_path)
    tessera.run(graph)
    expected = pixels(simple) if simple else []
    kept = loaded()
    stopped = 0
    while stop(graph, stopped):
        stopped += 1
        assert not processing_interrupted()
        if simple:
            assert pixels(simple) == expected, f"after a stop at {stopped}"
            assert kept & loaded(), "the model was loaded anew"
    assert stopped > 3
    folder_paths.configure()


def stop(graph: dict[str, Any], after: int) -> bool:
    """Run a graph, and stop it after so many steps of any node; return whether it had as many."""
    left = iter(range(after))

    def interrupt(*_: Any) -> None:
        if next(left, None) is None:
            interrupt_current_processing()

    try:
        tessera.run(graph, progress=interrupt)
    except KeyboardInterrupt:
        return True
    interrupt_current_processing(False)
    return False
