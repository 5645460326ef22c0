"""What the example workflow promises, over 16 seeds: no seam with the nodes, a plain one without them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch
from tessera.contract.demo import DEMO_CHECKPOINTS, demo_checkpoint
from tessera.host.sampling.ksampler import KSampler
from tessera.host.sampling.noise import prepare_noise
from tessera.nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from tessera.tiling.seam import measure

WORKFLOW = Path(__file__).parent / "workflows" / "seamless_texture.api.json"
SEEDS = 16
NO_SEAM = 1.15
A_SEAM = 1.5


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """The median seam ratio of the worse axis, without and with the nodes."""
    nodes = json.loads(WORKFLOW.read_text())
    settings = next(node["inputs"] for node in nodes.values() if node["class_type"] == "KSampler")
    texts = [nodes[settings[name][0]]["inputs"]["text"] for name in ("positive", "negative")]
    model, clip, vae = demo_checkpoint(DEMO_CHECKPOINTS[0])
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts)
    noise = torch.cat([prepare_noise(torch.zeros(1, 4, 16, 16), seed) for seed in range(SEEDS)])
    found = {}
    for tiling in ("off", "both"):
        seamless = TesseraSeamlessModel.execute(model, tiling, 0.0, 1.0).args[0]
        decoder = TesseraSeamlessVAE.execute(vae, tiling).args[0]
        sampler = KSampler(seamless, settings["steps"], settings["sampler_name"], settings["scheduler"])
        with torch.inference_mode():
            latents = sampler.sample(
                noise, positive, negative, settings["cfg"], latent_image=torch.zeros_like(noise), seed=settings["seed"]
            )
            found[tiling] = median(seam.ratio for seam in measure(decoder.decode(latents)))
    return found


def test_textures_tile(ratios: dict[str, float]) -> None:
    assert ratios["both"] <= NO_SEAM


def test_without_the_nodes_they_do_not(ratios: dict[str, float]) -> None:
    assert ratios["off"] >= A_SEAM
