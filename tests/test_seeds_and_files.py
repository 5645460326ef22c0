"""Seeds: each image is the one its seed makes alone. Save Image As: formats, numbers, text."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tessera.app.cli.main import main
from tessera.host import folder_paths
from tessera.images.encoding import FORMATS, encode
from tessera.nodes.save import TesseraSaveImage
from tessera.nodes.seeds import MAX_SEED, MOST, seeds_of


@given(st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=MOST), st.sampled_from([", ", ",", " ", "\n", "; "]))
def test_seeds_are_read_in_order(seeds: list[int], between: str) -> None:
    assert seeds_of(between.join(map(str, seeds))) == seeds


@pytest.mark.parametrize("text", ["", " , ", "1.5", "-1", "a", str(MAX_SEED + 1), "9" * 5000, "\u0661", "1," * 129])
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        seeds_of(text)
    assert len(str(caught.value)) < 200


def graph(seed: Any) -> dict[str, Any]:
    """A tiny image with a sampler that draws noise at every step."""
    sampler = {"model": ["1", 0], "seed": seed, "steps": 2, "cfg": 2.0, "sampler_name": "euler_ancestral"}
    sampler |= {"scheduler": "normal", "denoise": 1.0, "positive": ["2", 0], "negative": ["2", 0]}
    nodes = {
        "1": ("TesseraDemoCheckpoint", {"name": "texture-sd"}),
        "2": ("CLIPTextEncode", {"clip": ["1", 1], "text": "teal stripes"}),
        "3": ("EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}),
        "4": ("KSampler", sampler | {"latent_image": ["3", 0]}),
        "5": ("VAEDecode", {"samples": ["4", 0], "vae": ["1", 2]}),
        "6": ("SaveImage", {"images": ["5", 0], "filename_prefix": "a"}),
        "7": ("TesseraSeeds", {"seeds": "5, 6"}),
    }
    return {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}


def drawn(workflow: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> list[bytes]:
    folder.mkdir()
    (folder / "w.json").write_text(json.dumps(workflow))
    assert main(["run", str(folder / "w.json"), "--device", "cpu", "--output-dir", str(folder)]) == 0
    return [Image.open(path).tobytes() for path in capsys.readouterr().out.splitlines()]


def test_each_image_of_a_list_is_the_one_its_seed_makes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = drawn(graph(["7", 0]), tmp_path / "both", capsys)
    alone = [drawn(graph(seed), tmp_path / str(seed), capsys)[0] for seed in (5, 6)]
    assert both == alone
    assert both[0] != both[1]


@pytest.fixture
def images(tmp_path: Path) -> torch.Tensor:
    folder_paths.configure(output_dir=str(tmp_path))
    ramp = torch.linspace(0, 1, 16)
    return torch.stack([ramp.expand(8, 16), ramp.flip(0).expand(8, 16), ramp.expand(8, 16) / 2], -1).repeat(2, 1, 1, 1)


@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_files_have_their_format_and_the_next_numbers(
    images: torch.Tensor, tmp_path: Path, kind: str, suffix: str
) -> None:
    TesseraSaveImage.execute(images, "a/b", kind, 95, True)
    output = TesseraSaveImage.execute(images, "a/b", kind, 95, True)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [f"b_0000{i}_.{suffix}" for i in (1, 2, 3, 4)]
    (urls,) = output.result
    expected = (images[0] * 255).byte().numpy()
    for url, saved in zip(urls, sorted((tmp_path / "a").iterdir())[2:], strict=True):
        head, _, text = url.partition(",")
        assert head == f"data:image/{kind};base64"
        for file in (io.BytesIO(base64.b64decode(text)), saved):
            with Image.open(file) as image:
                assert image.format == kind.upper()
                difference = np.abs(np.asarray(image.convert("RGB"), float) - expected)
                assert difference.mean() <= (0 if kind == "png" else 6)


def test_grey_images_are_saved_as_png(images: torch.Tensor, tmp_path: Path) -> None:
    TesseraSaveImage.execute(images[:1, ..., :1], "grey")
    with Image.open(tmp_path / "grey_00001_.png") as saved:
        assert np.array_equal(np.asarray(saved.convert("L")), (images[0, ..., 0] * 255).byte().numpy())


def test_no_text_unless_it_is_asked_for(images: torch.Tensor) -> None:
    assert TesseraSaveImage.execute(images, "a", "jpeg", 90, False).result == ([],)


def test_jpeg_leaves_transparency_out_and_webp_at_100_loses_nothing() -> None:
    image = torch.rand(9, 7, 4)
    with Image.open(io.BytesIO(encode(image, "jpeg", 90))) as jpeg:
        assert jpeg.mode == "RGB"
    opaque = torch.cat([image[..., :3], torch.ones(9, 7, 1)], -1)
    with Image.open(io.BytesIO(encode(opaque, "webp", 100))) as webp:
        assert np.array_equal(np.asarray(webp.convert("RGB")), (opaque[..., :3] * 255).byte().numpy())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", FORMATS)
def test_images_with_any_channels_are_saved(kind: str, channels: int) -> None:
    image = torch.linspace(0, 1, 9 * 7)[:, None].expand(-1, channels).reshape(9, 7, channels)
    with Image.open(io.BytesIO(encode(image, kind, 100))) as saved:
        # Pillow cuts grey of 16 bits off at 255.
        shown = Image.fromarray((np.asarray(saved) // 257).astype(np.uint8)) if saved.mode[0] == "I" else saved
        found = np.asarray(shown.convert("RGBA"), float) / 255
    kept = image if channels in (2, 4) and kind != "jpeg" else torch.ones(9, 7, 1)
    # WebP keeps no colours where nothing is seen.
    assert np.abs(found[..., 0] - image[..., 0].numpy())[1:].max() < 0.05
    assert np.abs(found[..., 3] - kept[..., -1].numpy()).max() < 0.05


def test_less_quality_is_a_smaller_file(images: torch.Tensor) -> None:
    assert len(encode(images[0], "jpeg", 10)) < len(encode(images[0], "jpeg", 100))
