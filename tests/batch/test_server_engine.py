"""A ComfyUI server as an engine: what it runs, what it survives, and what it is told when something is wrong."""

from __future__ import annotations

import io
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch.fake_comfyui import FakeComfyUI, serving
from graph_nodes import node
from naming import naming
from PIL import Image
from tessera.app.engines import http, server
from tessera.app.engines.engine import Task, output_nodes, safe_name
from tessera.app.engines.errors import EngineLost
from tessera.app.engines.server import ServerEngine
from tessera.host.errors import GraphError, NodeError

GRAPH = {
    "1": node("Seeded", seed=7, steps=3),
    "2": node("Paint", batch=1),
    "3": node("Save", images=["2", 0], filename_prefix="tile"),
    "4": node("Show", value=["1", 0]),
}


@pytest.fixture
def comfyui(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeComfyUI]:
    monkeypatch.setattr(server, "PAUSES", (0.01,))
    monkeypatch.setattr(server, "SILENCE_SECONDS", 0.2)
    with serving(FakeComfyUI()) as fake:
        yield fake


@pytest.fixture
def engine(comfyui: FakeComfyUI) -> Iterator[ServerEngine]:
    opened = ServerEngine(comfyui.url, patience=1.0)
    yield opened
    opened.close()


def task(engine: ServerEngine, graph: dict[str, Any] = GRAPH, **files: bytes) -> Task:
    prompt = engine.check(graph, {name: Path(name) for name in files})
    return Task(prompt, output_nodes(prompt, engine.object_info()), files=files)


def test_files_come_with_their_nodes_and_numbers_from_one(engine: ServerEngine) -> None:
    for _ in range(2):
        made = engine.run(task(engine))
        assert list(made.files) == ["tile_00001_.png"]
        assert made.places["tile_00001_.png"] == ("3", "images")
        assert made.told == {"4": {"text": ["moss"]}}
        assert Image.open(io.BytesIO(made.files["tile_00001_.png"])).size == (8, 8)


def test_progress_is_told(engine: ServerEngine, comfyui: FakeComfyUI) -> None:
    seen: list[tuple[str, float, float]] = []
    comfyui.seconds = 0.05
    engine.run(task(engine), lambda *each: seen.append(each))
    assert ("1", 1.0, 2.0) in seen


@pytest.mark.parametrize("restarts", [{1}, {1, 2}])
def test_prompt_that_a_restart_lost_is_posted_again(
    engine: ServerEngine, comfyui: FakeComfyUI, restarts: set[int]
) -> None:
    undisturbed = engine.run(task(engine)).files
    comfyui.restarts_after_posts = {len(comfyui.posts) + each for each in restarts}
    assert engine.run(task(engine)).files == undisturbed
    assert len(comfyui.posts) == 2 + len(restarts)


def test_prompt_that_ran_while_nobody_listened_is_not_posted_again(engine: ServerEngine, comfyui: FakeComfyUI) -> None:
    comfyui.seconds = 0.3
    asked = task(engine)
    original = comfyui.prompt

    async def hangs_up(request: Any) -> Any:
        answer = await original(request)
        for socket in comfyui.sockets:
            await socket.close()
        return answer

    comfyui.prompt = hangs_up
    with serving(comfyui):
        moved = ServerEngine(comfyui.url, patience=1.0)
        assert moved.run(asked).files
        moved.close()
    assert len(comfyui.posts) == 1


def test_server_that_starts_again_while_files_are_fetched_is_waited_for(
    engine: ServerEngine, comfyui: FakeComfyUI
) -> None:
    comfyui.starting = 4
    assert engine.run(task(engine)).files
    assert len(comfyui.posts) == 1
    comfyui.starting = 10**9
    with pytest.raises(EngineLost, match=naming(503, "1 s")):
        engine.run(task(engine))


def test_file_that_somebody_removed_is_made_again(engine: ServerEngine, comfyui: FakeComfyUI) -> None:
    comfyui.removes = 1
    assert engine.run(task(engine)).files
    assert len(comfyui.posts) == 2
    comfyui.removes = 2
    with pytest.raises(EngineLost, match=naming(404)):
        engine.run(task(engine))


def test_input_files_are_uploaded_and_renamed(engine: ServerEngine, comfyui: FakeComfyUI) -> None:
    graph = {**GRAPH, "5": node("Pick", image="photo.PNG", channel="red"), "6": node("Show", value=["5", 0])}
    with pytest.raises(GraphError, match=naming("5", "Pick", "image", "photo.PNG", comfyui.url)):
        engine.check(graph)
    engine.run(task(engine, graph, **{"photo.PNG": b"bytes"}))
    ((name, content),) = comfyui.uploads.items()
    assert content == b"bytes" and name.endswith(".png")
    assert comfyui.posts[-1]["prompt"]["5"]["inputs"]["image"] == name


def test_nodes_of_foreign_packs_are_checked_by_what_the_server_says(engine: ServerEngine, comfyui: FakeComfyUI) -> None:
    foreign = node("Foreign", amount="4", mode="hard", **{"images.image0": ["2", 0]})
    graph = {**GRAPH, "3": node("Save", images=["5", 0], filename_prefix="x"), "5": foreign}
    assert engine.check(graph)["5"]["inputs"]["amount"] == 4
    for name, value in {"amount": 10, "mode": "loud"}.items():
        wrong = {**graph, "5": node("Foreign", **{**foreign["inputs"], name: value})}
        with pytest.raises(GraphError, match=naming("5", "Foreign", name, value)):
            engine.check(wrong)
    with pytest.raises(GraphError, match=naming("7", "Unheard", comfyui.url)):
        engine.check({**graph, "7": node("Unheard")})


@pytest.mark.parametrize(
    ("fault", "kind", "parts"),
    [
        ("refuses", GraphError, ("1", "Seeded", "seed")),
        ("fails", NodeError, ("1", "Seeded", "out of paint")),
        ("loses", EngineLost, ("lost", server.MOST_POSTS)),
        ("short", EngineLost, ("tile_00041_.png", "3 times")),
        ("damaged", EngineLost, ("tile_00041_.png", "damaged")),
    ],
)
def test_server_that_goes_wrong_is_told_in_one_line(
    engine: ServerEngine, comfyui: FakeComfyUI, fault: str, kind: type[Exception], parts: tuple[object, ...]
) -> None:
    asked = task(engine)
    comfyui.fault = fault
    with pytest.raises(kind, match=naming(*parts)):
        engine.run(asked)


@pytest.mark.parametrize(("fault", "part"), [("html", "JSON"), ("list", "[1, 2]"), ("slow", "0.2 s")])
def test_answer_that_is_none_is_told(
    comfyui: FakeComfyUI, monkeypatch: pytest.MonkeyPatch, fault: str, part: str
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.2)
    comfyui.fault = fault
    stranger = ServerEngine(comfyui.url)
    with pytest.raises(EngineLost, match=naming(comfyui.url, part)):
        stranger.object_info()
    stranger.close()


def test_certificate_that_nobody_knows_is_told(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    files = [str(tmp_path / name) for name in ("key.pem", "certificate.pem")]
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*request, "-keyout", files[0], "-out", files[1]], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files[1], files[0])
    with serving(FakeComfyUI(), context) as fake:
        for url, part in ((fake.url, "certificate"), (fake.url.replace("https", "http"), "https")):
            stranger = ServerEngine(url)
            with pytest.raises(EngineLost, match=naming(part)):
                stranger.object_info()
            stranger.close()


@pytest.mark.parametrize("subfolder", ["..", "/etc", "a/../..", "C:\\windows", "a\\..\\.."])
def test_names_do_not_lead_out_of_the_folder(subfolder: str) -> None:
    assert safe_name(subfolder, "x.png") is None
    assert safe_name("", subfolder) is None
    assert safe_name("a/b", "x.png") == "a/b/x.png"
