"""Measure the demo IP-Adapter: does an image follow its reference, the more so the larger the scale?

`python -m tessera.demo.training.evaluate_ip_adapter --out FOLDER`. References are drawn anew, so that no
training saw them, in the colour pairs that no caption of `texture-sd` joined; the prompt is empty, so all that an
image has in common with its reference comes from the adapter. Types are measured with prompts that name what a
reference is not asked for: style beside another pattern, character and composition beside other colours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...contract.demo import DEMO_ADAPTER, demo_checkpoint
from ...host.models.loaders import load_clip_vision
from ...host.sampling.ksampler import KSampler
from ...ip_adapter.formats import read_adapter
from ...ip_adapter.prompts import ImagePrompt, LoadedAdapter
from ...nodes.image_prompts import TesseraApplyImagePrompts
from .captions import NAMES, pairs
from .classifier import train_classifier
from .evaluate import contact_sheet
from .measures import k_means
from .textures import PALETTE, PATTERNS, draw

Images = NDArray[np.uint8]
SCALES = (0.0, 0.3, 0.6, 0.9)


def references(count: int, size: int) -> tuple[Images, list[str]]:
    """(count, size, size, 3) and their patterns, which take turns.

    Neighbours, which are compared, never have the same two colours: no distance could tell which of them is nearer.
    """
    rng, names = np.random.default_rng(21), list(PATTERNS)
    patterns, drawn, last = [names[i % len(names)] for i in range(count)], [], ("", "")
    for pattern in patterns:
        others = [pair for pair in pairs(held_out=True) if set(pair) != set(last)]
        last = others[rng.integers(len(others))]
        drawn.append(draw(rng, pattern, last, size))
    return np.stack(drawn), patterns


class Model:
    """The demo model with its adapter.

    Args:
        adapter: folder of adapter and image encoder.
        steps: of dpmpp_2m with Karras' sigmas.
        guidance: scale.
        kind: type of the image prompts.
    """

    def __init__(self, adapter: Path, steps: int, guidance: float, kind: str) -> None:
        self.model, self.clip, self.vae = demo_checkpoint("texture-sd")
        encoder = load_clip_vision(adapter / "image_encoder")
        self.loaded = LoadedAdapter(read_adapter(adapter / "ip_adapter.safetensors"), encoder)
        self.steps, self.guidance, self.kind = steps, guidance, kind
        self.empty = self.encoded("")

    def encoded(self, text: str) -> Any:
        """A prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def prompt(self, image: Images, scale: float, mask: Tensor | None = None, kind: str | None = None) -> ImagePrompt:
        """A reference at a scale."""
        return ImagePrompt(torch.from_numpy(image)[None].float() / 255, scale, kind or self.kind, mask=mask)

    def draw(
        self, prompts: list[ImagePrompt], seed: int, width: int = 128, apart: bool = False, text: str = ""
    ) -> Images:
        """An image (128, width, 3); `apart` keeps masked areas apart."""
        model: Any = self.model
        if prompts:
            node = TesseraApplyImagePrompts
            model = node.execute(model, tuple(prompts), "sum", self.loaded, keep_apart=apart).args[0]
        noise = torch.randn(1, 4, 16, width // 8, generator=torch.Generator().manual_seed(seed))
        run = KSampler(model, self.steps, "dpmpp_2m", "karras")
        latent = run.sample(noise, self.encoded(text), self.empty, self.guidance, torch.zeros_like(noise), seed=seed)
        return (self.vae.decode(latent)[0].clamp(0, 1).numpy() * 255 + 0.5).astype(np.uint8)


def palette(image: Images) -> NDArray[np.float32]:
    """The two main colours (2, 3) in 0..255."""
    return k_means(image[::2, ::2].reshape(-1, 3).astype(np.float32), 2)[0]


def colour_distance(a: Images, b: Images) -> float:
    """Mean distance of the two main colours of both, matched in the better of both orders."""
    return palette_distance(palette(a), palette(b))


def palette_distance(p: NDArray[np.float32], q: NDArray[np.float32]) -> float:
    """Mean distance of two colours (2, 3) to two others, matched in the better of both orders."""
    return float(min(np.linalg.norm(p - q, axis=1).mean(), np.linalg.norm(p - q[::-1], axis=1).mean()))


@torch.no_grad()
def pattern_scores(judge: torch.nn.Module, images: list[Images], patterns: list[str]) -> NDArray[np.float64]:
    """Probability that the classifier gives to each named pattern."""
    tensors = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    logits = torch.cat([judge(part) for part in tensors.split(64)])
    return F.softmax(logits, -1)[range(len(patterns)), [list(PATTERNS).index(p) for p in patterns]].double().numpy()


def by_scale(model: Model, judge: torch.nn.Module, refs: Images, patterns: list[str], out: Path) -> dict[str, float]:
    """Colour distance and pattern score for each scale."""
    found, sheet = {}, [refs]
    for scale in SCALES:
        drawn = [model.draw([model.prompt(ref, scale)], seed) for seed, ref in enumerate(refs)]
        sheet.append(np.stack(drawn))
        distance = np.mean([colour_distance(d, r) for d, r in zip(drawn, refs, strict=True)])
        found[f"colour distance at {scale}"] = float(distance)
        found[f"pattern score at {scale}"] = float(pattern_scores(judge, drawn, patterns).mean())
        print({key: round(value, 3) for key, value in found.items() if str(scale) in key}, flush=True)
    contact_sheet(np.concatenate([rows[:12] for rows in sheet]), out / "scales.png", columns=12)
    return found


def by_type(model: Model, judge: torch.nn.Module, refs: Images, patterns: list[str], out: Path) -> dict[str, float]:
    """What each type takes over of a reference, beside a prompt that names the rest."""
    rng, names, known = np.random.default_rng(5), list(PATTERNS), pairs(held_out=False)
    others = [names[(names.index(p) + 1 + rng.integers(len(names) - 1)) % len(names)] for p in patterns]
    colours = [known[rng.integers(len(known))] for _ in patterns]
    texts = {"style": [NAMES[p][0] for p in others]}
    texts |= dict.fromkeys(("character", "composition"), [f"{a} and {b} texture" for a, b in colours])
    found, sheet = {}, [refs]
    for kind, prompts in texts.items():
        drawn = [
            model.draw([model.prompt(ref, 0.9, kind=kind)], seed, text=text)
            for seed, (ref, text) in enumerate(zip(refs, prompts, strict=True))
        ]
        sheet.append(np.stack(drawn))
        wanted = [palette(ref) for ref in refs] if kind == "style" else [_palette(pair) for pair in colours]
        whose = "the reference" if kind == "style" else "the prompt"
        distances = [palette_distance(palette(d), p) for d, p in zip(drawn, wanted, strict=True)]
        found[f"{kind}: distance to colours of {whose}"] = float(np.mean(distances))
        found[f"{kind}: pattern of the reference"] = float(pattern_scores(judge, drawn, patterns).mean())
        if kind == "style":
            found[f"{kind}: pattern of the prompt"] = float(pattern_scores(judge, drawn, others).mean())
    contact_sheet(np.concatenate([rows[:12] for rows in sheet]), out / "types.png", columns=12)
    return found


def _palette(names: tuple[str, str]) -> NDArray[np.float32]:
    return np.array([PALETTE[name] for name in names], np.float32)


class Verdicts:
    """Whether images are nearer to one reference than to another, by colour and by pattern."""

    def __init__(self, judge: torch.nn.Module) -> None:
        self.judge, self.colour, self.pattern = judge, [], []

    def add(self, image: Images, own: tuple[Images, str], other: tuple[Images, str]) -> None:
        """Judge one image (128, 128, 3); references are an image and its pattern."""
        self.colour.append(colour_distance(image, own[0]) < colour_distance(image, other[0]))
        mine, theirs = pattern_scores(self.judge, [image, image], [own[1], other[1]])
        self.pattern.append(mine > theirs)

    def shares(self, name: str) -> dict[str, float]:
        """Of images that are nearer to their own reference."""
        return {f"{name}, colours": float(np.mean(self.colour)), f"{name}, pattern": float(np.mean(self.pattern))}


def two_at_once(model: Model, judge: torch.nn.Module, refs: Images, patterns: list[str], out: Path) -> dict[str, float]:
    """Shares of images nearer to the reference with the larger scale, and of halves nearer to their own."""
    named = list(zip(refs, patterns, strict=True))
    scales, halves, sheet = Verdicts(judge), {True: Verdicts(judge), False: Verdicts(judge)}, []
    left = torch.zeros(128, 256)
    left[:, :128] = 1
    for seed, (a, b) in enumerate(zip(named, named[-1:] + named[:-1], strict=True)):
        for strong, weak in ((a, b), (b, a)):
            scales.add(model.draw([model.prompt(strong[0], 0.9), model.prompt(weak[0], 0.1)], seed), strong, weak)
        row = [a[0], b[0]]
        for apart, verdicts in halves.items():
            row.append(model.draw([model.prompt(a[0], 0.9, left), model.prompt(b[0], 0.9, 1 - left)], seed, 256, apart))
            verdicts.add(row[-1][:, :128], a, b)
            verdicts.add(row[-1][:, 128:], b, a)
        sheet.append(np.concatenate(row, axis=1))
    contact_sheet(np.stack(sheet[:12]), out / "halves.png", columns=2)
    return (
        scales.shares("nearer to the larger scale")
        | halves[True].shares("half kept apart nearer to its own")
        | halves[False].shares("half nearer to its own")
    )


def main() -> None:
    """Measure, print, write numbers and contact sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for contact sheets, numbers and the classifier")
    parser.add_argument("--adapter", type=Path, default=DEMO_ADAPTER)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--type", default="full")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judge, _ = train_classifier(args.out / "classifier.pt")
    torch.set_grad_enabled(False)
    model, (refs, patterns) = Model(args.adapter, args.steps, args.guidance, args.type), references(args.count, 128)
    numbers = {}
    for measured in (by_type, by_scale, two_at_once):
        numbers |= measured(model, judge, refs, patterns, args.out)
    (args.out / "numbers.json").write_text(json.dumps(numbers, indent=2))
    for name, value in numbers.items():
        print(f"{name:40} {value:.3f}")


if __name__ == "__main__":
    main()
