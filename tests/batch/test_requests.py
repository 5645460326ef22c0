"""Tables of request bodies: each line becomes a job as `tessera import` would make a workflow of it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tessera.app.cli.main import main
from tessera.host import folder_paths

BODY = {"modelId": "texture-sd", "prompt": "white and teal zigzag", "width": 128, "height": 128, "numInferenceSteps": 2}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    folder_paths.configure()


def table(*bodies: Any) -> str:
    Path("requests.jsonl").write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return "requests.jsonl"


def batch(*arguments: str) -> int:
    return main(["batch", *arguments, "--service", "scenario-texture"])


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("batch/results.jsonl").read_text().splitlines()]


def test_requests_are_run_and_not_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(table(BODY, {**BODY, "seed": "7"})) == 0
    assert [line["inputs"].get("seed") for line in lines()] == [None, "7"]
    assert all(Path("batch", name).is_file() for line in lines() for name in line["files"])
    # A request without a seed has the same one the next time.
    capsys.readouterr()
    assert batch("requests.jsonl", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done_before"] == 2


def test_wrong_requests_are_told_with_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(table(BODY, {**BODY, "width": -1}, BODY)) == 2
    first, second, _ = capsys.readouterr().err.splitlines()
    assert "requests.jsonl, line 2: width" in first
    assert "line 3: the same job as line 1" in second


def test_journal_repeats_neither_images_nor_keys() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    body = {
        "key": "secret",
        "model_id": "texture-sd",
        "prompt": "moss",
        "init_image": image,
        "num_inference_steps": "21",
    }
    body |= {"width": "128", "height": "128", "strength": 0.1}
    assert main(["batch", table(body), "--service", "modelslab"]) == 0
    (line,) = lines()
    assert line["files"] and line["inputs"]["prompt"] == "moss"
    assert len(json.dumps(line["inputs"])) < 500
    assert "secret" not in Path("batch/results.jsonl").read_text()
