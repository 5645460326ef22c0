"""The demo model on the embedded host: a batch is the same as its images one by one, and textures share an image."""

from __future__ import annotations

import torch
from margins import within
from tessera.contract.demo import DEMO_CHECKPOINTS, demo_checkpoint
from tessera.demo.training.evaluate_ip_adapter import references
from tessera.host.sampling.ksampler import KSampler
from tessera.host.sampling.noise import prepare_noise
from tessera.nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from torch import Tensor


def test_batch_of_four_equals_four_single_runs() -> None:
    model, clip, vae = demo_checkpoint(DEMO_CHECKPOINTS[0])
    model, _ = TesseraSeamlessModel.execute(model, "both", 0.0, 1.0).args
    (vae,) = TesseraSeamlessVAE.execute(vae, "both").args
    texts = ("red and blue bricks", "")
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts)
    sampler = KSampler(model, steps=8, sampler="dpmpp_2m", scheduler="karras")

    def draw(noise: Tensor) -> Tensor:
        latents = sampler.sample(noise, positive, negative, cfg=4.0, latent_image=torch.zeros_like(noise), seed=5)
        return vae.decode(latents)

    noise = prepare_noise(torch.zeros(4, 4, 16, 16), seed=5)
    with torch.inference_mode():
        together = draw(noise)
        alone = torch.cat([draw(one[None]) for one in noise])
    assert together.shape == (4, 128, 128, 3)
    assert together.std() > 0.05
    assert within((together - alone).abs().max(), 1e-4)


@torch.inference_mode()
def test_two_textures_in_one_image_keep_their_colours() -> None:
    _, _, vae = demo_checkpoint(DEMO_CHECKPOINTS[0])
    images = torch.from_numpy(references(8, 128)[0]).float() / 255
    pairs = torch.cat([images, images.roll(1, 0)], dim=2)
    latents = vae.encode(images)
    decoded = vae.decode(torch.cat([latents, latents.roll(1, 0)], dim=3))
    assert (decoded - pairs).abs().mean() <= 0.1
