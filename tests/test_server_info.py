"""What the editor and scripts learn of the server, and what the pack gives to the editor."""

from __future__ import annotations

import copy
import json
import struct
from io import BytesIO
from pathlib import Path

import pytest
from node_contract import golden
from PIL import Image
from safetensors.torch import save_file
from serving import STRIPES, Client, answer, heard, listening, post, run_prompt, serve
from tessera.app.registry import node_classes
from tessera.app.server import messages, pack
from tessera.app.server.application import ROUTES
from tessera.nodes import NODES
from torch import zeros

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("knows_metadata", [True, False])
def test_an_image_is_made_with_progress_and_previews(tmp_path: Path, knows_metadata: bool) -> None:
    async def test(client: Client) -> None:
        async with listening(client, "me", supports_preview_metadata=knows_metadata) as socket:
            more = {"client_id": "me", "extra_data": {"preview_method": "auto"}}
            _, told = await post(client, STRIPES, **more)
            texts, binary = await heard(socket, told["prompt_id"])
            steps = [each["data"] for each in texts if each["type"] == "progress" and each["data"]["node"] == "4"]
            assert [(each["value"], each["max"]) for each in steps] == [(1, 2), (2, 2)]
            assert len(binary) == 2
            for content in binary:
                kind, size = struct.unpack(">II", content[:8])
                if knows_metadata:
                    about = json.loads(content[8 : 8 + size])
                    assert (kind, about["node_id"], about["prompt_id"]) == (4, "4", told["prompt_id"])
                    assert (about["display_node_id"], about["image_type"]) == ("4", "image/jpeg")
                    image = Image.open(BytesIO(content[8 + size :]))
                else:
                    assert (kind, size) == (1, 1)
                    image = Image.open(BytesIO(content[8:]))
                assert (image.format, max(image.size)) == ("JPEG", 512)
            executed = next(each["data"] for each in texts if each["type"] == "executed")
            (saved,) = executed["output"]["images"]
            async with client.get("/view", params=saved) as response:
                assert json.loads(Image.open(BytesIO(await response.read())).info["prompt"]) == STRIPES
            _, told = await post(client, STRIPES | {"3": _sized(32)}, client_id="me")
            _, binary = await heard(socket, told["prompt_id"])
            assert binary == [], "the default is to show nothing"

    serve(tmp_path, test, classes=None)


def _sized(size: int) -> dict[str, object]:
    return {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}}


def test_a_run_that_is_stopped_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """The loaded model makes the same image, to the bit, after a run with patches was stopped between its steps."""
    patched = copy.deepcopy(STRIPES)
    patched["7"] = {"class_type": "TesseraSeamlessModel", "inputs": {"model": ["1", 0], "tiling": "both"}}
    patched["4"]["inputs"] |= {"model": ["7", 0], "steps": 10_000}

    async def pixels(client: Client) -> bytes:
        entry = await run_prompt(client, STRIPES)
        async with client.get("/view", params=entry["outputs"]["6"]["images"][0]) as response:
            return Image.open(BytesIO(await response.read())).tobytes()

    async def test(client: Client) -> None:
        before = await pixels(client)
        async with listening(client, "me") as socket:
            prompt_id = (await post(client, patched, client_id="me"))[1]["prompt_id"]
            while True:
                told = await socket.receive_json()
                if told["type"] == "progress" and told["data"]["value"] >= 2:
                    break
            await answer(client, "POST", "/interrupt")
            texts, _ = await heard(socket, prompt_id)
            assert "execution_interrupted" in {each["type"] for each in texts}
            prompt_id = (await post(client, STRIPES, client_id="me"))[1]["prompt_id"]
            texts, _ = await heard(socket, prompt_id)
        cached = next(each["data"]["nodes"] for each in texts if each["type"] == "execution_cached")
        assert "1" in cached, "the model stays loaded"
        assert "4" not in cached, "and samples anew"
        assert await pixels(client) == before

    serve(tmp_path, test, classes=None)


def test_every_route_is_there_with_and_without_api(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for path in ("/prompt", "/queue", "/history", "/object_info", "/features", "/extensions"):
            assert await answer(client, "GET", path) == await answer(client, "GET", f"/api{path}")
        known = {(route.method, route.resource.canonical) for route in client.app.router.routes() if route.resource}
        for module in ROUTES:
            for route in module.routes:
                assert {(route.method, route.path), (route.method, f"/api{route.path}")} <= known

    serve(tmp_path, test)


def test_nodes_are_described_as_comfyui_describes_them(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        _, info = await answer(client, "GET", "/object_info")
        assert set(info) == set(node_classes())
        assert {node.GET_SCHEMA().node_id for node in NODES} == set(golden())
        for node_id in golden():
            assert info[node_id]["python_module"] == "custom_nodes.tessera"
        assert info["KSampler"]["python_module"] == "nodes"
        assert await answer(client, "GET", "/object_info/KSampler") == (200, {"KSampler": info["KSampler"]})
        assert await answer(client, "GET", "/object_info/Unknown") == (200, {})

    serve(tmp_path, test, classes=None)


def test_system_and_features_are_told(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        _, told = await answer(client, "GET", "/system_stats")
        assert {"os", "ram_total", "ram_free", "comfyui_version", "python_version", "pytorch_version"} <= set(
            told["system"]
        )
        assert {"name", "type", "index", "vram_total", "vram_free"} <= set(told["devices"][0])
        _, features = await answer(client, "GET", "/features")
        assert features["supports_preview_metadata"] is True
        assert features["max_upload_size"] == 100 * 2**20

    serve(tmp_path, test)


def test_models_are_listed(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        for folder in ("loras/sub", "embeddings", "checkpoints"):
            (tmp_path / "models" / folder).mkdir(parents=True)
        save_file({"a": zeros(1)}, tmp_path / "models" / "loras" / "sub" / "x.safetensors", {"note": "mine"})
        (tmp_path / "models" / "embeddings" / "word.safetensors").write_bytes(b"")
        (tmp_path / "models" / "checkpoints" / "bad.safetensors").write_bytes(b"\xff" * 40)
        assert "loras" in (await answer(client, "GET", "/models"))[1]
        assert (await answer(client, "GET", "/models/loras"))[1] == ["sub/x.safetensors"]
        assert (await answer(client, "GET", "/models/unknown"))[0] == 404
        assert (await answer(client, "GET", "/embeddings"))[1] == ["word"]
        folders = (await answer(client, "GET", "/experiment/models"))[1]
        assert {"name": "loras", "folders": [str(tmp_path / "models" / "loras")]}.items() <= folders[1].items()
        (model,) = (await answer(client, "GET", "/experiment/models/loras"))[1]
        assert (model["name"], model["pathIndex"], model["size"] > 0) == ("sub/x.safetensors", 0, True)
        path = "/view_metadata/loras"
        assert await answer(client, "GET", f"{path}?filename=sub/x.safetensors") == (200, {"note": "mine"})
        for query in (
            "",
            "?filename=y.safetensors",
            "?filename=../../secret.safetensors",
            "?filename=a%00.safetensors",
        ):
            assert (await answer(client, "GET", path + query))[0] == 404
        assert (await answer(client, "GET", "/view_metadata/checkpoints?filename=bad.safetensors"))[0] == 404

    serve(tmp_path, test)


def test_examples_help_pages_texts_and_scripts_are_served(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        _, (category,) = await answer(client, "GET", "/templates/index.json")
        assert await answer(client, "GET", "/api/templates/index.zh-TW.json") == (200, [category])
        names = [each["name"] for each in category["templates"]]
        assert sorted(names) == sorted(path.stem for path in pack.EXAMPLES.glob("*.json"))
        assert names[0] == pack.FIRST
        assert len({each["title"] for each in category["templates"]}) == len(names)
        for each in category["templates"]:
            assert 0 < len(each["title"]) < 60 and "_" not in each["title"]
            assert len(each["description"]) > 40
        for name in names:
            assert (await answer(client, "GET", f"/templates/{name}.json"))[0] == 200
            async with client.get(f"/templates/{name}-1.jpg") as response:
                assert (response.status, response.content_type) == (200, "image/jpeg")
        for node_id in golden():
            status, text = await answer(client, "GET", f"/extensions/tessera/docs/{node_id}/en.md")
            assert (status, text) == await answer(client, "GET", f"/extensions/tessera/docs/{node_id}.md")
            assert status == 200
        assert (await answer(client, "GET", "/extensions/tessera/docs/Unknown/en.md"))[0] == 404
        status, page = await answer(client, "GET", "/docs/KSampler/en.md")
        assert (status, "`sampler_name`" in page) == (200, True)
        _, texts = await answer(client, "GET", "/i18n")
        assert set(texts) == {path.name for path in pack.LOCALES.iterdir() if path.is_dir()}
        assert set(golden()) <= set(texts["en"]["nodeDefs"])
        _, scripts = await answer(client, "GET", "/extensions")
        for path in scripts:
            assert (await answer(client, "GET", path))[0] == 200
        _, subgraphs = await answer(client, "GET", "/global_subgraphs")
        for key, entry in subgraphs.items():
            _, whole = await answer(client, "GET", f"/global_subgraphs/{key}")
            assert json.loads(whole.pop("data"))["definitions"]
            assert whole == entry
        assert await answer(client, "GET", "/global_subgraphs/unknown") == (200, None)
        assert await answer(client, "GET", "/templates/index_logo.json") == (200, {})
        assert (await answer(client, "GET", "/templates/flux.json"))[0] == 404
        status, offered = await answer(client, "GET", "/node_replacements")
        assert status == 200 and offered["SeamlessTile"][0]["new_node_id"] == "TesseraSeamlessModel"

    serve(tmp_path, test, classes=None)


@pytest.mark.parametrize(
    "path",
    [
        "/extensions/tessera/../../pyproject.toml",
        "/extensions/tessera/%2e%2e/pyproject.toml",
        "/api/templates/..%2fREADME.md",
    ],
)
def test_only_the_packs_web_folders_are_served(tmp_path: Path, path: str) -> None:
    async def test(client: Client) -> None:
        assert (await answer(client, "GET", path))[0] in (403, 404)

    serve(tmp_path, test)


def test_the_editor_is_served_where_it_is_installed(tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    (editor / "extensions" / "core").mkdir(parents=True)
    (editor / "index.html").write_text("<title>Editor</title>")
    (editor / "extensions" / "core" / "a.js").write_text("export {}")

    async def test(client: Client) -> None:
        status, text = await answer(client, "GET", "/")
        assert (status, text) == (200, "<title>Editor</title>")
        assert (await answer(client, "GET", "/extensions"))[1][0] == "/extensions/core/a.js"
        async with client.get("/extensions/core/a.js") as response:
            assert (response.status, response.headers["Cache-Control"]) == (200, "no-cache")

    serve(tmp_path, test, editor_dir=editor)


def test_without_the_editor_its_page_says_how_to_get_it(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        status, text = await answer(client, "GET", "/")
        assert (status, "tessera-nodes[ui]" in text) == (200, True)

    serve(tmp_path, test)


def test_messages_are_json_for_every_reader() -> None:
    told = {"a": float("nan"), "b": [float("inf"), 1.5, True, None], "c": (1, "x"), "d": {2: object}}
    text = messages.encoded("executed", told)
    assert "NaN" not in text
    assert json.loads(text)["data"] == {"a": None, "b": [None, 1.5, True, None], "c": [1, "x"], "d": {"2": str(object)}}
    assert messages.jsonable(zeros(()).numpy()) == 0.0
