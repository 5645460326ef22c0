"""A browser and a server of the editor for all tests in it, with a page for each renderer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.editor import ARGUMENTS, RENDERERS, Editor, Server, chromium, tessera
from comfyui.server import ComfyUI
from tessera.app.server.editor_files import editor_folder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of a server and a renderer together: pytest's own order starts them anew for every example."""
    places = [place for place, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    for place, item in zip(places, sorted((items[place] for place in places), key=_page), strict=True):
        items[place] = item


def _page(item: pytest.Item) -> tuple[str, ...]:
    """The server and the renderer of a test."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) else {}
    return tuple(str(parameters.get(name)) for name in ("server", "editor"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium."""
    reason = 'no Playwright: pip install "tessera-nodes[test]"'
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        path = chromium(driver)
        if path is None:
            pytest.skip("no Chromium: install it, or run playwright install chromium")
        found = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session", params=["tessera", "comfyui"])
def server(
    request: pytest.FixtureRequest, browser: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of the editor."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tessera":
        if editor_folder() is None:
            pytest.skip('no editor: pip install "tessera-nodes[ui]"')
        with tessera(folder) as found:
            yield found
    elif "COMFYUI_PATH" not in os.environ:
        pytest.skip("no COMFYUI_PATH: set it to a ComfyUI checkout to open the editor there as well")
    else:
        with ComfyUI(Path(os.environ["COMFYUI_PATH"]).resolve(), folder, "tessera-pack") as found:
            yield Server(f"http://127.0.0.1:{found.port}", found.pack, ours=False)


@pytest.fixture(scope="session", params=RENDERERS)
def editor(request: pytest.FixtureRequest, browser: Any, server: Server) -> Iterator[Editor]:
    """The editor, opened."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    opened = Editor(page, server)
    opened.open(RENDERERS[request.param])
    yield opened
    page.close()


@pytest.fixture(autouse=True)
def nothing_wrong(editor: Editor) -> Iterator[None]:
    """No error in the page, on its console, or in an answer of the server."""
    yield
    wrong, editor.wrong[:] = list(editor.wrong), []
    assert wrong == []
