"""What the example workflow promises, over 16 seeds: no seam with the nodes, a plain one without them."""

from __future__ import annotations

from statistics import median

import pytest
import torch
from tessera.contract import DEMO_CHECKPOINTS, demo_checkpoint
from tessera.host.noise import prepare_noise
from tessera.host.samplers import KSampler
from tessera.nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from tessera.tiling.seam import measure

SEEDS = 16
NO_SEAM = 1.15
A_SEAM = 1.5


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """The median seam ratio of the worse axis, without and with the nodes."""
    model, clip, vae = demo_checkpoint(DEMO_CHECKPOINTS[0])
    texts = ("blue and white zigzag", "")
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts)
    noise = torch.cat([prepare_noise(torch.zeros(1, 4, 16, 16), seed) for seed in range(SEEDS)])
    found = {}
    for tiling in ("off", "both"):
        seamless = TesseraSeamlessModel.execute(model, tiling, 0.0, 1.0).args[0]
        decoder = TesseraSeamlessVAE.execute(vae, tiling).args[0]
        sampler = KSampler(seamless, steps=20, sampler="euler", scheduler="normal")
        with torch.inference_mode():
            latents = sampler.sample(noise, positive, negative, cfg=4.0, latent_image=torch.zeros_like(noise))
            found[tiling] = median(seam.ratio for seam in measure(decoder.decode(latents)))
    return found


def test_textures_tile(ratios: dict[str, float]) -> None:
    assert ratios["both"] <= NO_SEAM


def test_without_the_nodes_they_do_not(ratios: dict[str, float]) -> None:
    assert ratios["off"] >= A_SEAM
