"""Measure a texture model: are the named colours and patterns there, and does it tile with circular convolutions?"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ...images.sheets import grid
from ...tiling.axes import Axes
from ...tiling.circular import circular
from ...tiling.seam import measure
from .captions import NAMES, Pair, caption, pairs, plain
from .classifier import classify, train_classifier
from .common import DEVICE
from .measures import dominating
from .textures import PATTERNS

SAMPLERS = {"euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}


class Model:
    """A diffusers folder and how to sample it.

    Args:
        folder: of a StableDiffusionPipeline.
        sampler: a key of SAMPLERS; both with Karras' sigmas.
        steps: of the sampler.
        guidance: classifier-free guidance scale.
        size: width and height in px.
    """

    def __init__(self, folder: Path, sampler: str, steps: int, guidance: float, size: int) -> None:
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
        pipeline.scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config, use_karras_sigmas=True)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.steps, self.guidance, self.size = pipeline.to(DEVICE), steps, guidance, size

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], tiling: bool = True) -> NDArray[np.uint8]:
        """(N, size, size, 3), one image for each prompt and seed."""
        axes, batches = Axes(True, True), []
        with ExitStack() as stack:
            if tiling:
                stack.enter_context(circular(self.pipeline.unet, axes))
                stack.enter_context(circular(self.pipeline.vae, axes))
            for start in tqdm(range(0, len(prompts), 8), desc="draw", mininterval=5):
                batches.append(self._batch(list(prompts[start : start + 8]), seeds[start : start + 8]))
        return np.concatenate(batches)

    def _batch(self, prompts: list[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        output = self.pipeline(
            prompts,
            height=self.size,
            width=self.size,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        return (np.asarray(output.images) * 255 + 0.5).astype(np.uint8)


def held_out_prompts(count: int) -> list[tuple[str, str, str]]:
    """(pattern, main, second colour), patterns in turn, colour pairs that training never showed."""
    rng, allowed, names = np.random.default_rng(4), pairs(held_out=True), list(PATTERNS)
    order = rng.permutation(count) % len(allowed)
    return [(names[i % len(names)], *allowed[j]) for i, j in enumerate(order)]


def full_caption(rng: np.random.Generator, pattern: str, colours: Pair) -> str:
    """A caption that leaves nothing out."""
    while True:
        text = caption(rng, pattern, colours)
        if all(c in text for c in colours) and any(name in text for name in NAMES[pattern]):
            return text


def obedience(model: Model, judge: torch.nn.Module, count: int, out: Path) -> dict[str, float]:
    """Shares of images with the right colours, the right pattern, and for each pattern what was right of it."""
    asked, rng, names = held_out_prompts(count), np.random.default_rng(5), list(PATTERNS)
    texts = [plain(p, (a, b)) if i % 2 else full_caption(rng, p, (a, b)) for i, (p, a, b) in enumerate(asked)]
    drawn = model.draw(texts, range(count))
    contact_sheet(drawn, out / "held_out.png", columns=13)
    colours = np.array([dominating(p) == set(a[1:]) for p, a in zip(drawn, asked, strict=True)])
    tensors = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = [names[i] for i in classify(judge, tensors).tolist()]
    patterns = np.array([f == a[0] for f, a in zip(found, asked, strict=True)])
    for text, a, f, c in zip(texts, asked, found, colours, strict=True):
        if f != a[0] or not c:
            print(f"  wrong: {text!r} colours {'right' if c else 'WRONG'}, pattern seen {f}")
    each = {name: np.array([a[0] == name for a in asked]) for name in names}
    shares = {
        f"{n}: pattern {patterns[m].mean():.2f} colours {colours[m].mean():.2f}": 0.0
        for n, m in each.items()
        if m.any()
    }
    print("\n".join(shares))
    return {"colours": float(colours.mean()), "patterns": float(patterns.mean())}


def seams(model: Model, prompt: str, count: int, out: Path) -> dict[str, float]:
    """Median seam ratio of the worse axis over `count` seeds, with circular convolutions and without."""
    result = {}
    for name, tiling in (("on", True), ("off", False)):
        drawn = model.draw([prompt] * count, range(count), tiling)
        contact_sheet(
            np.concatenate([np.tile(p, (2, 2, 1))[None] for p in drawn[:8]]), out / f"seams_{name}.png", columns=4
        )
        ratios = [s.ratio for s in measure(torch.from_numpy(drawn).float() / 255)]
        result[f"seam ratio {name}: {prompt}"] = float(np.median(ratios))
    return result


def contact_sheet(images: NDArray[np.uint8], path: Path, columns: int) -> None:
    """Write images (N, H, W, 3) row by row as one PNG."""
    Image.fromarray(grid(list(torch.from_numpy(images)), columns).numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-sd")
    parser.add_argument("--out", type=Path, required=True, help="folder for contact sheets, numbers and the classifier")
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=64, help="images for colours and patterns")
    parser.add_argument("--seeds", type=int, default=16, help="images for the seam ratio; 0 leaves it out")
    parser.add_argument("--prompts", nargs="*", default=["red and white bricks"], help="for the seam ratio")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, real = train_classifier(args.out / "classifier.pt")
    model = Model(args.model, args.sampler, args.steps, args.guidance, args.size)
    numbers = {"classifier on drawn textures": real, **obedience(model, judge, args.count, args.out)}
    for prompt in islice(args.prompts, args.seeds and None):
        numbers |= seams(model, prompt, args.seeds, args.out)
    (args.out / "numbers.json").write_text(json.dumps({**vars(args), **numbers}, default=str, indent=2))
    for name, value in numbers.items():
        print(f"{name:60} {value:.3f}")


if __name__ == "__main__":
    main()
