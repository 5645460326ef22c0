"""The views in the nodes: what they show, and how they are used."""

from __future__ import annotations

from typing import Any

import pytest
from browser.editor import Editor
from browser.views import LOOK_AT, find, open_example, until, view

pytestmark = pytest.mark.browser
long = pytest.mark.long


@pytest.fixture
def checked(editor: Editor) -> tuple[Editor, Any]:
    """The first example after a run, with Seam Check in view."""
    open_example(editor, "seamless_texture")
    node_id = find(editor, "TesseraSeamCheck")
    editor.page.evaluate(LOOK_AT, node_id)
    editor.run()
    until(editor, node_id, "v.drawn > 0 && v.badge !== '-'")
    editor.close_templates()
    return editor, node_id


def place_of(opened: Editor, node_id: Any) -> tuple[float, float]:
    box = opened.page.evaluate(
        """(id) => {
          const widget = window.app.graph.getNodeById(id).widgets.find((each) => each.name === 'tessera');
          const box = widget.element.querySelector('canvas').getBoundingClientRect();
          return [box.left + box.width / 2, box.top + box.height / 2];
        }""",
        node_id,
    )
    return box[0], box[1]


def test_the_seam_check_is_dragged_zoomed_and_switched(checked: tuple[Editor, Any]) -> None:
    opened, node_id = checked
    x, y = place_of(opened, node_id)
    where = "(id) => [[...window.app.graph.getNodeById(id).pos], window.app.canvas.ds.scale]"
    graph, before = opened.page.evaluate(where, node_id), view(opened, node_id)
    opened.page.mouse.move(x, y)
    opened.page.mouse.wheel(0, -300)
    until(opened, node_id, f"v.zoom > {before['zoom']}")
    opened.page.mouse.down()
    opened.page.mouse.move(x + 40, y + 30, steps=4)
    opened.page.mouse.up()
    opened.page.keyboard.press("r")
    assert until(opened, node_id, "v.mode === 'offset'")["drawn"]
    opened.page.keyboard.press("4")
    assert until(opened, node_id, "v.mode === 'heat map'")["drawn"]
    assert opened.page.evaluate(where, node_id) == graph


@long
def test_a_report_is_one_line_that_unfolds(checked: tuple[Editor, Any]) -> None:
    opened, node_id = checked
    found = view(opened, node_id)
    assert found["report"].startswith("Where left and right meet")
    assert not found["unfolded"]
    for unfolded in (True, False):
        opened.page.evaluate(
            """(id) => window.app.graph.getNodeById(id).widgets.find((each) => each.name === 'tessera')
                 .element.querySelector('.tessera-line').click()""",
            node_id,
        )
        assert view(opened, node_id)["unfolded"] == unfolded


@long
def test_a_slider_between_two_images_follows_the_pointer_and_the_keys(editor: Editor) -> None:
    open_example(editor, "flux_negative")
    node_id = find(editor, "TesseraCompareImages")
    editor.page.evaluate(LOOK_AT, node_id)
    editor.run()
    stage = editor.page.locator(".tessera-stage.tessera-both")
    stage.wait_for()
    editor.close_templates()
    assert stage.locator("img").evaluate_all("(all) => new Set(all.map((each) => each.src)).size") == 2
    box = stage.bounding_box()
    assert box is not None
    place = "(stage) => Number(stage.ariaValueNow ?? stage.getAttribute('aria-valuenow'))"
    for share in (0.25, 0.75):
        editor.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        assert abs(stage.evaluate(place) - 100 * share) <= 2
    before = stage.evaluate(place)
    stage.focus()
    editor.page.keyboard.press("ArrowLeft")
    assert stage.evaluate(place) < before


@long
def test_a_plot_follows_the_widgets_and_options_that_do_not_apply_are_grey(editor: Editor) -> None:
    open_example(editor, "scheduler_switch")
    node_id = find(editor, "TesseraScheduler")
    until(editor, node_id, "v.steps === '20'")
    change = """([id, name, value]) => {
      const node = window.app.graph.getNodeById(id), widget = node.widgets.find((each) => each.name === name);
      widget.value = value;
      widget.callback?.(value, window.app.canvas, node);
    }"""
    editor.page.evaluate(change, [node_id, "steps", 7])
    until(editor, node_id, "v.steps === '7'")
    grey = "(id) => window.app.graph.getNodeById(id).widgets.filter((each) => each.disabled).map((each) => each.name)"
    assert editor.page.evaluate(grey, node_id) == ["eta", "original_inference_steps"]


@long
def test_images_of_a_sheet_open_large_with_a_slider(editor: Editor) -> None:
    open_example(editor, "sampling_steps")
    node_id = find(editor, "TesseraSampleSteps")
    editor.page.evaluate(LOOK_AT, node_id)
    editor.run()
    editor.page.wait_for_selector(".tessera-cell img")
    editor.page.locator(".tessera-cell").nth(1).click()
    dialog = editor.page.locator("dialog.tessera-dialog")
    assert dialog.locator("strong").inner_text() == "step 4"
    dialog.locator("select").select_option("3")
    assert dialog.locator(".tessera-both img").count() == 2
    editor.page.keyboard.press("Escape")
    editor.page.wait_for_selector("dialog.tessera-dialog", state="detached")
