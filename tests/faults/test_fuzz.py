"""Broken graphs, request bodies, model files and images: exit code 0 or 2, a few lines, within 10 s and 2 GB.

`pytest -m faults` runs 500 cases of each kind, always the same; `pytest -m faults --long tests/faults/test_fuzz.py`
runs 20,000 others. A case is made of the number that a failure names.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import request_bodies
import torch
from graph_nodes import node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged, damaged_safetensors, mutated
from PIL import Image
from safetensors.torch import save_file
from tessera.app.cli.main import main
from tessera.host import folder_paths
from tiny_models import sd15_file

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")]

ROOT = Path(__file__).parents[2]
CASES, LONG_CASES = 500, 20_000
SECONDS, BYTES = 10, 2 * 2**30
"""Of the processor and of memory, for one case."""

PATIENCE = 300
"""Seconds after which a case counts as waiting for ever, on a machine that is busy with other things."""

MOST_LINES = 21
SAID_BY_PYTHON = ("Traceback", "object has no attribute", "NoneType", "not subscriptable", "list index", "KeyError")

Case = Callable[[random.Random], list[str]]


@contextmanager
def bounded() -> Iterator[None]:
    """Let what is inside take 10 s of processor time, and 2 GB of memory beyond what the process has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)

    def late(*_: Any) -> None:
        pytest.fail("too long")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, PATIENCE)}
    handlers = {number: signal.signal(number, late) for number, _ in timers.values()}
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def told(arguments: list[str]) -> tuple[int, list[str], str]:
    """Exit code, error lines and output of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with bounded(), redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, err.getvalue().splitlines(), out.getvalue()


def check(arguments: list[str], may_fill_memory: bool = False) -> None:
    """What is broken is said in lines of the tool's own words."""
    code, lines, _ = told(arguments)
    said = "\n".join(lines)
    assert code in (0, 2), said
    assert len(lines) <= MOST_LINES
    assert bool(lines) == bool(code)
    assert all(line.isprintable() and line for line in lines)
    assert not [words for words in SAID_BY_PYTHON if words in said], said
    assert may_fill_memory or "memory" not in said, said


def fuzz(case: Callable[[random.Random], None], request: pytest.FixtureRequest) -> None:
    """Try a case with many numbers."""
    long = request.config.getoption("long")

    @settings(
        max_examples=LONG_CASES if long else CASES,
        derandomize=not long,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 2**64 - 1))
    def attempt(number: int) -> None:
        case(random.Random(number))

    attempt()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input").mkdir()
    Image.effect_noise((40, 32), 50).convert("RGB").save(tmp_path / "input" / "moss.png")
    folder_paths.configure()
    yield tmp_path
    folder_paths.configure()


def documents(*patterns: str) -> list[Any]:
    return [json.loads(path.read_text()) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def test_graphs_in_the_format_of_the_editor(folder: Path, request: pytest.FixtureRequest) -> None:
    graphs = documents("example_workflows/*.json")

    def case(chance: random.Random) -> None:
        broken = mutated(chance.choice(graphs), chance)
        (folder / "graph.json").write_text(json.dumps(broken))
        settings = [["--set", "3.text=moss"], ["--set", f"{chance.randrange(9)}.seed={chance.randrange(9)}"], []]
        check(["check", "graph.json", *(chance.choice(settings) if chance.random() < 0.5 else [])])

    fuzz(case, request)


def test_graphs_in_the_format_of_the_api(folder: Path, request: pytest.FixtureRequest) -> None:
    graphs = documents("tests/workflows/*.api.json")
    classes = sorted({each["class_type"] for graph in graphs for each in graph.values()})

    def case(chance: random.Random) -> None:
        broken = mutated(chance.choice(graphs), chance, classes)
        content = json.dumps(broken).encode()
        (folder / "graph.json").write_bytes(damaged(content, chance) if chance.random() < 0.1 else content)
        check(["check", "graph.json"])

    fuzz(case, request)


CHEAP = {
    "1": node("LoadImage", image="moss.png"),
    "2": node("ImageScale", image=["1", 0], upscale_method="bilinear", width=48, height=32, crop="disabled"),
    "3": node("TesseraMakeTileable", image=["2", 0], border=8),
    "4": node("TesseraOffsetImage", image=["3", 0], x=0.5, y=0.25),
    "5": node("TesseraWrapPad", image=["4", 0], padding=8),
    "6": node("TesseraWrapCrop", image=["5", 0], geometry=["5", 1]),
    "7": node("ImageCompositeMasked", destination=["6", 0], source=["1", 0], x=3, y=4, mask=["1", 1]),
    "8": node("TesseraHeightToNormal", image=["7", 0]),
    "9": node("EmptyLatentImage", width=64, height=64, batch_size=1),
    "10": node("LatentUpscale", samples=["9", 0], upscale_method="bislerp", width=96, height=64, crop="center"),
    "11": node("SaveImage", images=["8", 0], filename_prefix="a/b"),
    "12": node("TesseraSaveImage", images=["3", 0], filename_prefix="c", format="webp"),
    "13": node("TesseraSeamCheck", images=["7", 0], columns=2, rows=2),
    "14": node("PreviewAny", source=["10", 0]),
}


def test_graphs_that_run(folder: Path, request: pytest.FixtureRequest) -> None:
    def case(chance: random.Random) -> None:
        (folder / "graph.json").write_text(json.dumps(mutated(CHEAP, chance)))
        check(["run", "graph.json"], may_fill_memory=True)
        for path in folder.rglob("*"):
            assert (
                path.is_dir()
                or path.parent == folder
                or path.is_relative_to(folder / "output")
                or "input" in path.parts
            )

    fuzz(case, request)


def test_bodies_of_services(folder: Path, request: pytest.FixtureRequest) -> None:
    bodies = request_bodies.entries()

    def case(chance: random.Random) -> None:
        entry = chance.choice(bodies)
        (folder / "body.json").write_text(json.dumps(mutated(entry.body, chance)))
        options = [word for word in entry.options if isinstance(word, str)]
        check(["import", entry.service, "body.json", "-o", "made.json", *options])

    fuzz(case, request)


@pytest.fixture
def models(folder: Path) -> dict[str, list[bytes]]:
    """Whole model files by ending: a checkpoint, a LoRA, an embedding."""
    checkpoint = sd15_file(folder / "whole.safetensors")
    small = {"lora_unet_a.lora_up.weight": torch.zeros(4, 2), "clip_l": torch.zeros(2, 8), "alpha": torch.tensor(1.0)}
    save_file(small, folder / "small.safetensors", {"about": "moss"})
    pickles = []
    for content in ({"state_dict": small, "step": 3}, {"string_to_param": {"*": torch.zeros(2, 8)}}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
            pickles.append(stream.getvalue())
    pickles.append(pickle.dumps({"a": list(range(9)), 3: {"b": (1.5, None)}}))
    return {
        ".safetensors": [checkpoint.read_bytes(), (folder / "small.safetensors").read_bytes()],
        ".pt": pickles,
    }


LOADERS = {
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name", {}),
    "diffusion_models": ("UNETLoader", "unet_name", {"weight_dtype": "default"}),
    "vae": ("VAELoader", "vae_name", {}),
    "controlnet": ("ControlNetLoader", "control_net_name", {}),
    "clip_vision": ("CLIPVisionLoader", "clip_name", {}),
    "ipadapter": ("TesseraLoadIPAdapter", "ip_adapter", {}),
}


def load(folder: Path, kind: str, name: str, content: bytes) -> None:
    """Load a file by the node for its kind."""
    path = folder / "models" / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    class_type, entry, others = LOADERS[kind]
    graph = {"1": node(class_type, **{entry: name}, **others), "2": node("PreviewAny", source=["1", 0])}
    (folder / "graph.json").write_text(json.dumps(graph))
    check(["run", "graph.json"])
    path.unlink()


def test_safetensors(folder: Path, models: dict[str, list[bytes]], request: pytest.FixtureRequest) -> None:
    def case(chance: random.Random) -> None:
        content = damaged_safetensors(chance.choice(models[".safetensors"]), chance)
        load(folder, chance.choice(list(LOADERS)), "a.safetensors", content)

    fuzz(case, request)


HARMFUL = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "shutil.rmtree")
_watched: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in HARMFUL:
        _watched.append(event)


def test_pickles(folder: Path, models: dict[str, list[bytes]], request: pytest.FixtureRequest) -> None:
    sys.addaudithook(_watch)

    def case(chance: random.Random) -> None:
        _watched.clear()
        content = chance.choice(models[".pt"])
        load(folder, chance.choice(list(LOADERS)), "a.pt", damaged(content, chance))
        assert not _watched

    fuzz(case, request)


def test_images(folder: Path, request: pytest.FixtureRequest) -> None:
    whole: list[bytes] = []
    frames = [Image.effect_noise((17, 13), 70).convert("RGB") for _ in range(3)]
    for kind, options in [
        ("PNG", {}),
        ("PNG", {"save_all": True, "append_images": frames[1:]}),
        ("JPEG", {}),
        ("GIF", {"save_all": True, "append_images": frames[1:]}),
        ("WEBP", {"save_all": True, "append_images": frames[1:]}),
        ("TIFF", {"save_all": True, "append_images": frames[1:]}),
        ("BMP", {}),
        ("TGA", {}),
        ("PPM", {}),
        ("ICO", {}),
        ("JPEG2000", {}),
        ("DDS", {}),
    ]:
        stream = io.BytesIO()
        frames[0].save(stream, kind, **options)
        whole.append(stream.getvalue())
    graph = {
        "1": node("LoadImage", image="a.png"),
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("LoadImageMask", image="a.png", channel="alpha"),
    }
    (folder / "graph.json").write_text(json.dumps(graph))

    def case(chance: random.Random) -> None:
        broken = damaged(chance.choice(whole), chance)
        (folder / "input" / "a.png").write_bytes(broken)
        check(["run", "graph.json"])
        check(["check", "input/a.png"])

    fuzz(case, request)
