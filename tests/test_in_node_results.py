"""What the nodes send to be shown in themselves, and what the interface asks before a run."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from typing import Any

import pytest
import torch
from naming import naming
from tessera.host.schema import io
from tessera.host.schema.extension import ROUTES
from tessera.images.sheets import overlay, thumbnail
from tessera.nodes import NODES
from tessera.nodes.compare_images import TesseraCompareImages
from tessera.nodes.extension import Tessera
from tessera.nodes.image_prompts import TesseraImagePrompt
from tessera.nodes.schedule_preview import PATH, schedule_preview
from tessera.nodes.scheduler_inputs import OWN
from tessera.nodes.seam_check import TesseraSeamCheck
from tessera.samplers.preview import FAMILIES, preview
from tessera.samplers.registry import NAMES, find
from tessera.samplers.steps import StepKeeper

# numpy's about diffusers.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FILE_KEYS = {"filename", "subfolder", "type"}


@pytest.fixture(autouse=True)
def in_a_temporary_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tessera.host.folder_paths.get_directory_by_type", lambda _: str(tmp_path))


def look(output: Any) -> dict[str, Any]:
    """What a node shows, after JSON."""
    return json.loads(json.dumps(output.ui, allow_nan=False))


def test_the_seam_check_sends_what_its_view_draws() -> None:
    ramp = torch.linspace(0, 1, 24)[None, :, None, None].expand(2, 24, 16, 3)
    found = look(TesseraSeamCheck.execute(ramp, 4, 2, "half_drop"))
    assert [set(file) for file in found["textures"]] == [FILE_KEYS] * 2
    assert len(found["images"]) == 2
    assert found["layout"] == [4, 2, "half_drop"]
    assert found["seam_visible"] == [True]


def test_a_seam_that_does_not_count_is_not_visible() -> None:
    ramp = torch.linspace(0, 1, 64)[None, :, None, None].expand(1, 64, 64, 3)
    texture = (ramp + 0.1 * torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))) / 1.1
    assert look(TesseraSeamCheck.execute(texture, 3, 3, "vertical"))["seam_visible"] == [True]
    assert look(TesseraSeamCheck.execute(texture, 3, 3, "horizontal"))["seam_visible"] == [False]


@pytest.mark.parametrize(("left", "right", "counts"), [(1, 3, (1, 3)), (2, None, (1, 1)), (1, None, (1, 0))])
def test_compared_images_are_two_batches(left: int, right: int | None, counts: tuple[int, int]) -> None:
    found = look(
        TesseraCompareImages.execute(torch.rand(left, 8, 8, 3), None if right is None else torch.rand(right, 4, 9, 3))
    )
    assert (len(found["a_images"]), len(found["b_images"])) == counts


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_kind_are_shown(channels: int) -> None:
    image = torch.rand(2, 24, 24, channels)
    assert len(look(TesseraSeamCheck.execute(image))["textures"]) == 2
    assert len(look(TesseraCompareImages.execute(image, image))["b_images"]) == 2
    assert len(look(TesseraImagePrompt.execute(image))["images"]) == 2
    assert overlay(image[0], torch.zeros(1, 6, 6, 3)).shape == (1, 24, 24, 3)


def test_an_image_prompt_shows_its_reference_with_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        "tessera.nodes.shown.thumbnail", lambda images, label: (drawn.append(label), thumbnail(images, label))[1]
    )
    found = look(TesseraImagePrompt.execute(torch.rand(2, 300, 200, 3), scale=0.35, type="style"))
    assert drawn == ["style 0.35"]
    assert len(found["images"]) == 2


def test_thumbnails_are_small_and_keep_their_shape() -> None:
    small = thumbnail(torch.rand(2, 400, 100, 3), "style 0.90")
    assert small.shape[0] == 2
    assert small.shape[2] == 48
    assert 192 < small.shape[1] < 240
    assert thumbnail(torch.rand(1, 30, 20, 3), "x").shape[2] == 20


def test_a_black_map_leaves_the_image_dark_and_grey() -> None:
    image, black, white = torch.rand(8, 6, 3), torch.zeros(1, 4, 3, 3), torch.ones(1, 4, 3, 3)
    dark = overlay(image, black)
    assert dark.shape == (1, 8, 6, 3)
    assert bool((dark == dark[..., :1]).all())
    assert float(dark.max()) <= 0.5
    assert bool((overlay(image, white) == 1).all())


def test_kept_steps_have_names() -> None:
    keeper = StepKeeper(5)
    assert keeper.names() == []
    for step in range(12):
        keeper(step, torch.zeros(2, 1))
    batch = keeper.batch()
    assert batch is not None
    assert keeper.names() == [name for step in (5, 10, 12) for name in [f"step {step}"] * 2]
    assert len(batch) == len(keeper.names())


# Before a run


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_has_a_plot_without_a_model(name: str, family: str) -> None:
    found = preview(family, name, 10, 1.0, "auto", "zero", {})
    assert "error" not in found, found
    assert json.loads(json.dumps(found, allow_nan=False))["options"] == list(find(name).options)
    rising = find(name).rising
    assert all((one < other) == rising for one, other in zip(found["sigmas"], found["sigmas"][1:], strict=False))


def test_the_plot_follows_the_widgets() -> None:
    typed = {"scheduler": "DDIMScheduler", "steps": "12", "family": "Flux", "denoise": "1.0"}
    assert len(schedule_preview(typed)["sigmas"]) == 13
    assert schedule_preview(typed)["families"] == list(FAMILIES)
    karras = schedule_preview(typed | {"family": "Stable Diffusion", "spacing": "karras"})
    assert karras["sigmas"] != schedule_preview(typed | {"family": "Stable Diffusion"})["sigmas"]


def test_what_is_typed_wrong_is_said_in_the_plot() -> None:
    typed = {"scheduler": "DDIMScheduler", "steps": "12"}
    assert (
        schedule_preview(typed | {"solver_order": "2"})["error"]
        == preview("Flux", "DDIMScheduler", 12, 1.0, "auto", "zero", {"solver_order": 2})["error"]
    )
    assert re.search(
        naming("solver_order", "DDIMScheduler", "eta"), schedule_preview(typed | {"solver_order": "2"})["error"]
    )
    assert schedule_preview(typed | {"solver_order": "x"})["options"] == list(OWN)
    assert "error" in schedule_preview({"scheduler": "DDIM"})
    assert re.search(naming("DDIMM"), schedule_preview(typed | {"scheduler": "DDIMM"})["error"])


def test_the_pack_answers_its_interface() -> None:
    asyncio.run(Tessera().on_load())
    assert ROUTES[PATH] is schedule_preview


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_what_nodes_show_is_shown_again_where_their_results_are_kept(node: type[io.ComfyNode]) -> None:
    """ComfyUI shows nothing again of other nodes, and their views would stay empty in another workflow."""
    schema = node.GET_SCHEMA()
    shows = "ui=" in inspect.getsource(node)
    assert shows == (schema.is_output_node or schema.has_intermediate_output)
