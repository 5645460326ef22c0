"""The same workflows on a real ComfyUI and on the embedded host.

COMFYUI_PATH=<checkout> pytest -m comfyui          COMFYUI_PYTHON: its interpreter, when not <checkout>/.venv
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui import sd15
from comfyui.server import ROOT, ComfyUI, python_of
from landed_prompts import MORE, cases, prompt_around, prompt_with, runs
from node_contract import golden, promise
from PIL import Image
from safetensors.torch import load_file
from tessera.tools.locales import LANGUAGES
from wrong_settings import right, wrong

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to compare the embedded host with the real one"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

Graph = dict[str, Any]
PACK = "any-folder.name"
EXAMPLES = sorted((ROOT / "tests" / "workflows").glob("*.api.json"))
PROMPTS = ROOT / "tests" / "data" / "comfyui_text.json"
ONE_LEVEL = 1.0


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The ComfyUI to compare with."""
    return Path(os.environ["COMFYUI_PATH"]).resolve()


@pytest.fixture(scope="session")
def comfyui(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """ComfyUI, up and running."""
    with ComfyUI(checkout, tmp_path_factory.mktemp("comfyui"), PACK) as server:
        yield server


@pytest.fixture(scope="session")
def checkpoint(comfyui: ComfyUI) -> Iterator[Path]:
    """A random checkpoint of SD 1.5's shape, in the models folder of both hosts."""
    path = sd15.write(comfyui.base / "models" / "checkpoints" / "random_sd15.safetensors")
    yield path
    path.unlink()


def on_host(graph: Graph, comfyui: ComfyUI, folder: Path) -> dict[str, list[Path]]:
    """Run a graph on the embedded host, with ComfyUI's models; the images that it saved, by node id.

    Previews go with the process.
    """
    workflow = folder / "workflow.json"
    workflow.write_text(json.dumps(graph), encoding="utf-8")
    command = [sys.executable, "-m", "tessera.app.cli.main", "run", str(workflow), "--json", "--device", "cpu"]
    command += ["--dtype", "fp32", "--models-dir", str(comfyui.base / "models"), "--output-dir", str(folder)]
    command += ["--input-dir", str(comfyui.base / "input")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout)["outputs"]
    images = {node_id: [Path(each["path"]) for each in shown.get("images", [])] for node_id, shown in outputs.items()}
    return saved(images, folder)


def saved(images: dict[str, list[Path]], folder: Path) -> dict[str, list[Path]]:
    """Those images that are in a folder, and not previews."""
    found = {node_id: [path for path in paths if path.is_relative_to(folder)] for node_id, paths in images.items()}
    return {node_id: paths for node_id, paths in found.items() if paths}


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float64)


def differences(one: dict[str, list[Path]], other: dict[str, list[Path]]) -> dict[str, float]:
    """Mean absolute difference of every pair of images, in levels of 255."""
    assert {node_id: len(paths) for node_id, paths in one.items()} == {k: len(paths) for k, paths in other.items()}
    return {
        f"{node_id}.{number}": float(np.abs(pixels(path) - pixels(other[node_id][number])).mean())
        for node_id, paths in one.items()
        for number, path in enumerate(paths)
    }


def test_boot_log_is_clean(comfyui: ComfyUI) -> None:
    lines = [line for line in comfyui.log.read_text().splitlines() if PACK in line]
    assert lines
    assert not [line for line in lines if "IMPORT FAILED" in line or "Error" in line or "Traceback" in line]


def test_nodes_keep_their_contract(comfyui: ComfyUI) -> None:
    info = comfyui.get("/object_info")
    assert {node_id: promise(info[node_id]) for node_id in golden()} == golden()


def core_nodes() -> dict[str, Any]:
    from tessera.app.registry import node_classes

    return {node_id: node for node_id, node in node_classes().items() if node_id not in golden()}


@pytest.mark.parametrize("node_id", sorted(core_nodes()))
def test_core_node_is_declared_as_in_comfyui(node_id: str, comfyui: ComfyUI) -> None:
    info = comfyui.get("/object_info")
    assert node_id in info
    ours, theirs = (promise(each) for each in (core_nodes()[node_id].GET_NODE_INFO_V1(), info[node_id]))
    names = [[entry["name"] for entry in each["inputs"]] for each in (ours, theirs)]
    assert names[0] == names[1]
    assert ours["outputs"] == theirs["outputs"]
    for own, core in zip(ours["inputs"], theirs["inputs"], strict=True):
        assert (own["type"], own["required"]) == (core["type"], core["required"]), own["name"]
        for key in {"default", "min", "max"} & own.keys() & core.keys():
            assert own[key] == core[key], own["name"]


@pytest.mark.parametrize("node_id", sorted(golden()))
def test_help_page_is_served(node_id: str, comfyui: ComfyUI) -> None:
    assert comfyui.read(f"/extensions/{PACK}/docs/{node_id}.md").startswith(b"#")


def test_translations_and_templates_are_served(comfyui: ComfyUI) -> None:
    assert set(comfyui.get("/i18n")["en"]["nodeDefs"]) >= set(golden())
    assert set(comfyui.get("/workflow_templates")[PACK]) == {path.name.split(".")[0] for path in EXAMPLES}
    for language in LANGUAGES:
        assert set(comfyui.get("/i18n")[language]["nodeDefs"]) >= set(golden())
    blueprints = {entry["name"] for entry in comfyui.get("/global_subgraphs").values()}
    assert blueprints >= {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
    assert f"/extensions/{PACK}/js/tessera.js" in comfyui.get("/extensions")


def test_the_interface_is_answered(comfyui: ComfyUI) -> None:
    found = comfyui.get("/tessera/schedule?scheduler=DDIMScheduler&steps=9&family=Flux")
    assert len(found["sigmas"]) == 10
    assert found["options"] == ["eta"]


def test_nodes_of_another_pack_are_replaced(comfyui: ComfyUI) -> None:
    """ComfyUI passes on their values as they are; the images are those of our own words."""
    ours = json.loads((ROOT / "tests" / "workflows" / "seamless_texture.api.json").read_text(encoding="utf-8"))
    theirs = copy.deepcopy(ours)
    theirs["2"] |= {
        "class_type": "SeamlessTile",
        "inputs": {"model": ["1", 0], "tiling": "enable", "copy_model": "Make a copy"},
    }
    theirs["7"] |= {
        "class_type": "MakeCircularVAE",
        "inputs": {"vae": ["1", 2], "tiling": "enable", "copy_vae": "Make a copy"},
    }
    theirs["13"] |= {"class_type": "OffsetImage", "inputs": {"pixels": ["8", 0], "x_percent": 50.0, "y_percent": 50.0}}
    one, other = comfyui.run(ours), comfyui.run(theirs)
    assert max(differences(one, other).values()) == 0


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name.split(".")[0]) for path in EXAMPLES])
def test_example_draws_the_same_images(path: Path, comfyui: ComfyUI, tmp_path: Path) -> None:
    graph = json.loads(path.read_text(encoding="utf-8"))
    theirs = saved(comfyui.run(graph), comfyui.base / "output")
    found = differences(theirs, on_host(graph, comfyui, tmp_path))
    print(f"\n{path.name}, ComfyUI {comfyui.version}: mean absolute differences of 255: {found}")
    assert max(found.values()) <= ONE_LEVEL


def test_seamless_nodes_leave_nothing_behind(comfyui: ComfyUI) -> None:
    """Plain, seamless, plain again: the plain images are the same to the bit, and the seamless one is another."""
    seamless = json.loads((ROOT / "tests" / "workflows" / "seamless_texture.api.json").read_text(encoding="utf-8"))
    plain = copy.deepcopy(seamless)
    plain["6"]["inputs"]["model"] = ["1", 0]
    plain["8"]["inputs"]["vae"] = ["1", 2]
    images = [pixels(comfyui.run(graph)["9"][0]) for graph in (plain, seamless, plain)]
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize(("node_id", "names"), [*cases("accepted"), *cases("saved")])
def test_prompts_of_landed_versions_are_taken(node_id: str, names: list[str], comfyui: ComfyUI) -> None:
    checker = comfyui.base / "models" / "safety_checker" / "checker" / "model.safetensors"
    checker.parent.mkdir(parents=True, exist_ok=True)
    checker.touch()
    info = comfyui.get(f"/object_info/{node_id}")[node_id]
    prompt = prompt_around(node_id, names, info, ("PreviewAny", "source"))
    assert comfyui.complaints(prompt) == {}
    checker.unlink()


@pytest.mark.parametrize(("node_id", "names"), runs())
def test_the_fewest_inputs_run(node_id: str, names: list[str], comfyui: ComfyUI) -> None:
    info = comfyui.get(f"/object_info/{node_id}")[node_id]
    prompt = prompt_around(node_id, names, info, ("PreviewAny", "source"))
    prompt["node"]["inputs"].update(MORE.get(node_id, {}))
    comfyui.run(prompt)


@pytest.mark.parametrize(("node_id", "inputs", "name", "parts"), wrong())
def test_wrong_settings_are_said_on_their_node(
    node_id: str, inputs: dict[str, Any], name: str, parts: list[str], comfyui: ComfyUI
) -> None:
    info = comfyui.get(f"/object_info/{node_id}")[node_id]
    said = comfyui.complaints(prompt_with(node_id, inputs, info, ("PreviewAny", "source")))
    assert list(said) == ["node"], said
    assert any(all(part in line for part in [name, *parts]) for line in said["node"]), said


@pytest.mark.parametrize(("node_id", "inputs"), right())
def test_right_settings_are_taken(node_id: str, inputs: dict[str, Any], comfyui: ComfyUI) -> None:
    info = comfyui.get(f"/object_info/{node_id}")[node_id]
    assert comfyui.complaints(prompt_with(node_id, inputs, info, ("PreviewAny", "source"))) == {}


def text_to_image(checkpoint: str, sampler: str, scheduler: str) -> Graph:
    """A graph of core nodes at 256 px, 4 steps, cfg 7."""
    nodes = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "2": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a (mossy:1.2) wall of [old] bricks"}),
        "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": "blurry"}),
        "4": ("EmptyLatentImage", {"width": 256, "height": 256, "batch_size": 1}),
        "5": ("KSampler", {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": f"{sampler}_{scheduler}"}),
    }
    nodes["5"][1].update(seed=3, steps=4, cfg=7.0, sampler_name=sampler, scheduler=scheduler, denoise=1.0)
    return {
        number: {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}
        for number, (kind, inputs) in nodes.items()
    }


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler", "normal"), ("dpmpp_2m", "karras")])
def test_sd15_checkpoint_draws_the_same_image(
    sampler: str, scheduler: str, comfyui: ComfyUI, checkpoint: Path, tmp_path: Path
) -> None:
    graph = text_to_image(checkpoint.name, sampler, scheduler)
    theirs, ours = comfyui.run(graph), on_host(graph, comfyui, tmp_path)
    found = differences(theirs, ours)
    print(f"\nSD 1.5 shape, {sampler}/{scheduler}: mean absolute differences of 255: {found}")
    assert pixels(ours["7"][0]).std() > 5, "the image is flat, the comparison says nothing"
    assert max(found.values()) <= ONE_LEVEL


def scheduled(names: list[str]) -> Graph:
    """An image changed by each scheduler in a frame, the rest of it kept: masks, denoise, noise of every kind."""
    example = json.loads((ROOT / "tests" / "workflows" / "scheduler_switch.api.json").read_text(encoding="utf-8"))
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "image": ("VAEDecode", {"samples": ["9", 0], "vae": ["1", 2]}),
        "frame": ("TesseraMakeTileable", {"image": ["image", 0], "border": 32, "tiling": "both", "lighting": 0.0}),
        "latent": ("VAEEncode", {"pixels": ["image", 0], "vae": ["1", 2]}),
        "masked": ("SetLatentNoiseMask", {"samples": ["latent", 0], "mask": ["frame", 1]}),
    }
    for name in names:
        changed = {"scheduler": name, "steps": 4, "denoise": 0.6, "latent_image": ["masked", 0]}
        nodes[name] = ("TesseraSchedulerKSampler", example["9"]["inputs"] | changed)
        nodes[f"{name}.image"] = ("VAEDecode", {"samples": [name, 0], "vae": ["1", 2]})
        nodes[f"{name}.saved"] = ("SaveImage", {"images": [f"{name}.image", 0], "filename_prefix": name})
    kept = {number: example[number] for number in ("1", "2", "3", "4", "9")}
    return kept | {k: {"class_type": kind, "inputs": inputs} for k, (kind, inputs) in nodes.items()}


def test_schedulers_change_an_image_alike(comfyui: ComfyUI, tmp_path: Path) -> None:
    """1e-4 of the latents' range is less than a thirtieth of a level."""
    from tessera.samplers.registry import ENTRIES

    graph = scheduled([entry.name for entry in ENTRIES if not entry.rising])
    theirs = saved(comfyui.run(graph), comfyui.base / "output")
    found = differences(theirs, on_host(graph, comfyui, tmp_path))
    print(f"\nschedulers with a mask, ComfyUI {comfyui.version}: mean absolute differences of 255: {found}")
    assert max(found.values()) <= 0.03


def clip_of(model: str) -> Any:
    from tessera.contract.demo import DEMO_CHECKPOINTS, demo_checkpoint
    from tessera.host.models.loaders import load_checkpoint

    return (demo_checkpoint(model) if model in DEMO_CHECKPOINTS else load_checkpoint(model))[1]


def check_prompts(model: str, checkout: Path, folder: Path) -> None:
    """Encode the prompts in ComfyUI's process and here."""
    prompts: list[str] = json.loads(PROMPTS.read_text(encoding="utf-8"))["prompts"]
    assert len(prompts) >= 30
    texts, out = folder / "prompts.json", folder / "encoded.safetensors"
    texts.write_text(json.dumps(prompts), encoding="utf-8")
    script = Path(__file__).with_name("encode_prompts.py")
    command = [python_of(checkout), str(script), str(checkout), str(ROOT), model, str(texts), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    theirs, clip = load_file(out), clip_of(model)
    worst = {}
    for number, text in enumerate(prompts):
        cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        for ours, name in ((cond, "cond"), (pooled, "pooled")):
            expected = theirs[f"{number}.{name}"]
            assert ours.shape == expected.shape, text
            worst[text, name] = float((ours - expected).abs().max())
    print(f"\n{model}: {len(prompts)} prompts, largest difference {max(worst.values()):.1e}")
    assert not {key: value for key, value in worst.items() if not value <= 1e-4}


def test_demo_prompts_are_encoded_alike(checkout: Path, tmp_path: Path) -> None:
    check_prompts("texture-sd", checkout, tmp_path)


def test_sd15_prompts_are_encoded_alike(checkout: Path, checkpoint: Path, tmp_path: Path) -> None:
    check_prompts(str(checkpoint), checkout, tmp_path)
