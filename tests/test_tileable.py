"""Make Tileable: no seam on crops that have one, nothing changed inside, light evened out when asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from margins import within
from naming import naming
from tessera.demo.training.textures import PALETTE, PATTERNS, draw
from tessera.nodes.make_tileable import TesseraMakeTileable
from tessera.tiling import seam
from tessera.tiling.axes import TILINGS
from tessera.tiling.tileable import edge_weight, make_tileable, smooth_part
from torch import Tensor

CROPS = 16
BORDER = 24


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """Procedural textures (16, 128, 128, 3) whose edges do not fit."""
    rng, colours, patterns = np.random.default_rng(0), list(PALETTE), list(PATTERNS)
    drawn = []
    for number in range(CROPS):
        one, other = rng.permutation(len(colours))[:2]
        drawn.append(draw(rng, patterns[number % len(patterns)], (colours[one], colours[other]), 128))
    return torch.from_numpy(np.stack(drawn)).float() / 255


def test_crops_repeat_and_keep_their_inside(crops: Tensor) -> None:
    made, mask = TesseraMakeTileable.execute(crops, BORDER, "both", 0.0).args
    before, after = seam.measure(crops), seam.measure(made)
    assert sum(max(s.horizontal.sr_max, s.vertical.sr_max) > 1 for s in before) >= CROPS // 2
    assert max(max(s.horizontal.sr_max, s.vertical.sr_max) for s in after) <= 1
    assert not any(s.horizontal.visible or s.vertical.visible for s in after)
    inside = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    assert torch.equal(made[inside], crops[inside])
    assert mask.shape == crops.shape[:3]
    assert not mask[inside].any()
    assert bool((made != crops).any(-1)[mask == 0].logical_not().all())


@pytest.mark.parametrize("tiling", ["horizontal", "vertical"])
def test_the_other_axis_stays(crops: Tensor, tiling: str) -> None:
    made, mask = TesseraMakeTileable.execute(crops, BORDER, tiling, 0.0).args
    middle = slice(BORDER, -BORDER)
    rows, columns = (slice(None), middle) if tiling == "horizontal" else (middle, slice(None))
    assert torch.equal(made[:, rows, columns], crops[:, rows, columns])
    assert not mask[:, rows, columns].any()
    axis = seam.measure(made)
    assert max(getattr(s, tiling).sr_max for s in axis) <= 1


def test_images_of_a_batch_are_made_one_by_one(crops: Tensor) -> None:
    together = TesseraMakeTileable.execute(crops[:3], 16, "both", 0.5).args[0]
    alone = torch.cat([TesseraMakeTileable.execute(c[None], 16, "both", 0.5).args[0] for c in crops[:3]])
    torch.testing.assert_close(together, alone)


def test_light_that_drifts_is_evened_out() -> None:
    grain = torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.3
    lit = grain + torch.linspace(0, 0.4, 96)[:, None]
    flat, _ = TesseraMakeTileable.execute(lit, 16, "both", 1.0).args
    drift, left = ((p[:, :, 70:].mean() - p[:, :, :26].mean()).abs() for p in (lit, flat))
    assert left < 0.15 * drift
    assert abs(float(flat.mean() - lit.mean())) < 0.01


def test_the_smooth_part_has_the_jumps_and_no_detail() -> None:
    """Without it the Laplacian of the image taken periodically is that of the image inside (Moisan, theorem 1)."""
    image = torch.rand(1, 1, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    smooth = smooth_part(image, TILINGS["both"])

    def laplacian(p: Tensor) -> Tensor:
        return sum(p.roll(s, d) - p for s in (1, -1) for d in (-1, -2))  # pyright: ignore[reportReturnType]

    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    inner = laplacian(padded)[..., 1:-1, 1:-1]
    torch.testing.assert_close(laplacian(image - smooth), inner, atol=1e-5, rtol=0)
    assert within(abs(float(smooth.mean())), 1e-6)
    assert not smooth_part(image, TILINGS["off"]).any()


def test_a_image_that_repeats_is_hardly_touched() -> None:
    t = torch.arange(96) * 2 * torch.pi / 24
    waves = (0.5 + 0.2 * torch.sin(t)[:, None] + 0.2 * torch.cos(t)[None])[None, None]
    made, _ = make_tileable(waves, TILINGS["both"], 24, 0.0)
    torch.testing.assert_close(made, waves, atol=1e-4, rtol=0)


def test_the_mask_is_whole_at_the_edge_and_falls() -> None:
    weight = edge_weight(40, 3, 8)
    assert bool((weight[:4] == 1).all())
    assert not weight[8:32].any()
    assert bool((weight[3:9].diff() < 0).all())
    assert torch.equal(weight, weight.flip(0))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_channels_and_dtypes(channels: int, dtype: torch.dtype) -> None:
    image = torch.rand(2, 31, 17, channels).to(dtype)
    made, mask = TesseraMakeTileable.execute(image, 5, "both", 0.5).args
    assert made.shape == image.shape
    assert made.dtype == dtype
    assert mask.shape == (2, 31, 17)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((50, 40), naming("width", 48, 40, "border", 13)),
        ((3, 64), naming("height", 48, 3, "border", 1)),
        ((2, 64), naming("height", 48, 2, 1, 3)),
        ((64, 1), naming("width", 48, 1, 3)),
    ],
)
def test_borders_that_meet_are_refused(size: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TesseraMakeTileable.execute(torch.rand(1, *size, 3), 16, "both", 0.0)
