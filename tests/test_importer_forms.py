"""Requests in what holds them: wrappers of HTTP clients, lists, commands and code, and answers of the services."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tessera.app.cli.main import main
from tessera.app.services.bodies.forms import bodies
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError

BODY = {"modelId": "texture-sd", "prompt": 'it\'s a "white" zigzag\\ {moss} | $HOME & `x`\n', "width": 64, "seed": "7"}
OTHER = {"modelId": "texture-sd", "prompt": "moss", "concepts": [{"modelId": "zigzag", "scale": 0.5}]}
URL = "https://api.cloud.scenario.com/v1/generate/txt2img-texture"
SENT = json.dumps(BODY)


def found(content: str | bytes, service: str = "scenario-texture") -> list[Any]:
    return bodies(content.encode() if isinstance(content, str) else content, SERVICES[service])


@pytest.mark.parametrize("key", ["json", "inputs", "input", "data", "body", "payload", "params", "anything"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_wrapped_body_is_taken_out(key: str, as_text: bool) -> None:
    inside = SENT if as_text else BODY
    wrapped: Any = {"url": URL, "method": "POST", "headers": {"Authorization": "Bearer x"}, key: inside}
    assert found(json.dumps(wrapped)) == [BODY]
    assert found(json.dumps({"request": {"options": wrapped}})) == [BODY]
    assert found(json.dumps([wrapped, {key: OTHER}, OTHER])) == [BODY, OTHER, OTHER]


def test_what_lacks_a_model_does_not_take_that_of_a_lora() -> None:
    body = {"prompt": "moss", "concepts": [{"modelId": "zigzag", "scale": 0.5}]}
    assert found(json.dumps(body)) == found(json.dumps({"json": body})) == [body]


def test_a_body_is_never_taken_apart() -> None:
    odd = BODY | {"prompt": json.dumps(OTHER), "json": OTHER, "concepts": [OTHER]}
    assert found(json.dumps(odd)) == [odd]


@pytest.mark.parametrize(
    "command",
    [
        "curl -X POST {url} -H 'Content-Type: application/json' -d {body}",
        "curl --request POST --url {url} \\\n  --header 'accept: application/json' \\\n  --data {body}\n",
        "curl {url} --json {body}",
        "curl {url} --data-raw={body} --compressed",
        "$ /usr/bin/curl -s {url} -d{body}",
        "export KEY=x\ncurl {url} --data-binary {body} | jq .job",
    ],
)
def test_what_curl_sends_is_the_body(command: str) -> None:
    assert found(command.format(url=URL, body=shlex.quote(SENT))) == [BODY]


@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"])),
        st.text(st.characters(blacklist_categories=["Cs"])) | st.integers() | st.none(),
    )
)
@example({"a": "\\'\"$`!\n\r\u2028"})
def test_every_quoted_body_is_what_curl_sends(more: dict[str, Any]) -> None:
    body = more | OTHER
    assert found(f"curl {URL} -d {shlex.quote(json.dumps(body))}") == [body]
    assert found(f"curl {URL} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}") == [body]


def test_other_shells_and_quotes() -> None:
    double = json.dumps(OTHER).replace('"', '\\"')
    assert found(f'curl {URL} -d "{double}"') == [OTHER]
    quoted = SENT.replace("\\", "\\\\").replace("'", "\\'")
    assert found(f"curl {URL} --data-raw $'{quoted}'") == [BODY]
    for_cmd = json.dumps(OTHER).replace('"', '^\\^"')
    assert found(f'curl ^"{URL}^" ^\n  --data-raw ^"{for_cmd}^"') == [OTHER]
    assert found(f"curl {URL} -d 'modelId=texture-sd&prompt=white%20moss&width=64'") == [
        {"modelId": "texture-sd", "prompt": "white moss", "width": "64"}
    ]
    assert found(f"curl {URL} -F modelId=texture-sd -F 'prompt=a=b'") == [{"modelId": "texture-sd", "prompt": "a=b"}]
    two = f"curl {URL} -d '{json.dumps(OTHER)}'\ncurl {URL} -d '{json.dumps(OTHER)}'"
    assert found(two) == [OTHER, OTHER]
    with pytest.raises(GraphError, match="body.json, which is not read"):
        found(f"curl {URL} -d @body.json")


PYTHON = '''
import os, requests
# {{not: an object}}
SIZE = 64
prompt = ("white 'moss', "
          "in rows")
headers = {{"Authorization": f"Bearer {{os.environ['KEY']}}", "Accept": "application/json"}}
payload = {{
    'modelId': "texture-sd",  # the model
    'prompt': prompt,
    "width": SIZE, "seed": None, "hideResults": True, "guidance": 7.5,
    "negativePrompt": """a
b""",
    {key}
}}
response = {call}
print(response.json()["job"])
'''


@pytest.mark.parametrize(
    "call",
    ["requests.post(URL, json=payload, headers=headers)", "httpx.Client().post(URL, json=payload, timeout=30.0)"],
)
def test_code_in_python_holds_a_body(call: str) -> None:
    (body,) = found(PYTHON.format(call=call, key="'originalAssets': os.getenv('X', {'a': 1}),"))
    assert body == {
        "modelId": "texture-sd",
        "prompt": "white 'moss', in rows",
        "width": 64,
        "seed": None,
        "hideResults": True,
        "guidance": 7.5,
        "negativePrompt": "a\nb",
    }
    inside = f'requests.post("{URL}", headers={{"a": KEY}}, json={OTHER!r})'
    assert found(inside) == [OTHER]
    with pytest.raises(GraphError, match=r'baseModelId: found the code "pick\(\[1, 2\]\)"; expected its value'):
        found(PYTHON.format(call=call, key="'baseModelId': pick([1, 2]),"))


def test_a_text_that_a_variable_has_ends_with_its_line() -> None:
    code = "prompt = 'white moss'\nwidth = 64\n\nbody = {'modelId': 'texture-sd', 'prompt': prompt, 'width': width}\n"
    assert found(code) == [{"modelId": "texture-sd", "prompt": "white moss", "width": 64}]
    split = "body = {'modelId': 'texture-sd', 'prompt': 'white '\n  'moss'}"
    assert found(split) == [{"modelId": "texture-sd", "prompt": "white moss"}]


def test_json_in_a_text_of_other_languages_is_the_body() -> None:
    quoted = SENT.replace("\\", "\\\\").replace('"', '\\"')
    java = f'RequestBody body = RequestBody.create(mediaType, "{quoted}");\nString url = "{URL}";'
    assert found(java) == [BODY]
    sharp = 'new StringContent("{\\r\\n  \\"modelId\\": \\"texture-sd\\", \\"prompt\\": \\"moss\\"}", null, "a/b");'
    assert found(sharp) == [{"modelId": "texture-sd", "prompt": "moss"}]
    # A text inside an object is read with it.
    assert found(f'const options = {{method: "POST", body: "{quoted}"}};') == [BODY]


SCRIPT = """
const prompt = 'white moss';
const response = await fetch("%s", {
  method: 'POST',
  headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${process.env.KEY}` },
  body: JSON.stringify({
    modelId: "texture-sd", /* the model */
    prompt, width: 64, hideResults: false,
    negativePrompt: `red`, // none of it
    concepts: [{ modelId: 'zigzag', scale: .5 },],
  }),
});
"""


def test_code_in_javascript_holds_a_body() -> None:
    (body,) = found(SCRIPT % URL)
    assert body == {
        "modelId": "texture-sd",
        "prompt": "white moss",
        "width": 64,
        "hideResults": False,
        "negativePrompt": "red",
        "concepts": [{"modelId": "zigzag", "scale": 0.5}],
    }
    axios = f"axios.post('{URL}', {json.dumps(OTHER)}, {{headers: {{'x-api-key': key}}}})"
    assert found(axios) == [OTHER]


def test_other_texts_hold_bodies() -> None:
    assert found(f"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n{SENT}") == [BODY]
    assert found("\ufeff" + SENT) == found(SENT.encode("utf-16")) == [BODY]
    assert found(f"{SENT}\n{json.dumps(OTHER)}\n") == [BODY, OTHER]
    assert found(json.dumps(OTHER)[:-1] + ",}") == [OTHER]
    har = {"log": {"entries": [{"request": {"postData": {"mimeType": "application/json", "text": SENT}}}]}}
    assert found(json.dumps(har)) == [BODY]


@pytest.mark.parametrize("content", ["", "hello", "{", SENT[:-1], "\x00\xff", "curl https://x", "curl -d 'a", "f({})"])
def test_text_without_an_object_is_said(content: str) -> None:
    with pytest.raises(GraphError, match="not JSON .*, and no object in it; expected a request body"):
        found(content)


def test_what_lacks_something_is_still_shown() -> None:
    assert found(json.dumps({"json": {"width": 64, "prompt": "a"}, "headers": {}})) == [{"width": 64, "prompt": "a"}]
    assert found("[]") == [[]]
    assert found("{}") == [{}]
    assert found("5") == [5]


@given(st.text() | st.text("{}[]()'\"`\\:,=#/*a1 \n-d curl"))
@example('{"a": {"b": ')
def test_any_text_is_read_or_refused_in_a_line(text: str) -> None:
    try:
        found(text)
    except GraphError as error:
        assert error.lines
        assert all("\n" not in line for line in error.lines)


LEONARDO = {
    "generations_by_pk": {
        "generated_images": [{"url": "https://cdn.example/a.jpg", "nsfw": False, "id": "1", "likeCount": 0}],
        "modelId": "b24e16ff-06e3-43eb-8d33-4416c2d75876",
        "prompt": "white moss",
        "negativePrompt": "",
        "imageHeight": 512,
        "imageWidth": 768,
        "inferenceSteps": 30,
        "seed": 360416256,
        "public": False,
        "scheduler": "EULER_DISCRETE",
        "sdVersion": "SDXL_0_9",
        "status": "COMPLETE",
        "presetStyle": "DYNAMIC",
        "initStrength": None,
        "guidanceScale": 7,
        "id": "17f2",
        "photoReal": False,
    }
}
MODELSLAB = {
    "status": "success",
    "output": ["https://cdn.example/a.png"],
    "meta": {
        "prompt": "white moss",
        "W": 512,
        "H": 256,
        "steps": 21,
        "n_samples": 1,
        "seed": 5,
        "vae": None,
        "lora": "",
    },
}
SCENARIO = {
    "inference": {
        "id": "x",
        "modelId": "texture-sd",
        "status": "succeeded",
        "images": [{"id": "y", "url": "https://cdn.example/a.png", "seed": "123"}],
        "parameters": {"type": "txt2img-texture", "prompt": "white moss", "numSamples": 1, "width": 512},
    }
}


@pytest.mark.parametrize(
    ("service", "answer", "body"),
    [
        (
            "leonardo",
            LEONARDO,
            {"width": 768, "height": 512, "num_inference_steps": 30, "guidance_scale": 7, "seed": 360416256},
        ),
        ("modelslab", MODELSLAB, {"width": 512, "height": 256, "num_inference_steps": 21, "samples": 1, "seed": 5}),
        ("scenario-texture", SCENARIO, {"modelId": "texture-sd", "seed": "123", "numSamples": 1}),
    ],
)
def test_an_answer_that_echoes_its_request_is_read_back(service: str, answer: Any, body: dict[str, Any]) -> None:
    (read,) = found(json.dumps(answer), service)
    assert read.items() >= {"prompt": "white moss", **body}.items()
    assert read.keys() <= SERVICES[service].table().keys()
    SERVICES[service].read(read)


def test_an_answer_beside_its_request_gives_the_seed() -> None:
    log = {"request": {"prompt": "moss"}, "answer": {"images": [{"image_b64": "AAAA", "seed": 9}]}}
    assert found(json.dumps({**log, **log["answer"]}), "octoai") == [{"prompt": "moss", "seed": 9}]
    two = {"requests": [{"prompt": "a", "seed": 1}, {"prompt": "b"}]}
    assert found(json.dumps(two), "octoai") == two["requests"]
    slip = {"prompt": "moss", "steps": 21}
    assert found(json.dumps(slip), "modelslab") == [slip]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()

    def run(content: str, *options: str) -> tuple[int, list[str], list[str]]:
        (tmp_path / "requests.txt").write_text(content, encoding="utf-8")
        folders = ["--models-dir", str(tmp_path), "--input-dir", str(tmp_path / "input")]
        command = ["import", "scenario-texture", str(tmp_path / "requests.txt"), "-o", str(tmp_path / "out" / "w.json")]
        code = main([*command, *folders, *options])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    yield run
    folder_paths.configure(*before)


def test_several_bodies_become_numbered_workflows(run: Any, tmp_path: Path) -> None:
    code, said, _ = run(json.dumps([OTHER | {"seed": number} for number in range(11)]))
    names = [f"w_{number:02}.json" for number in range(1, 12)]
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert [line for line in said if line.endswith(".json")] == [str(tmp_path / "out" / name) for name in names]
    texts = [(tmp_path / "out" / name).read_text(encoding="utf-8") for name in names]
    assert len(set(texts)) == 11


def test_one_body_in_a_list_is_one_workflow(run: Any, tmp_path: Path) -> None:
    assert run(json.dumps([{"json": OTHER}]))[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["w.json"]


def test_nothing_is_written_where_one_of_several_is_wrong(run: Any, tmp_path: Path) -> None:
    code, _, said = run(json.dumps([OTHER, OTHER | {"width": 5}]))
    assert code == 2
    (line,) = said
    assert line.startswith("body 2: width: found 5; expected ")
    assert not (tmp_path / "out").exists()
