"""Train the IP-Adapter of `texture-sd`: `python -m tessera.demo.training.train_ip_adapter --work FOLDER`.

UNet and text encoder stay as they are; the image encoder learns first and is frozen then, so that what it says of the
pool is computed once. The tokens begin as what the text encoder says of the caption, and keys and values as the UNet's
own, so that an image acts like its caption from the first update on (Ye et al. 2023 begin likewise).

Scales are trained, too: at a scale s the target lies the share s / FULL of the way from what the UNet says without the
image to what it says with the caption, so that guidance grows with the scale. Most batches show two textures side by
side, each with an image and a mask; the UNet gives the target for each alone, since its group norms blend the colours
of all of an image.
"""

# diffusers and transformers declare their classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from ...host.models.loaders import load_clip_vision
from ...ip_adapter.formats import read_adapter
from ...ip_adapter.layers import Layer, find_layers
from ...ip_adapter.prompts import ImagePrompt, LoadedAdapter, make_references
from ...ip_adapter.saved import SUFFIX, encode_reference
from .captions import plain
from .common import DEVICE, TrainingRun, autocast
from .parts import FACTOR, new_scheduler
from .textures import draw
from .train_image_encoder import crop as crop_images
from .train_image_encoder import images, seen, train_encoder
from .train_unet import Label, Latents, encode, labels, tokens, worded
from .train_unet import crop as crop_latents

TOKENS = 4
PLACES = (14, 33, 52, 71)
"""Places after the caption whose hidden states the image tokens begin as."""

CROPS = 4
"""Crops of each image that the encoder sees."""

FULL = 0.9
"""The scale from which an image acts like its caption; it is what the nodes begin with."""

NO_IMAGE = 0.08
"""Share of images replaced by zero embeddings, for guidance."""

EMPTY, CAPTION = 0.7, 0.2
"""Shares of empty prompts and of captions that fit; the others fit another image."""

STRENGTH = 0.4
"""Share of the trained values that is written: with guidance 4, more than that oversaturates colours at scale 0.9."""

HALVES, MIXED = 0.75, 0.1
"""Shares of batches with two images: one for each half, and both everywhere at 0.9 and 0.1."""

STAGES: tuple[tuple[float, int, int], ...] = ((0.7, 12, 16), (1.0, 16, 12))
"""(end as a share of all updates, latents along a side, images); halves are two such squares, and half as many."""


@dataclass
class Seen:
    """What the attention processors look at: image tokens (B, n, T, D), and weights (B, n, h, w) of each image."""

    tokens: Tensor = field(default_factory=lambda: torch.zeros(0))
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))

    def weight(self, image: int, length: int) -> Tensor:
        """Weights (B, length, 1) of an image at an attention over `length` places."""
        plane = self.weights[:, image : image + 1]
        factor = round((plane.shape[2] * plane.shape[3] / length) ** 0.5)
        return F.avg_pool2d(plane, factor).flatten(2).transpose(1, 2)


class ImageAttention(nn.Module):
    """A diffusers attention processor with decoupled attention to images, in plain products that are fast to train."""

    def __init__(self, attention: Any, shown: Seen) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = (
            nn.Linear(*layer.weight.shape[::-1], bias=False) for layer in (attention.to_k, attention.to_v)
        )
        self.to_k_ip.weight.data.copy_(attention.to_k.weight)
        self.to_v_ip.weight.data.copy_(attention.to_v.weight)
        self.shown = shown

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        q = attn.to_q(hidden_states)
        out = _attend(q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        for i in range(self.shown.tokens.shape[1] if self.shown.tokens.ndim == 4 else 0):
            k, v = self.to_k_ip(self.shown.tokens[:, i]), self.to_v_ip(self.shown.tokens[:, i])
            out = out + self.shown.weight(i, q.shape[1]) * _attend(q, k, v, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    p = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    return (p @ v).transpose(1, 2).flatten(2)


class Projector(nn.Module):
    """Embeddings (B, E) -> image tokens (B, T, D), as in the adapter's file."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Linear(features, TOKENS * width), nn.LayerNorm(width)

    def forward(self, embeds: Tensor) -> Tensor:
        return self.norm(self.proj(embeds).unflatten(-1, (TOKENS, -1)))


@dataclass
class Frozen:
    """What is not trained."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def context(self, texts: list[str]) -> Tensor:
        """Hidden states (B, 77, D); each distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        states = self.text(tokens(self.tokenizer, distinct).to(DEVICE)).last_hidden_state.float()
        return states[[distinct.index(text) for text in texts]]


def load(folder: Path) -> Frozen:
    """The demo model's UNet and text encoder, in float32."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Frozen(unet.to(DEVICE).eval().requires_grad_(False), text.to(DEVICE).eval().requires_grad_(False), tokenizer)


@torch.no_grad()
def embed(encoder: nn.Module, pool: Tensor, path: Path) -> Tensor:
    """Embeddings (N, CROPS, E) of crops of every image, kept as a file."""
    if path.exists():
        return torch.load(path, weights_only=True)
    rng, found = np.random.default_rng(7), []
    for start in trange(0, len(pool), 100, desc="embed", mininterval=5):
        chosen = list(range(start, min(start + 100, len(pool))))
        with autocast():
            views = [encoder(seen(crop_images(pool, chosen, rng).to(DEVICE))).image_embeds for _ in range(CROPS)]
        found.append(torch.stack(views, dim=1).float().cpu())
    torch.save(torch.cat(found), path)
    return torch.cat(found)


def speak(projector: Projector, frozen: Frozen, embeds: Tensor, shown: list[Label], steps: int) -> None:
    """Let tokens begin as the hidden states of the caption: minutes of training in seconds."""
    distinct = list(dict.fromkeys(shown))
    texts = [plain(pattern, (a, b)) for pattern, a, b in distinct]
    states = torch.cat([frozen.context(texts[i : i + 64])[:, PLACES] for i in range(0, len(texts), 64)])
    wanted = states[[distinct.index(label) for label in shown]]
    norm = next(part for name, part in frozen.text.named_modules() if name.endswith("final_layer_norm"))
    projector.norm.load_state_dict(norm.state_dict())
    optimizer, rng = torch.optim.AdamW(projector.parameters(), lr=3e-3), np.random.default_rng(8)
    for step in trange(steps, desc="speak", mininterval=5):
        chosen = torch.from_numpy(rng.integers(len(shown), size=256))
        loss = F.mse_loss(projector(embeds[chosen, step % CROPS]), wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@dataclass
class Batch:
    """What one update learns from.

    Args:
        panes: one latent (B, 4, S, S), or those of two halves.
        shown: labels of each pane.
        embeds: (B, n, E), zero for no image.
        weights: (B, n, H, W) of each image.
        strength: (B,), how far from the prompt to the images the target lies.
        axis: dimension along which panes are put together.
    """

    panes: list[Tensor]
    shown: list[list[Label]]
    embeds: Tensor
    weights: Tensor
    strength: Tensor
    axis: int = 3

    def joined(self, panes: list[Tensor]) -> Tensor:
        return torch.cat(panes, dim=self.axis)


def make_batch(latents: Latents, embeds: Tensor, side: int, size: int, rng: np.random.Generator) -> Batch:
    """Draw a batch of one kind: one image at any scale, one for each half, or two at unequal scales."""
    kind, ones = rng.random(), torch.ones(size, 1, side, side)
    if kind < HALVES:
        return _halves(latents, embeds, side, size // 2, rng)
    first, second = (rng.integers(len(embeds), size=size).tolist() for _ in range(2))
    pane, shown = [crop_latents(latents, first, side, rng)], [[latents.labels[i] for i in first]]
    view = rng.integers(CROPS)
    if kind < HALVES + MIXED:
        both = torch.stack([embeds[first, view], embeds[second, view]], dim=1)
        return Batch(pane, shown, both, torch.cat([0.9 * ones, 0.1 * ones], 1), torch.ones(size))
    kept = torch.from_numpy(rng.random(size) >= NO_IMAGE)
    scale = torch.from_numpy(rng.choice([1.0, FULL], size) - (rng.random(size) < 0.5) * rng.random(size) * FULL).float()
    weights = scale[:, None, None, None] * ones
    return Batch(
        pane, shown, embeds[first, view][:, None] * kept[:, None, None], weights, kept * (scale / FULL).clamp(max=1)
    )


def _halves(latents: Latents, embeds: Tensor, side: int, size: int, rng: np.random.Generator) -> Batch:
    chosen = [rng.integers(len(embeds), size=size).tolist() for _ in range(2)]
    panes = [crop_latents(latents, some, side, rng) for some in chosen]
    axis, scale, view = int(rng.integers(2, 4)), rng.uniform(FULL, 1), rng.integers(CROPS)
    here, there = scale * torch.ones(size, 1, side, side), torch.zeros(size, 1, side, side)
    weights = torch.cat([torch.cat([here, there], axis), torch.cat([there, here], axis)], 1)
    shown = [[latents.labels[i] for i in some] for some in chosen]
    both = torch.stack([embeds[some, view] for some in chosen], dim=1)
    return Batch(panes, shown, both, weights, torch.ones(size), axis)


def prompts(batch: Batch, labels_: list[Label], rng: np.random.Generator) -> list[str]:
    """Empty, fitting or misleading captions; two halves have none that fits."""
    texts = []
    for label in batch.shown[0]:
        chance = rng.random() if len(batch.panes) == 1 else 0.0
        other = labels_[rng.integers(len(labels_))]
        texts.append("" if chance < EMPTY else worded(rng, label if chance < EMPTY + CAPTION else other))
    return texts


def loss_of(
    frozen: Frozen, shown: Seen, projector: Projector, batch: Batch, texts: list[str], alphas: Tensor
) -> Tensor:
    """Mean squared error to what the UNet says of each pane with its caption.

    The velocity of a single pane counts as much as what the UNet says: it knows details that no caption names.
    """
    count = len(batch.strength)
    times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
    alpha, panes = alphas[times][:, None, None, None], [pane.to(DEVICE) for pane in batch.panes]
    noises = [torch.randn_like(pane) for pane in panes]
    noisy = [alpha.sqrt() * pane + (1 - alpha).sqrt() * noise for pane, noise in zip(panes, noises, strict=True)]
    velocity = [alpha.sqrt() * noise - (1 - alpha).sqrt() * pane for pane, noise in zip(panes, noises, strict=True)]
    whole, target, context = batch.joined(noisy), batch.joined(velocity), frozen.context(texts)
    captions = [plain(p, (a, b)) for labels_ in batch.shown for p, a, b in labels_]
    shown.tokens = torch.zeros(0)
    with autocast(), torch.no_grad():
        taught = frozen.unet(torch.cat(noisy), times.repeat(len(noisy)), frozen.context(captions)).sample.float()
        taught = batch.joined(list(taught.chunk(len(noisy))))
        target = taught if len(noisy) > 1 else (target + taught) / 2
        if (batch.strength < 1).any():
            prompted = frozen.unet(whole, times, context).sample.float()
            target = torch.lerp(prompted, target, batch.strength.to(DEVICE)[:, None, None, None])
    shown.tokens, shown.weights = projector(batch.embeds.to(DEVICE)), batch.weights.to(DEVICE)
    with autocast():
        return F.mse_loss(frozen.unet(whole, times, context).sample.float(), target)


def install(frozen: Frozen, shown: Seen) -> list[tuple[Layer, ImageAttention]]:
    """Put a processor at every cross-attention."""
    if DEVICE.type == "cpu":  # the backward pass of fused attention is slow there
        frozen.unet.set_attn_processor(AttnProcessor())
    placed = []
    for layer in find_layers(frozen.unet):
        attention = frozen.unet.get_submodule(f"{layer.name}.attn2")
        attention.processor = ImageAttention(attention, shown).to(DEVICE)
        placed.append((layer, attention.processor))
    return placed


def export(encoder: nn.Module, projector: Projector, placed: list[tuple[Layer, ImageAttention]], out: Path) -> None:
    """Write adapter and encoder in float16."""
    weights = {f"image_proj.{key}": tensor for key, tensor in projector.state_dict().items()}
    for layer, processor in placed:
        weights[f"ip_adapter.{layer.number}.to_k_ip.weight"] = processor.to_k_ip.weight.data
        weights[f"ip_adapter.{layer.number}.to_v_ip.weight"] = processor.to_v_ip.weight.data * STRENGTH
    (out / "image_encoder").mkdir(parents=True, exist_ok=True)
    half = {
        "ip_adapter": weights,
        "image_encoder/model": {k: t for k, t in encoder.state_dict().items() if "position_ids" not in k},
    }
    for name, tensors in half.items():
        save_file(
            {k: t.cpu().to(torch.float16).contiguous().clone() for k, t in tensors.items()}, out / f"{name}.safetensors"
        )
    config: Any = encoder.config
    kept = ("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads")
    kept += ("image_size", "patch_size", "num_channels", "hidden_act", "layer_norm_eps", "attention_dropout")
    text = json.dumps({"model_type": "clip_vision_model", **{key: getattr(config, key) for key in kept}}, indent=2)
    (out / "image_encoder" / "config.json").write_text(text + "\n")


def save_demo_reference(out: Path) -> None:
    """Write the reference that ships with the pack: a drawn zigzag, precomputed."""
    loaded = LoadedAdapter(read_adapter(out / "ip_adapter.safetensors"), load_clip_vision(out / "image_encoder"))
    drawn = torch.from_numpy(draw(np.random.default_rng(5), "zigzag", ("red", "white"), 128))[None].float() / 255
    (reference,) = make_references([(ImagePrompt(drawn), list(loaded.adapter.layers))], loaded)
    (out / f"red_zigzag{SUFFIX}").write_bytes(encode_reference(reference))


def train(model: Path, work: Path, out: Path, steps: int, encoder_steps: int, pool: int, rate: float) -> None:
    """Train both parts and write `out`; goes on where an interrupted call stopped."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    latents = encode(AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32), pool, 20 * FACTOR, work)
    drawn = images(pool, 20 * FACTOR, work)
    encoder = train_encoder(drawn, labels(pool), work, encoder_steps)
    embeds, frozen, shown = embed(encoder, drawn, work / "embeds.pt"), load(model), Seen()
    placed = install(frozen, shown)
    projector = Projector(embeds.shape[-1], placed[0][0].width).to(DEVICE)
    if not (work / "ip_adapter.pt").exists():
        speak(projector, frozen, embeds, latents.labels, 400)
    modules = [projector, *(processor for _, processor in placed)]
    run = TrainingRun(modules, steps, rate, work / "ip_adapter.pt", warmup=50)
    rng, alphas, log = np.random.default_rng(run.step), new_scheduler().alphas_cumprod.to(DEVICE), []
    for step in (bar := trange(run.step, steps, desc="adapter", mininterval=5)):
        side, size = next((side, size) for end, side, size in STAGES if step < end * steps)
        batch = make_batch(latents, embeds, side, size, rng)
        loss = loss_of(frozen, shown, projector, batch, prompts(batch, latents.labels, rng), alphas)
        run.update(loss)
        log.append(loss.item())
        if run.step % 25 == 0:
            bar.set_postfix(loss=f"{np.mean(log[-100:]):.4f}")
        if run.step % 200 == 0 or run.step == steps:
            run.save()
            run.average.swap()
            export(encoder, projector, placed, out)
            run.average.swap()
    save_demo_reference(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-sd")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and checkpoints")
    parser.add_argument("--out", type=Path, help="folder to write (default: WORK/texture-ip)")
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--encoder-steps", type=int, default=2500)
    parser.add_argument("--pool", type=int, default=4800, help="textures drawn")
    parser.add_argument("--rate", type=float, default=6e-4, help="highest learning rate")
    args = parser.parse_args()
    out = args.out or args.work / "texture-ip"
    train(args.model, args.work, out, args.steps, args.encoder_steps, args.pool, args.rate)


if __name__ == "__main__":
    main()
