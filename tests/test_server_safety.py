"""Whatever is sent, the server answers with what is wrong; and other sites' pages get nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Client, answer, serve, served
from tessera.app.server.application import ROUTES
from tessera.app.server.security import is_loopback
from tessera.files import reading
from yarl import URL

HERE = "127.0.0.1:8188"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": HERE, "Origin": f"http://{HERE}"}, 200),
        ({"Host": "localhost:8188", "Origin": "http://localhost:8188"}, 200),
        ({"Host": HERE, "Origin": "http://127.0.0.1"}, 200),
        ({"Host": "127.0.0.1", "Origin": f"http://{HERE}"}, 200),
        ({"Host": "[::1]:8188", "Origin": "http://[::1]:8188"}, 200),
        ({"Host": "LOCALHOST:8188", "Origin": "http://localhost:8188"}, 200),
        ({"Host": HERE, "Origin": "http://evil.example"}, 403),
        ({"Host": HERE, "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Host": HERE, "Origin": "http://localhost:8188"}, 403),
        ({"Host": "[::1]:8188", "Origin": "http://evil.example:8188"}, 403),
        ({"Host": HERE, "Origin": "http://[broken"}, 403),
        ({"Host": "studio.example", "Origin": "http://other.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_get_nothing(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async def test(client: Client) -> None:
        for path in ("/prompt", "/api/queue", "/view?filename=a.png"):
            found, _ = await answer(client, "GET", path, headers=headers)
            assert (found == 403) == (status == 403)
        found, _ = await answer(client, "POST", "/queue", json={"clear": True}, headers=headers)
        assert found == status

    serve(tmp_path, test)


def test_this_machine_is_known_by_its_names() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1", "app.localhost"]))
    assert not any(map(is_loopback, ["example.com", "10.0.0.1", "0.0.0.0", "localhost.example.com", ""]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
WORDS = ["prompt", "class_type", "inputs", "Number", "Add", "Show", "value", "a", "1", "delete", "clear", "job_ids"]
WORDS += ["client_id", "extra_data", "extra_pnginfo", "number", "front", "prompt_id", "filename", "type", "subfolder"]
KNOWN = st.recursive(
    st.sampled_from(WORDS) | st.integers(-2, 12) | st.none() | st.booleans() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(["Number", "Add", "Show", "Even", "Paint", "Spread", "Either", "Unknown"]),
        "inputs": st.dictionaries(
            st.sampled_from(["value", "a", "b", "batch", "count", "first"]),
            KNOWN | st.tuples(st.sampled_from("0123"), st.integers(-1, 2)).map(list),
            max_size=3,
        ),
    }
)
PROMPTS = st.fixed_dictionaries(
    {"prompt": st.dictionaries(st.sampled_from("0123"), NODES, max_size=4)},
    optional={"extra_data": KNOWN, "client_id": KNOWN, "number": KNOWN, "partial_execution_targets": KNOWN},
)
NAMES = st.text(max_size=12) | st.sampled_from(["..", "../x", "a/b", "%2e%2e", "a.png", "input", "loras", "\0", "~"])
NAMED = ("dir", "path", "filename", "type", "subfolder", "channel", "preview", "max_items", "offset", "limit", "status")
QUERIES = st.dictionaries(
    st.sampled_from([*NAMED, "sort_by", "recurse", "full_info", "split", "clientId"]), NAMES, max_size=4
)
BODIES = JSON.map(json.dumps) | KNOWN.map(json.dumps) | PROMPTS.map(json.dumps) | st.text(max_size=30)
KINDS = st.sampled_from(
    ["application/json", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data", ""]
)
CALLS: list[tuple[str, str]] = [
    (route.method, prefix + route.path)
    for module in ROUTES
    for route in module.routes
    for prefix in ("", "/api")
    if not route.path.endswith("/ws")
]


ASKED = st.tuples(st.sampled_from(CALLS), st.lists(NAMES, min_size=2, max_size=2), QUERIES, BODIES, KINDS)


@given(st.lists(ASKED, min_size=20, max_size=20))
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_nothing_that_is_sent_makes_the_server_fail(tmp_path_factory: pytest.TempPathFactory, asked: list[Any]) -> None:
    async def run() -> None:
        async with served(tmp_path_factory.mktemp("server")) as client:
            for (method, path), names, query, body, kind in asked:
                chosen = iter(names)
                parts = [quote(next(chosen), safe="") if part.startswith("{") else part for part in path.split("/")]
                url = client.make_url("/").join(URL("/".join(parts), encoded=True)).with_query(query)
                sent = {} if method == "GET" else {"data": body.encode("utf-8", "replace")}
                headers = {"Content-Type": kind} if kind and sent else {}
                status, told = await answer(client, method, str(url.relative()), headers=headers, **sent)
                assert status < 500, (method, url, query, body, told)

    asyncio.run(run())


@given(st.lists(PROMPTS, min_size=10, max_size=10))
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_prompt_is_run_or_refused(tmp_path_factory: pytest.TempPathFactory, prompts: list[Any]) -> None:
    async def run() -> None:
        async with served(tmp_path_factory.mktemp("server")) as client:
            taken = []
            for prompt in prompts:
                status, told = await answer(client, "POST", "/prompt", data=json.dumps(prompt).encode())
                assert status in (200, 400), told
                if status == 200:
                    taken.append(told["prompt_id"])
                else:
                    assert (
                        told["error"].keys() >= {"type", "message", "details"}
                        if "node_errors" in told
                        else told["error"]
                    )
            while (await answer(client, "GET", "/prompt"))[1]["exec_info"]["queue_remaining"]:
                await asyncio.sleep(0.005)
            assert set(taken) == set((await answer(client, "GET", "/history"))[1])

    asyncio.run(run())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"1" * 5000]
)
def test_a_body_that_is_not_an_object_is_refused(tmp_path: Path, body: bytes) -> None:
    async def test(client: Client) -> None:
        for path in ("/prompt", "/queue", "/history", "/free", "/settings", "/api/jobs/cancel"):
            status, told = await answer(client, "POST", path, data=body)
            assert (status, "\n" in told["error"]) == (400, False)

    serve(tmp_path, test)


def test_a_body_of_too_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a hundred bytes of memory, however short it is."""
    monkeypatch.setattr(reading, "MOST_VALUES", 1000)

    async def test(client: Client) -> None:
        for count, status in ((990, 200), (1010, 400)):
            body = {"clear": False, "delete": ["x"] * count}
            assert (await answer(client, "POST", "/queue", json=body))[0] == status

    serve(tmp_path, test)


HEADS = [
    b'Content-Disposition: form-data; name="a\x14b"',
    b'Content-Disposition: form-data; name="a\x00b"; filename="b.png"',
    b"Content-Disposition form-data",
    b"Content-Disposition: form-data",
    b'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=nothing',
    b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: nothing',
    b'Content-Disposition: form-data; name="a"\r\nContent-Encoding: nothing',
    b"X: " + b"x" * 20_000,
    b"\xff: \xff",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_form_that_cannot_be_read_is_refused(tmp_path: Path, head: bytes) -> None:
    async def test(client: Client) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        for path in ("/upload/image", "/upload/mask"):
            body = b"--x\r\n" + head + b"\r\n\r\nsomething\r\n--x--\r\n"
            status, told = await answer(client, "POST", path, data=body, headers=headers)
            assert (status, "\n" in told["error"]) == (400, False)

    serve(tmp_path, test)


@given(st.lists(st.binary(max_size=30) | st.sampled_from(HEADS), max_size=3), st.binary(max_size=20))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_no_form_makes_the_server_fail(tmp_path: Path, head: list[bytes], content: bytes) -> None:
    async def test(client: Client) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        body = b"--x\r\n" + b"\r\n".join(head) + b"\r\n\r\n" + content + b"\r\n--x--\r\n"
        status, told = await answer(client, "POST", "/upload/image", data=body, headers=headers)
        assert status == 400, told

    serve(tmp_path, test)
