"""Train the image encoder of the demo IP-Adapter to see pattern and colours of drawn textures.

A CLIP vision transformer with projection, small enough to be trained from nothing in minutes on a CPU.
"""

# transformers declares its classes through lazy modules that no checker follows.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ...host.models.clip_vision import MEAN, STD
from .common import DEVICE, TrainingRun, autocast
from .textures import draw
from .train_unet import NAMED, PART, Label, labels

SIDE = 64
"""Pixels along a side of what the encoder sees: half of a texture's 128."""


def new_encoder() -> CLIPVisionModelWithProjection:
    """(B, 3, 64, 64) -> embeddings (B, 128): 64 patches, three layers of width 128."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            projection_dim=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=8,
            hidden_act="quick_gelu",
        )
    )


def images(count: int, size: int, work: Path) -> Tensor:
    """The textures that `train_unet` encodes, at half their size: (count, 3, size / 2, size / 2) uint8."""
    return torch.cat([image_part(part, size, work) for part in trange(count // PART, desc="draw", mininterval=5)])


def image_part(part: int, size: int, work: Path) -> Tensor:
    """One part of the pool, kept as a file in `work`."""
    path = work / f"images-{part:03}.npy"
    if not path.exists():
        rng, shown = np.random.default_rng((1, part)), labels((part + 1) * PART)[-PART:]
        drawn = torch.from_numpy(np.stack([draw(rng, p, (a, b), size) for p, a, b in shown]))
        np.save(path, (F.avg_pool2d(drawn.permute(0, 3, 1, 2).float(), 2) + 0.5).byte().numpy())
    return torch.from_numpy(np.load(path))


def seen(crops: Tensor) -> Tensor:
    """uint8 crops (B, 3, 64, 64) as CLIP takes them."""
    mean, std = (torch.tensor(values, device=crops.device)[:, None, None] for values in (MEAN, STD))
    return (crops.float() / 255 - mean) / std


def crop(pool: Tensor, chosen: list[int], rng: np.random.Generator) -> Tensor:
    """(B, 3, 64, 64), each from a place of its own."""
    corners = rng.integers(0, pool.shape[-1] - SIDE + 1, (len(chosen), 2))
    return torch.stack([pool[i, :, y : y + SIDE, x : x + SIDE] for i, (y, x) in zip(chosen, corners, strict=True)])


class Sight(nn.Module):
    """Reads pattern, main and second colour from embeddings; left behind after the training.

    Each by a linear map to names, since the adapter's projector is linear, too: numbers would meet in the middle where
    either colour may be the main one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in NAMED)

    def losses(self, embeds: Tensor, shown: list[Label]) -> Tensor:
        """Cross entropies (3,) of pattern, main and second colour."""
        wanted = torch.tensor([[list(n).index(v) for n, v in zip(NAMED, label, strict=True)] for label in shown])
        return torch.stack(
            [F.cross_entropy(head(embeds), wanted[:, i].to(embeds.device)) for i, head in enumerate(self.heads)]
        )


def train_encoder(pool: Tensor, shown: list[Label], work: Path, steps: int) -> CLIPVisionModelWithProjection:
    """Train, or go on where an interrupted call stopped.

    Args:
        pool: images (N, 3, S, S) uint8.
        shown: what they show.
        work: folder of the checkpoint.
        steps: updates.
    """
    torch.manual_seed(1)
    encoder = new_encoder().to(DEVICE)
    sight = Sight(encoder.config.projection_dim).to(DEVICE)
    run = TrainingRun([encoder, sight], steps, 1e-3, work / "encoder.pt")
    rng = np.random.default_rng(run.step)
    for _ in (bar := trange(run.step, steps, desc="encoder", mininterval=5)):
        chosen = rng.integers(len(shown), size=48).tolist()
        with autocast():
            embeds = encoder(seen(crop(pool, chosen, rng).to(DEVICE))).image_embeds.float()
        losses = sight.losses(embeds, [shown[i] for i in chosen])
        run.update(losses.sum())
        if run.step % 50 == 0:
            bar.set_postfix(losses=[round(loss, 3) for loss in losses.tolist()])
        if run.step % 250 == 0:
            run.save()
    run.save()
    run.average.swap()
    return encoder.eval().requires_grad_(False)
