"""Images of texture-sd by every scheduler: diffusers' StableDiffusionPipeline and Tessera's node, same seed.

Prints a table of the mean absolute difference in levels of 255 (2 is allowed) and of the time of the node's run over
the pipeline's; "refused" says why the pipeline makes none.

    python benchmarks/scheduler_images.py --steps 20
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tessera.contract.demo import demo_checkpoint
from tessera.nodes.scheduler import TesseraSchedulerKSampler
from tessera.samplers import build
from tessera.samplers.registry import ENTRIES, SchedulerEntry
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "demo" / "models" / "texture-sd"
PROMPT, SEED, CFG = "red and white checkerboard", 5, 4.0
LEVELS = 2.0
CELL = 8
# Where a pipeline's schedule ends with the configuration below; all others end at zero.
ENDS_AT_SIGMA_MIN = {"PNDMScheduler", "DEISMultistepScheduler"}
NO_CHOICE_OF_SPACING = {"DPMSolverSinglestepScheduler", "LCMScheduler"}
WITHOUT_PIPELINE = {
    "DDIMInverseScheduler": "turns an image into noise",
    "IPNDMScheduler": "has its own schedule, on which Stable Diffusion was not trained",
    "KarrasVeScheduler": "has no step function that a pipeline can call",
    "ScoreSdeVeScheduler": "has no step function that a pipeline can call",
}


def load_pipeline() -> Any:
    """texture-sd as diffusers' own pipeline."""
    from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

    pipeline: Any = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32, safety_checker=None)
    # Saved by transformers 5, whose key names lack the prefix that transformers 4 expects.
    text = pipeline.text_encoder
    getattr(text, "text_model", text).load_state_dict(load_file(FOLDER / "text_encoder" / "model.safetensors"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_image(pipeline: Any, entry: SchedulerEntry, steps: int, size: int) -> Tensor:
    """(size, size, 3), 0..1."""
    config = {"clip_sample": False, "skip_prk_steps": True, "timestep_spacing": "leading"}
    pipeline.scheduler = build.scheduler_class(entry.name).from_config(pipeline.scheduler.config, **config)
    made = pipeline(
        PROMPT,
        negative_prompt="",
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=CFG,
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
    )
    return made.images[0].movedim(0, -1)


def node_image(checkpoint: Any, entry: SchedulerEntry, steps: int, size: int) -> Tensor:
    """(size, size, 3), 0..1."""
    model, clip, vae = checkpoint
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    latent = {"samples": torch.zeros(1, 4, size // CELL, size // CELL)}
    spacing = "auto" if entry.name in NO_CHOICE_OF_SPACING else "leading"
    final = "sigma_min" if entry.name in ENDS_AT_SIGMA_MIN else "zero"
    made = TesseraSchedulerKSampler.execute(
        model, SEED, steps, CFG, entry.name, positive, negative, latent, spacing, 1.0, final, "diffusers"
    )
    return vae.decode(made[0]["samples"])[0]


def timed(draw: Any, *arguments: Any) -> tuple[Tensor, float]:
    """Return an image and its seconds of processor time."""
    start = time.process_time()
    return draw(*arguments), time.process_time() - start


def difference(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference in levels of 255."""
    return float((one.float().cpu() - other.float().cpu()).abs().mean() * 255)


def main() -> None:
    """Sample with each scheduler, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    pipeline, checkpoint = load_pipeline(), demo_checkpoint("texture-sd")
    print("| scheduler | difference of 255 | time of the node / of the pipeline |\n|---|---|---|")
    differences, ratios = [], []
    for entry in ENTRIES[:18]:
        if entry.name in WITHOUT_PIPELINE:
            print(f"| {entry.name} | refused: {WITHOUT_PIPELINE[entry.name]} | |")
            continue
        (expected, plain), (found, ours) = (
            timed(pipeline_image, pipeline, entry, args.steps, args.size),
            timed(node_image, checkpoint, entry, args.steps, args.size),
        )
        differences.append(difference(expected, found))
        ratios.append(ours / plain)
        print(f"| {entry.name} | {differences[-1]:.4f} | {ratios[-1]:.2f} |", flush=True)
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    print(f"largest difference {max(differences):.4f} of 255, allowed {LEVELS}; mean time ratio {mean:.2f}")


if __name__ == "__main__":
    main()
