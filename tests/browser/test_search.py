"""What the editor's search of nodes finds."""

from __future__ import annotations

import pytest
from browser.editor import Editor

pytestmark = [pytest.mark.browser, pytest.mark.long]


def test_the_loader_of_adapters_is_found_by_the_name_people_use(editor: Editor) -> None:
    page = editor.page
    page.evaluate("() => void window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.get_by_role("combobox").last.wait_for()
    page.keyboard.type("ipadapter")
    found = page.locator("[role=option]")
    found.get_by_text("IPAdapter Loader").first.wait_for()
    assert found.first.inner_text().startswith("IPAdapter Loader")
    page.keyboard.press("Escape")
