"""Core nodes that save: latents that come back, text, and images of 8 and 16 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naming import naming
from PIL import Image
from tessera.host import folder_paths
from tessera.host.nodes import saving
from tessera.host.schema.node import Hidden, HiddenHolder

NOTHING = HiddenHolder({})
GRAPH = HiddenHolder({Hidden.prompt: {"1": {}}, Hidden.extra_pnginfo: {"workflow": {"nodes": []}}})


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    folder_paths.configure(None, str(tmp_path), str(tmp_path))


def test_latents_come_back(tmp_path: Path) -> None:
    latents = torch.randn(2, 4, 5, 6)
    saving.save_latent({"samples": latents}, "kept/it", GRAPH)
    assert torch.equal(saving.load_latent("kept/it_00001_.latent")["samples"], latents)
    (tmp_path / "no.latent").write_bytes((tmp_path / "kept" / "it_00001_.latent").read_bytes()[:40])
    with pytest.raises(ValueError, match=naming("no.latent")):
        saving.load_latent("no.latent")


def test_text_is_saved_as_it_is_and_json_readably(tmp_path: Path) -> None:
    for content, ending, written in (
        ("moss", "txt", "moss"),
        ('{"a":1}', "json", '{\n  "a": 1\n}'),
        ("{", "json", "{"),
    ):
        shown = saving.save_text(content, "note", ending).ui
        assert (tmp_path / shown["files"][0]["filename"]).read_text() == written


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("depth", ["8-bit", "16-bit"])
def test_images_are_what_was_saved(channels: int, depth: str, tmp_path: Path) -> None:
    images = torch.rand(2, 5, 7, channels)
    chosen: dict[str, Any] = {"format": "png", "bit_depth": depth, "input_color_space": "sRGB"}
    shown = saving.save_images(images, "it_%batch_num%", chosen, GRAPH).ui
    assert [each["filename"] for each in shown["images"]] == ["it_0_00001.png", "it_1_00002.png"]
    path = tmp_path / "it_1_00002.png"
    with Image.open(path) as opened:
        assert json.loads(opened.info["workflow"]) == {"nodes": []}
        found = np.array(opened).reshape(5, 7, -1)
    content = path.read_bytes()
    assert content[24] == int(depth.split("-")[0])
    # Pillow reads colours of 16 bits as their upper 8.
    top = 65535 if depth == "16-bit" and channels == 1 else 255
    assert np.abs(found - (images[1] * top).numpy()).max() <= 1


def test_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match=naming("exr", "png")):
        saving.save_images(torch.rand(1, 5, 7, 3), "it", {"format": "exr", "bit_depth": "32-bit float"}, NOTHING)
