"""What the editor keeps on the server: settings and files, inside of the user's folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from serving import Client, answer, serve
from tessera.app.server.routes import settings


def test_settings_are_kept(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        assert (await answer(client, "GET", "/settings/Comfy.Locale"))[1] is None
        assert await answer(client, "POST", "/settings/Comfy.Locale", json="ja") == (200, "")
        assert await answer(client, "POST", "/api/settings", json={"a.b": [1], "c": None}) == (200, "")
        _, told = await answer(client, "GET", "/api/settings")
        assert {name: told[name] for name in ("Comfy.Locale", "a.b", "c")} == {
            "Comfy.Locale": "ja",
            "a.b": [1],
            "c": None,
        }
        assert (await answer(client, "GET", "/settings/Comfy.Locale"))[1] == "ja"
        assert (await answer(client, "POST", "/settings", json=[1]))[0] == 400
        assert (await answer(client, "POST", "/settings/x", data=b"{"))[0] == 400
        await answer(client, "POST", "/settings/Comfy.TutorialCompleted", json=True)
        assert "Comfy.TutorialCompleted" not in (await answer(client, "GET", "/settings"))[1]
        (tmp_path / "user" / "default" / "comfy.settings.json").write_text("{broken")
        assert (await answer(client, "GET", "/settings/Comfy.Locale"))[1] is None

    serve(tmp_path, test)


def test_the_editor_does_not_call_its_makers_unless_asked_to(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        name = "Comfy.Notification.ShowVersionUpdates"
        assert (await answer(client, "GET", "/settings"))[1][name] is False
        assert (await answer(client, "GET", "/settings/Comfy.Execution.PreviewMethod"))[1] == "auto"
        await answer(client, "POST", f"/settings/{name}", json=True)
        assert (await answer(client, "GET", "/settings"))[1][name] is True

    serve(tmp_path, test)


def test_files_are_saved_listed_moved_and_deleted(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        name = quote("workflows/moss & stone.json", safe="")
        assert await answer(client, "GET", "/userdata?dir=workflows") == (200, [])
        assert (await answer(client, "GET", f"/userdata/{name}"))[0] == 404
        assert await answer(client, "POST", f"/userdata/{name}", data=b"{}") == (200, "workflows/moss & stone.json")
        assert (await answer(client, "POST", f"/userdata/{name}?overwrite=false", data=b"{}"))[0] == 409
        _, told = await answer(client, "POST", f"/userdata/{name}?overwrite=true&full_info=true", data=b'{"a": 1}')
        assert (told["path"], told["size"]) == ("workflows/moss & stone.json", 8)
        assert told["modified"] > 1.6e12
        assert await answer(client, "GET", f"/userdata/{name}") == (200, {"a": 1})
        await answer(client, "POST", f"/userdata/{quote('workflows/sub/b.json', safe='')}", data=b"{}")
        assert (await answer(client, "GET", "/userdata?dir=workflows"))[1] == ["moss & stone.json"]
        _, both = await answer(client, "GET", "/userdata?dir=workflows&recurse=true&split=true")
        assert both == [["moss & stone.json", "moss & stone.json"], ["sub/b.json", "sub", "b.json"]]
        _, full = await answer(client, "GET", "/userdata?dir=workflows&recurse=true&split=false&full_info=true")
        assert [each["path"] for each in full] == ["moss & stone.json", "sub/b.json"]
        _, tree = await answer(client, "GET", "/v2/userdata?path=workflows")
        assert [(each["type"], each["path"]) for each in tree] == [
            ("directory", "workflows/sub"),
            ("file", "workflows/sub/b.json"),
            ("file", "workflows/moss & stone.json"),
        ]
        target = quote("workflows/c.json", safe="")
        assert await answer(client, "POST", f"/userdata/{name}/move/{target}") == (200, "workflows/c.json")
        other = quote("workflows/sub/b.json", safe="")
        assert (await answer(client, "POST", f"/userdata/{other}/move/{target}?overwrite=false"))[0] == 409
        assert (await answer(client, "DELETE", f"/userdata/{target}"))[0] == 204
        assert (await answer(client, "DELETE", f"/userdata/{target}"))[0] == 404

    serve(tmp_path, test)


def test_what_the_editor_asks_for_first_is_there(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        assert await answer(client, "GET", "/userdata/user.css") == (200, "")
        assert await answer(client, "GET", "/userdata/comfy.templates.json") == (200, [])
        assert await answer(client, "GET", "/userdata/workflows%2F.index.json") == (200, {})
        assert await answer(client, "GET", "/v2/userdata") == (200, [])
        assert (await answer(client, "GET", "/users"))[1] == {"storage": "server", "migrated": False}
        await answer(client, "POST", "/userdata/user.css", data=b"body { color: red }")
        async with client.get("/userdata/user.css") as response:
            assert response.content_type == "text/css"
            assert await response.text() == "body { color: red }"
        async with client.get("/userdata/comfy.templates.json") as response:
            assert response.headers.get("Content-Disposition", "attachment") == "attachment"
        assert (await answer(client, "GET", "/users"))[1]["migrated"] is True
        assert (await answer(client, "POST", "/users", json={"username": "b"}))[0] == 400

    serve(tmp_path, test)


OUTSIDE = ["../secret.txt", "../../secret.txt", "/etc/passwd", "linked/secret.txt", "link.txt", "..", ".", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_file_outside_of_the_folder_is_touched(tmp_path: Path, name: str) -> None:
    async def test(client: Client) -> None:
        root = tmp_path / "user" / "default"
        root.mkdir(parents=True)
        (tmp_path / "secret.txt").write_text("hidden words")
        (tmp_path / "user" / "secret.txt").write_text("hidden words")
        (root / "linked").symlink_to(tmp_path)
        (root / "link.txt").symlink_to(tmp_path / "secret.txt")
        before = {path: path.read_bytes() for path in tmp_path.rglob("secret.txt")}
        (root / "mine.txt").write_text("mine")
        for raw in (quote(name, safe=""), quote(quote(name, safe=""), safe="")):
            paths = [
                ("GET", f"/userdata/{raw}"),
                ("POST", f"/userdata/{raw}"),
                ("DELETE", f"/userdata/{raw}"),
                ("POST", f"/userdata/{raw}/move/stolen.txt"),
                ("POST", f"/userdata/mine.txt/move/{raw}"),
                ("GET", f"/userdata?dir={raw}&recurse=true"),
                ("GET", f"/v2/userdata?path={raw}"),
            ]
            for method, path in paths:
                status, told = await answer(client, method, path, data=b"overwritten" if method == "POST" else None)
                assert status < 500
                assert "hidden words" not in str(told)
        assert {path: path.read_bytes() for path in tmp_path.rglob("secret.txt")} == before
        assert not Path("/etc/stolen.txt").exists()

    serve(tmp_path, test)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "a.json")

    async def test(client: Client) -> None:
        monkeypatch.setattr(settings, "replace", full)
        status, told = await answer(client, "POST", "/settings/a", json=1)
        line = "a.json: No space left on device"
        assert (status, told) == (500, {"error": line, "code": "internal_server_error", "message": line})

    serve(tmp_path, test)
