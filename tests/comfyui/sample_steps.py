"""Runs in ComfyUI's interpreter: samples with SamplerCustomAdvanced and with Sample and Keep Steps.

    python sample_steps.py COMFYUI PACK SAMPLERS.json OUT.safetensors

SAMPLERS.json: names of samplers. OUT gets, for each, `<name>.<node>.<output>` of both nodes, on a masked batch of two,
and `<node>.previews`, how often ComfyUI's own preview was drawn.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from inside import load_pack, start

comfyui, pack, wanted, out = sys.argv[1:]
start(comfyui)

import latent_preview  # noqa: E402  # pyright: ignore[reportMissingImports]
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_custom_sampler as core  # noqa: E402  # pyright: ignore[reportMissingImports]

STEPS = 4


class Previewer:
    """Counts what it is asked to draw."""

    drawn = 0

    def decode_latent_to_preview_image(self, preview_format: str, x0: torch.Tensor) -> None:
        """Draw nothing."""
        self.drawn += 1


def latent() -> dict[str, Any]:
    """Two images whose right halves are painted anew."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:] = 1.0
    return {"samples": torch.sin(torch.arange(2 * 4 * 256.0)).reshape(2, 4, 16, 16), "noise_mask": mask}


def main() -> None:
    load_pack(pack)
    node = importlib.import_module("pack.nodes.steps").TesseraSampleSteps
    model, clip, _ = importlib.import_module("pack.contract.demo").demo_checkpoint("texture-sd")
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("teal stripes", "red"))
    guider = core.CFGGuider.execute(model, positive, negative, 3.0)[0]
    sigmas = core.BasicScheduler.execute(model, "normal", STEPS, 0.8)[0]
    noise = core.RandomNoise.execute(3)[0]
    found: dict[str, torch.Tensor] = {}
    previews = {"core": Previewer(), "ours": Previewer()}
    for name in json.loads(Path(wanted).read_text(encoding="utf-8")):
        for which, run, more in (("core", core.SamplerCustomAdvanced, ()), ("ours", node, (1,))):
            latent_preview.get_previewer = lambda *_, which=which: previews[which]
            sampler = core.KSamplerSelect.execute(name)[0]
            outputs = run.execute(noise, guider, sampler, sigmas, latent(), *more).args
            found |= {f"{name}.{which}.{place}": each["samples"].contiguous() for place, each in enumerate(outputs)}
    found |= {f"{which}.previews": torch.tensor(each.drawn) for which, each in previews.items()}
    safetensors.torch.save_file(found, out)


main()
