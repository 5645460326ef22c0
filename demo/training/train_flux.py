"""Train `texture-flux` on latents of drawn textures: text encoders, then the transformer, then its guidance.

The text encoders first learn to say what captions say and stay as they are from then on. The transformer learns to
predict velocities (Liu et al. 2022, Lipman et al. 2022); at last a copy of it learns, in one pass, what it predicts
with classifier-free guidance, at a scale that is one of its inputs (Meng et al. 2022), as in Flux dev.
"""

# diffusers declares its classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import trange
from transformers import CLIPTextModel, T5EncoderModel

from ...tiling.torus import torus_angles
from .captions import NAMES, ONE_COLOUR, caption
from .common import DEVICE, TrainingRun, autocast
from .flux_parts import Prompts, new_clip, new_t5, new_transformer, patchify, save_pipeline
from .flux_pool import PART, PLAIN, TORUS, crop, encode, encode_plain, encode_tori, labels
from .repeating import Label
from .textures import PALETTE, PATTERNS

DROPPED = 0.1
"""Share of captions replaced by the empty prompt, for classifier-free guidance (Ho and Salimans 2022)."""

SINGLE = 0.1
"""Share of captions that are one word, as negative prompts often are; a colour alone: an image of nothing else."""

PARTIAL = 0.1
"""Share of captions that name one colour at most: what is left of a prompt when a negative takes a colour away."""

STAGES: tuple[tuple[float, int, int], ...] = ((0.5, 12, 48), (1.0, 16, 32))
"""(end as a share of all updates, latents along a side, batch): small crops first, since textures are stationary."""

HARD = ("stripes", "zigzag", "hexagons", "bricks")
"""Patterns that are learned last; they are drawn twice as often."""

TURNED = 0.35
"""Share of updates in which positions are those of a torus, as in a seamless texture, of which a crop is a window."""

WINDOWS: tuple[tuple[int, int, int], ...] = ((8, 84, 8), (8, 84, 8), (8, 84, 10), (12, 48, 12), (16, 32, 16))
"""(latents along a side, batch, period of the torus in tokens of two latents), equally often."""

WHOLE, TORI = 0.2, 32
"""Share of updates that show the whole torus of a texture that repeats, and their batch."""

STRETCH = 2.0
"""Noise levels are drawn more often near 1, where the pattern is decided; Flux.1's own schedule stretches by 3.2."""

GUIDANCE = (1.0, 10.0)
"""Values of the guidance input in distillation."""

SCALE_PER_GUIDANCE = 0.6
"""How much the scale of classifier-free guidance grows with the input. Flux's usual 3.5 means a scale of 2.5: 3 drew
patterns better than 2, but the larger it is the more is left of what a negative prompt names."""


def worded(rng: np.random.Generator, label: Label) -> str:
    """A caption, or one word of it ("red"), or the pattern with one colour ("red stripes")."""
    kind, one = rng.random(), str(rng.choice(label[1:]))
    if kind < SINGLE:
        return str(rng.choice([*label[1:], NAMES[label[0]][0]]))
    if kind < SINGLE + PARTIAL:
        return str(rng.choice(ONE_COLOUR)).format(a=one, b=one, name=rng.choice(NAMES[label[0]]))
    return caption(rng, label[0], label[1:])


def named(text: str, label: Label) -> list[int]:
    """Indices of pattern, main and second colour, -1 for what the text does not say."""
    words = text.replace(",", " ").split()
    said = (any(name in text for name in NAMES[label[0]]), label[1] in words, label[2] in words)
    said = said if len(words) > 1 else (said[0], said[1] or said[2], False)  # one colour alone has no role
    values = label if len(words) > 1 or said[0] else (label[0], words[0], label[2])
    kinds = (PATTERNS, PALETTE, PALETTE)
    return [list(kind).index(value) if s else -1 for kind, value, s in zip(kinds, values, said, strict=True)]


def teach(clip: CLIPTextModel, t5: T5EncoderModel, prompts: Prompts, steps: int) -> None:
    """Teach T5 to say pattern and colours at every position, and CLIP's pooled text to say the pattern alone.

    What the pooled text says reaches the image past attention, where guidance on attention cannot take it back.
    """
    torch.manual_seed(0)
    rng, every = np.random.default_rng(0), labels(len(PATTERNS) * 90)
    width = t5.config.d_model
    heads = nn.ModuleList(nn.Linear(width, len(names)) for names in (PATTERNS, PALETTE, PALETTE, PATTERNS))
    parameters = [*clip.parameters(), *t5.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    for step in (bar := trange(steps, desc="text", mininterval=5)):
        chosen = [every[i] for i in rng.integers(len(every), size=48)]
        texts = [worded(rng, label) for label in chosen]
        targets = torch.tensor([named(t, label) for t, label in zip(texts, chosen, strict=True)]).T
        context, pooled = prompts(clip, t5, texts)
        places = context[torch.arange(len(texts)), torch.randint(context.shape[1], (len(texts),))]
        read = [head(places) for head in heads[:3]] + [heads[3](pooled)]
        loss = torch.stack(
            [F.cross_entropy(r, t, ignore_index=-1) for r, t in zip(read, [*targets, targets[0]], strict=True)]
        ).sum()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 30) * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def levels(count: int) -> Tensor:
    """Noise levels (count,) in 0..1, one of each stratum, in random order."""
    even = (torch.randperm(count) + torch.rand(count)) / count
    return STRETCH * even / (1 + (STRETCH - 1) * even)


def velocity(
    transformer: FluxTransformer2DModel, noisy: Tensor, t: Tensor, context: Tensor, pooled: Tensor, guidance: Tensor
) -> Tensor:
    """Predicted velocities as tokens (B, N, 64) of latents (B, 16, h, w) at noise levels (B,)."""
    tokens, ids = patchify(noisy)
    with autocast(), sdpa_kernel(SDPBackend.MATH):  # the backward pass of fused attention is slow on CPUs
        found = transformer(
            tokens,
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=t,
            img_ids=ids,
            txt_ids=ids.new_zeros(context.shape[1], 3),
            guidance=guidance,
            return_dict=False,
        )[0]
    return found.float()


class Layout(NamedTuple):
    """What an update sees: latents along a side, batch, and rows and columns of the torus in tokens of two latents."""

    side: int
    batch: int
    rows: int | None = None
    columns: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all of a torus is seen."""
        return self.rows == self.columns == self.side // 2


class Batches:
    """What an update sees.

    Args:
        latents: of `encode`.
        alone: of `encode_plain`.
        tori: of `encode_tori`.
        clip, t5: taught, frozen.
        seed: of captions and crops.
    """

    def __init__(
        self,
        latents: Tensor,
        alone: dict[str, Tensor],
        tori: tuple[Tensor, list[Label]],
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        prompts: Prompts,
        seed: int,
    ) -> None:
        self.plain, self.tori = (latents, labels(len(latents))), tori
        self.alone, self.clip, self.t5, self.prompts = alone, clip, t5, prompts
        self.rng = np.random.default_rng(seed)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.prompts(self.clip, self.t5, texts)

    def draw(self, layout: Layout, dropped: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents (B, 16, side, side), noise, noise levels (B,), context (B, L, D) and pooled text (B, P)."""
        latents, shown = self.tori if layout.whole else self.plain
        often = np.array([2.0 if pattern in HARD else 1.0 for pattern, _, _ in shown])
        chosen = self.rng.choice(len(shown), layout.batch, p=often / often.sum()).tolist()
        texts = ["" if self.rng.random() < dropped else worded(self.rng, shown[i]) for i in chosen]
        context, pooled = self.texts(texts)
        images = [
            self.alone[text][self.rng.integers(PLAIN)] if text in PALETTE else latents[i]
            for text, i in zip(texts, chosen, strict=True)
        ]
        clean = crop(images, layout.side, self.rng)
        if layout.whole:  # the moves are those of a torus, to any latent
            clean = torch.stack([each.roll(self.rng.integers(layout.side, size=2).tolist(), (1, 2)) for each in clean])
        clean = clean.to(DEVICE)
        return clean, torch.randn_like(clean), levels(layout.batch).to(DEVICE), context, pooled


def learn(transformer: FluxTransformer2DModel, batches: Batches, layout: Layout) -> Tensor:
    """Mean squared error of velocities, at guidance 1."""
    clean, noise, t, context, pooled = batches.draw(layout, DROPPED)
    mix = t[:, None, None, None]
    found = velocity(transformer, (1 - mix) * clean + mix * noise, t, context, pooled, torch.ones_like(t))
    return F.mse_loss(found, patchify(noise - clean)[0])


def distil(
    transformer: FluxTransformer2DModel, teacher: FluxTransformer2DModel, batches: Batches, layout: Layout
) -> Tensor:
    """Mean squared distance from the teacher's guided velocity."""
    clean, noise, t, context, pooled = batches.draw(layout, DROPPED)
    mix = t[:, None, None, None]
    noisy = (1 - mix) * clean + mix * noise
    low, high = GUIDANCE
    guidance = low + (high - low) * torch.rand(layout.batch, device=DEVICE)
    scale = 1 + SCALE_PER_GUIDANCE * (guidance - 1)
    with torch.no_grad():
        none = [part.expand(layout.batch, *part.shape[1:]) for part in batches.texts([""])]
        one = torch.ones_like(t)
        with_text = velocity(teacher, noisy, t, context, pooled, one)
        without = velocity(teacher, noisy, t, none[0], none[1], one)
        target = without + scale[:, None, None] * (with_text - without)
    return F.mse_loss(velocity(transformer, noisy, t, context, pooled, guidance), target)


@contextmanager
def torus(transformer: FluxTransformer2DModel, rows: int | None, columns: int | None) -> Iterator[None]:
    """Positions of a torus with so many tokens along each axis, or plain ones where that is None."""
    embedder = transformer.pos_embed
    plain_forward = embedder.forward

    def forward(ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = plain_forward(ids)
        for axis, period in ((1, rows), (2, columns)):
            if period is None:
                continue
            angles = torus_angles(ids[:, axis].cpu(), period, embedder.axes_dim[axis], embedder.theta)
            first = sum(embedder.axes_dim[:axis])
            bands, both = slice(first, first + embedder.axes_dim[axis]), angles.repeat_interleave(2, 1)
            cos[:, bands], sin[:, bands] = both.cos().to(cos), both.sin().to(sin)
        return cos, sin

    embedder.forward = forward
    try:
        yield
    finally:
        embedder.forward = plain_forward


def stage(step: int, total: int) -> Layout:
    """What an update without a torus sees."""
    return next(Layout(side, count) for end, side, count in STAGES if step < end * total or end == 1.0)


def layout(rng: np.random.Generator, step: int, total: int) -> Layout:
    """A crop, a window of a torus on both axes or on either, or a whole torus."""
    kind = rng.random()
    if kind < WHOLE:
        return Layout(TORUS, TORI, TORUS // 2, TORUS // 2)
    if kind >= WHOLE + TURNED:
        return stage(step, total)
    side, count, period = WINDOWS[rng.integers(len(WINDOWS))]
    axes = [(period, period), (period, period), (period, None), (None, period)]
    return Layout(side, count, *axes[rng.integers(4)])


def averaged(run: TrainingRun) -> FluxTransformer2DModel:
    """A copy of the transformer with the averaged weights."""
    run.average.swap()
    transformer = copy.deepcopy(run.modules[0])
    run.average.swap()
    assert isinstance(transformer, FluxTransformer2DModel)
    return transformer.eval().requires_grad_(False)


def fit(run: TrainingRun, batches: Batches, steps: int, teacher: FluxTransformer2DModel | None, log: Path) -> None:
    """Run the updates that are left, with a checkpoint every 250."""
    name, losses = ("learn" if teacher is None else "distil"), []
    (transformer,) = run.modules
    assert isinstance(transformer, FluxTransformer2DModel)
    torch.manual_seed(run.step)
    rng = np.random.default_rng((4, run.step))
    for step in (bar := trange(run.step, steps, desc=name, mininterval=5)):
        seen = layout(rng, step if teacher is None else steps - 1, steps)
        with ExitStack() as stack:
            for each in filter(None, (transformer, teacher)):
                stack.enter_context(torus(each, seen.rows, seen.columns))
            loss = learn(transformer, batches, seen) if teacher is None else distil(transformer, teacher, batches, seen)
        run.update(loss)
        losses.append(loss.item())
        if run.step % 50 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}")
            with log.open("a") as file:
                entry = {"what": name, "step": run.step, "side": seen.side, "loss": float(np.mean(losses[-50:]))}
                file.write(json.dumps(entry) + "\n")
        if run.step % 250 == 0:
            run.save()
    run.save()


def train(
    vae: AutoencoderKL, work: Path, out: Path, steps: int, distil_steps: int, pool: int, tori: int, size: int = 160
) -> None:
    """Train and write `out`; goes on where an interrupted call stopped.

    Args:
        vae: with normalised latents.
        work: folder of the encoded pool and of checkpoints, outside the repository.
        out: the diffusers folder to write.
        steps: updates of the transformer.
        distil_steps: updates of its guidance.
        pool: images drawn.
        tori: images that repeat drawn.
        size: their width and height in px.
    """
    work.mkdir(parents=True, exist_ok=True)
    prompts = Prompts(work / "tokenizers")
    clip, t5 = new_clip(prompts.clip), new_t5()
    text = work / "flux-text.pt"
    if not text.exists():
        teach(clip, t5, prompts, 600)
        torch.save([clip.state_dict(), t5.state_dict()], text)
    for module, weights in zip((clip, t5), torch.load(text, weights_only=True), strict=True):
        module.load_state_dict(weights)
        module.to(DEVICE).eval().requires_grad_(False)
    seen = encode(vae, pool, size, work), encode_plain(vae, size, work), encode_tori(vae, tori, work)
    torch.manual_seed(0)
    run = TrainingRun([new_transformer().to(DEVICE)], steps, 1e-3, work / "flux.pt")
    fit(run, Batches(*seen, clip, t5, prompts, run.step), steps, None, work / "flux.jsonl")
    teacher = averaged(run)
    student = copy.deepcopy(teacher).requires_grad_(True)
    second = TrainingRun([student], distil_steps, 3e-4, work / "flux-distil.pt", warmup=50)
    batches = Batches(*seen, clip, t5, prompts, second.step + 1)
    fit(second, batches, distil_steps, teacher, work / "flux.jsonl")
    save_pipeline(out, vae.cpu(), averaged(second).cpu(), clip.cpu(), t5.cpu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="diffusers folder of the VAE")
    parser.add_argument("--work", type=Path, required=True, help="folder for latents and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="diffusers folder to write")
    parser.add_argument("--steps", type=int, default=21600)
    parser.add_argument("--distil-steps", type=int, default=800)
    parser.add_argument("--pool", type=int, default=48 * PART, help="textures drawn and encoded")
    parser.add_argument("--tori", type=int, default=2340, help="textures that repeat drawn and encoded")
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.vae)
    train(vae, args.work, args.out, args.steps, args.distil_steps, args.pool, args.tori)


if __name__ == "__main__":
    main()
