"""`tessera run --webhook`: one report, sent again where it makes sense, never to an address that is not public."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from graph_nodes import CLASSES, node
from hypothesis import given
from hypothesis import strategies as st
from tessera.app.cli.addresses import literal
from tessera.app.cli.main import main
from tessera.app.cli.webhook import PAUSES, Webhook
from tessera.host import folder_paths
from tessera.host.errors import GraphError, without_secrets


class Receiver(HTTPServer):
    """Answers with `answers` in turn, then with 200; keeps what it was told."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.paths = list(answers), list[str]()
        self.reports: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/done?key=1"


class Handler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        self.server.paths.append(self.path)
        self.server.reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", self.server.url)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("answers", [[], [500], [503, 429, 408]])
def test_report_arrives_once_the_receiver_takes_it(receiver: Receiver, answers: list[int]) -> None:
    receiver.answers = list(answers)
    pauses: list[float] = []
    assert Webhook(receiver.url, "5", True).send({"status": "success"}, pauses.append) == ""
    assert receiver.reports == [{"track_id": "5", "status": "success"}] * (len(answers) + 1)
    assert receiver.paths[0] == "/done?key=1"
    assert pauses == list(PAUSES[: len(answers)])


def test_receiver_that_stays_busy_is_given_up(receiver: Receiver) -> None:
    receiver.answers = [500] * 9
    pauses: list[float] = []
    assert "answered 500; gave up after 4 attempts" in Webhook(receiver.url, private=True).send({}, pauses.append)
    assert pauses == list(PAUSES) == sorted(PAUSES)
    assert len(receiver.reports) == 4


@pytest.mark.parametrize("answer", [302, 307, 400, 404])
def test_refusals_and_redirects_end_it(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer]
    assert f"answered {answer}" in Webhook(receiver.url, private=True).send({}, lambda _: None)
    assert len(receiver.reports) == 1


def test_nobody_there_is_said_in_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        line = Webhook(url, private=True).send({}, lambda _: None)
    assert "gave up after 4 attempts" in line
    assert "\n" not in line


PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "[::1]",
    "[fe80::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "172.31.255.255",
    "192.0.0.9",
    "192.88.99.1",
    "198.19.0.1",
    "255.255.255.255",
    "[::]",
    "[::127.0.0.1]",
    "[::8.8.8.8]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b:1::808:808]",
    "[100::1]",
    "[2001:0:808:808::1]",
    "[2001:10::1]",
    "[2001:db8::1]",
    "[2002:808:808::]",
    "[3fff::1]",
    "[5f00::1]",
    "[fd00::1]",
    "[fec0::1]",
    "[ff02::1]",
]
SPELLINGS = ["127.1", "127.0.1", "0177.0.0.1", "0x7f.1", "0x7f000001", "0x7F000001", "2130706433", "017700000001", "0"]
SPELLINGS += ["127.0.0.1.", "00000177.1", "10.1", "0xa9fea9fe", "[0:0:0:0:0:ffff:7f00:1]", "[::FFFF:7F00:0001]", "0x"]
NAMES = ["localhost", "LOCALHOST.", "a.localhost", "printer.local", "db.internal", "nas.home.arpa", "ip6-loopback"]
PUBLIC = ["8.8.8.8", "172.32.0.1", "192.0.1.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"]


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_are_allowed(host: str) -> None:
    Webhook(f"https://{host}/x").check()


@given(st.integers(0, 2**32 - 1), st.randoms())
def test_every_spelling_is_the_same_address(number: int, random: Any) -> None:
    packed = number.to_bytes(4, "big")
    kept = random.randrange(4)
    parts = [*packed[:kept], int.from_bytes(packed[kept:], "big")]
    spelled = ".".join(random.choice(["{}", "0{:o}", "0x{:x}", "0X{:X}", "0x0{:x}"]).format(part) for part in parts)
    assert literal(spelled) == ipaddress.IPv4Address(number)
    assert int(ipaddress.IPv4Address(socket.inet_aton(spelled.lower()))) == number


@pytest.mark.parametrize("host", [*PRIVATE, *SPELLINGS, *NAMES])
def test_addresses_that_are_not_public_are_refused_before_the_run(host: str) -> None:
    with pytest.raises(GraphError, match="not a public address"):
        Webhook(f"https://{host}/x").check()
    Webhook(f"https://{host}/x", private=True).check()


@pytest.mark.parametrize("host", PRIVATE)
def test_names_that_lead_to_such_an_address_are_refused(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    public, private = ((socket.AF_INET, 1, 6, "", (each, 80)) for each in ("8.8.8.8", host.strip("[]")))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [public, private])
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    assert "not a public address" in Webhook("http://example.com").send({}, lambda _: None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com",
        "http://",
        "http://a b",
        "http://a:99999",
        "http://a\r\nb",
        "//a",
        "http://[x",
        "http://256.0.0.1",
        "http://1.2.3.4.5",
        "http://09.0.0.1",
        "http://127.0.0.1..",
        "http://127.0.0.%31",
        "http://example.com\\@127.0.0.1",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(GraphError, match="expected a URL"):
        Webhook(url).check()


SECRET = "https://user:pass@example.com:99999/done?key=word#part"


def test_messages_show_no_secrets_of_a_url() -> None:
    with pytest.raises(GraphError) as refused:
        Webhook(SECRET).check()
    assert "https://example.com:99999/done" in refused.value.lines[0]
    for url in (SECRET, "http://u:pa/ss?wo@10.0.0.1/x?key=word", "u:pass@10.0.0.1?key=word"):
        shown = without_secrets(url)
        assert not [secret for secret in ("user", "pass", "pa/ss", "key", "word", "part") if secret in shown]
    with pytest.raises(GraphError, match="not a public address") as refused:
        Webhook("http://user:pass@10.0.0.1/x?key=word").check()
    assert "http://10.0.0.1/x" in refused.value.lines[0] and "pass" not in refused.value.lines[0]


def test_a_receiver_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.app.cli.webhook.DEADLINE", 0.5)
    done = threading.Event()

    def trickle(server: socket.socket) -> None:
        taken, _ = server.accept()
        with taken, suppress(OSError):
            while not done.wait(0.02):
                taken.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=trickle, args=(server,), daemon=True).start()
        line = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/x?key=1", private=True).send({})
        done.set()
    assert "gave up after 0.5 seconds" in line and "key" not in line


def test_an_answer_is_printed_escaped(run: Any) -> None:
    def answer(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken, _ = server.accept()
                with taken:
                    taken.recv(65536)
                    taken.sendall(b"\x1b[31mred\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tessera.app.cli.webhook.PAUSES", ())
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            code, lines = run(GOOD, "--webhook", url, "--webhook-private")
    assert code == 1
    assert len(lines) == 1 and "red" in lines[0] and "\x1b" not in lines[0]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a graph with a webhook: exit code and error lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tessera.app.registry.node_classes", lambda: CLASSES)

    def call(graph: dict[str, Any], *options: str) -> tuple[int, list[str]]:
        (tmp_path / "graph.json").write_text(json.dumps(graph))
        return main(["run", "graph.json", *options]), capsys.readouterr().err.splitlines()

    yield call
    folder_paths.configure()


GOOD = {"1": node("Paint", batch=1), "2": node("Save", images=["1", 0], filename_prefix="image")}


def test_a_run_reports_its_files(run: Any, receiver: Receiver, tmp_path: Path) -> None:
    options = ["--webhook", receiver.url, "--webhook-private", "--track-id", "abc"]
    assert run(GOOD, *options) == (0, [])
    (report,) = receiver.reports
    path = str(tmp_path / "output" / "image_00001_.png")
    assert (report["track_id"], report["status"], report["output"]) == ("abc", "success", [path])
    assert report["outputs"]["2"]["images"] == [{"path": path}]
    assert report["seconds"] > 0


def test_a_run_without_files_reports_what_it_showed(run: Any, receiver: Receiver) -> None:
    assert run({"1": node("Show", value="moss")}, "--webhook", receiver.url, "--webhook-private") == (0, [])
    (report,) = receiver.reports
    assert (report["output"], report["outputs"]) == ([], {"1": {"text": ["moss"]}})
    assert report["seconds"] >= 0


def test_a_run_that_cannot_begin_reports_why(run: Any, receiver: Receiver) -> None:
    code, lines = run({"1": node("Nothing")}, "--webhook", receiver.url, "--webhook-private")
    assert code == 2
    (report,) = receiver.reports
    assert (report["status"], report["errors"]) == ("failed", lines)


def test_a_report_that_is_refused_fails_the_run(run: Any, receiver: Receiver) -> None:
    receiver.answers = [404]
    code, lines = run(GOOD, "--webhook", receiver.url, "--webhook-private")
    assert code == 1
    assert "answered 404" in lines[0]


def test_nothing_runs_where_the_webhook_is_not_allowed(run: Any, receiver: Receiver, tmp_path: Path) -> None:
    code, lines = run(GOOD, "--webhook", receiver.url)
    assert code == 2
    assert "--webhook-private" in lines[0]
    assert not (tmp_path / "output").exists()
    assert run(GOOD, "--track-id", "5")[0] == 2
