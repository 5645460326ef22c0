"""Requests that ask for a better prompt: Enhance Prompt stands before the text encoder, with a model or by rule."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo
from tiny_text_models import gpt2_folder, llama_folder

Nodes = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    gpt2_folder(root / "text_generation" / "goes-on")
    llama_folder(root / "text_generation" / "owner" / "chat")
    return root


@pytest.fixture(autouse=True)
def _folders(models: Path) -> Iterator[None]:
    folder_paths.configure(str(models))
    yield
    folder_paths.configure()


def imported(service: str, text_model: str = "", strict: bool = False, **body: Any) -> tuple[dict[str, Line], Nodes]:
    """The report, and the inputs of the node of each title."""
    info = ObjectInfo(node_classes())
    sent = {"prompt": "moss", **body}
    drawing, lines = convert(SERVICES[service], sent, info, RequestImages({}), 1, strict=strict, text_model=text_model)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    validate(prompt, info)
    titles = {str(node["id"]): node["title"] for node in drawing["nodes"]}
    return {line.name: line for line in lines}, {titles[number]: node["inputs"] for number, node in prompt.items()}


def test_modelslab_adds_words_by_rule_unless_told_not_to() -> None:
    said, nodes = imported("modelslab")
    assert nodes["Enhance prompt"]["model"] == "rules"
    assert nodes["Enhance prompt"]["prompt"] == "moss"
    assert isinstance(nodes["Positive"]["text"], list)
    assert said["enhance_prompt"].outcome == APPROXIMATED
    assert "--text-model" in said["enhance_prompt"].text
    assert said["prompt"].text.endswith("TesseraEnhancePrompt.prompt")
    said, nodes = imported("modelslab", enhance_prompt="no")
    assert nodes["Positive"]["text"] == "moss"
    assert "Enhance prompt" not in nodes
    assert said["prompt"].text.endswith("CLIPTextEncode.text")


@pytest.mark.parametrize("prompt", ["", " \n", "\x00"])
def test_a_prompt_without_words_stays_as_it_is(prompt: str) -> None:
    said, nodes = imported("modelslab", prompt=prompt)
    assert "Enhance prompt" not in nodes
    assert said["enhance_prompt"].outcome == NO_EFFECT


@pytest.mark.parametrize("name", ["owner/chat", "chat", "CHAT"])
def test_a_chat_model_follows_instructions(name: str) -> None:
    asked = {"enhancePrompt": True, "enhancePromptInstructions": "in {winter|summer}", "presetStyle": "ANIME"}
    said, nodes = imported("leonardo", name, **asked)
    assert nodes["Enhance prompt"]["model"] == "owner/chat"
    assert nodes["Enhance prompt"]["instructions"] == "in {winter|summer}"
    assert nodes["Enhance prompt"]["prompt"].startswith("moss, anime drawing")
    assert {said[key].outcome for key in ("enhancePrompt", "enhancePromptInstructions")} == {MAPPED}
    assert "TesseraEnhancePrompt.instructions" in said["enhancePromptInstructions"].text
    assert "TesseraEnhancePrompt.prompt" in said["presetStyle"].text


def test_a_model_that_goes_on_follows_none() -> None:
    said, nodes = imported("leonardo", "goes-on", enhancePrompt=True, strict=True)
    assert nodes["Enhance prompt"]["model"] == "goes-on"
    assert said["enhancePrompt"].outcome == MAPPED
    said, nodes = imported("leonardo", "goes-on", enhancePrompt=True, enhancePromptInstructions="in winter")
    assert nodes["Enhance prompt"]["instructions"] == ""
    assert said["enhancePromptInstructions"].outcome == APPROXIMATED
    assert "no model for chats" in said["enhancePromptInstructions"].text


@pytest.mark.parametrize("name", ["", "gone", "rules", "../chat"])
def test_without_a_model_instructions_are_not_followed_and_that_is_said(name: str) -> None:
    asked = {"enhancePrompt": True, "enhancePromptInstructions": "in winter"}
    said, nodes = imported("leonardo", name, **asked)
    assert (nodes["Enhance prompt"]["model"], nodes["Enhance prompt"]["instructions"]) == ("rules", "")
    line = said["enhancePromptInstructions"]
    assert line.outcome == APPROXIMATED
    assert "rules add words, which cannot follow instructions; name a model with --text-model" in line.text
    assert not name or f'no folder "{name}" in models/text_generation' in line.text
    with pytest.raises(GraphError) as caught:
        imported("leonardo", name, strict=True, **asked)
    assert [line.partition(":")[0] for line in caught.value.lines] == list(asked)


def test_instructions_alone_do_nothing() -> None:
    said, nodes = imported("leonardo", "chat", enhancePromptInstructions="in winter")
    assert "Enhance prompt" not in nodes
    assert said["enhancePromptInstructions"].outcome == NO_EFFECT


def test_prompt_magic_is_words_of_its_own() -> None:
    _, nodes = imported("leonardo", promptMagic=True)
    assert "highly detailed" in nodes["Positive"]["text"]
    _, nodes = imported("leonardo", promptMagic=True, enhancePrompt=True)
    assert "highly detailed" in nodes["Enhance prompt"]["prompt"]


def test_braces_of_a_prompt_stay_on_their_way() -> None:
    _, nodes = imported("leonardo", prompt="moss {a|b}", enhancePrompt=True)
    assert nodes["Enhance prompt"]["prompt"] == "moss {a|b}"


def test_an_imported_request_has_its_prompt_written(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The API graph runs, with what the model wrote in place of the prompt."""
    body = {"prompt": "moss", "enhancePrompt": True, "enhancePromptInstructions": "wet", "num_images": 1}
    body |= {"width": 32, "height": 32, "num_inference_steps": 10}
    (tmp_path / "request.json").write_text(json.dumps(body))
    workflow = tmp_path / "workflow.json"
    folders = ["--models-dir", str(models), "--input-dir", str(tmp_path)]
    command = ["import", "leonardo", str(tmp_path / "request.json"), "-o", str(workflow), "--text-model", "chat"]
    assert main([*command, "--seed", "3", *folders]) == 0
    assert "enhancePromptInstructions: mapped" in capsys.readouterr().out
    saved = []
    for words in (4, 1):
        node = next(each for each in json.loads(workflow.read_text())["nodes"] if each["title"] == "Enhance prompt")
        changed = ["--set", f"{node['id']}.max_words={words}"]
        assert main(["run", str(workflow), "--device", "cpu", "--output-dir", str(tmp_path), *changed, *folders]) == 0
        saved.append(Path(capsys.readouterr().out.strip()).read_bytes())
    assert saved[0] != saved[1]
