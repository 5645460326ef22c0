"""The demo adapter: images follow their references. The evaluation in demo/ does the same for 64 of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tessera.contract.demo import DEMO_ADAPTER
from tessera.demo.training.classifier import shape
from tessera.demo.training.evaluate_ip_adapter import SCALES, Images, Model, colour_distance, references
from torch import Tensor
from torch.nn import functional as F

COUNT = 6


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(DEMO_ADAPTER, steps=6, guidance=4.0, kind="full")


@pytest.fixture(scope="module")
def refs() -> Images:
    return references(COUNT, 128)[0]


def _seen(model: Model, images: Images) -> Tensor:
    """What the demo's image encoder says of images, unit vectors."""
    with torch.inference_mode():
        found = model.loaded.encoder.encode_image(torch.from_numpy(images).float() / 255)["image_embeds"]
    return F.normalize(found.float(), dim=-1)


@torch.inference_mode()
def test_images_come_closer_to_their_reference_as_the_scale_grows(model: Model, refs: Images) -> None:
    distances, likeness = [], []
    for scale in SCALES:
        drawn = np.stack([model.draw([model.prompt(ref, scale)], seed) for seed, ref in enumerate(refs)])
        distances.append(np.mean([colour_distance(d, r) for d, r in zip(drawn, refs, strict=True)]))
        likeness.append((_seen(model, drawn) * _seen(model, refs)).sum(-1).mean().item())
    assert distances == sorted(distances, reverse=True)
    assert likeness == sorted(likeness)


@torch.inference_mode()
def test_the_larger_of_two_scales_rules(model: Model, refs: Images) -> None:
    nearer = 0
    for seed, (strong, weak) in enumerate(zip(refs, np.roll(refs, 1, 0), strict=True)):
        drawn = model.draw([model.prompt(strong, 0.9), model.prompt(weak, 0.1)], seed)
        nearer += colour_distance(drawn, strong) < colour_distance(drawn, weak)
    assert nearer >= COUNT - 1


@torch.inference_mode()
def test_each_half_follows_its_own_reference(model: Model, refs: Images) -> None:
    left, nearer = torch.zeros(128, 256), 0
    left[:, :128] = 1
    for seed, (a, b) in enumerate(zip(refs, np.roll(refs, 1, 0), strict=True)):
        drawn = model.draw([model.prompt(a, 0.9, left), model.prompt(b, 0.9, 1 - left)], seed, 256, apart=True)
        halves, own = _seen(model, np.stack([drawn[:, :128], drawn[:, 128:]])), _seen(model, np.stack([a, b]))
        alike = halves @ own.T
        nearer += int((alike.diagonal() > alike.flip(1).diagonal()).sum())
    assert nearer >= 0.9 * 2 * COUNT


TEXTS = ["bricks", "zigzag", "hexagons", "checkers", "waves", "dots"]
"""Patterns beside the references', which begin with stripes."""


def _structure(a: Images, b: Images) -> float:
    """How alike two images are but for their colours, 0..1."""
    one, other = (shape(torch.from_numpy(image).permute(2, 0, 1)[None].float()).flatten() for image in (a, b))
    return abs(F.cosine_similarity(one, other, dim=0).item())


@torch.inference_mode()
def test_style_takes_colours_and_leaves_the_layout_to_the_prompt(model: Model, refs: Images) -> None:
    layout: dict[str, list[float]] = {"style": [], "full": []}
    nearer = []
    for seed, (ref, text) in enumerate(zip(refs, TEXTS, strict=True)):
        plain = model.draw([], seed, text=text)
        for kind, found in layout.items():
            drawn = model.draw([model.prompt(ref, 0.9, kind=kind)], seed, text=text)
            found.append(_structure(drawn, plain))
            if kind == "style":
                nearer.append(colour_distance(drawn, ref) / colour_distance(plain, ref))
    assert np.mean(nearer) < 0.5
    assert np.mean(layout["style"]) > 0.5 > np.mean(layout["full"])


@torch.inference_mode()
def test_character_takes_the_layout_and_leaves_the_colours_to_the_prompt(model: Model, refs: Images) -> None:
    nearer = []
    for seed, ref in enumerate(refs):
        plain = model.draw([], seed, text="purple and pink texture")
        drawn = model.draw([model.prompt(ref, 0.9, kind="character")], seed, text="purple and pink texture")
        nearer.append(colour_distance(drawn, plain) < colour_distance(drawn, ref))
    assert np.mean(nearer) > 0.8
