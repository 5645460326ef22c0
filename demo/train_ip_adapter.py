"""Train the IP-Adapter of `texture-sd`: `python -m tessera.demo.train_ip_adapter --work FOLDER`.

UNet and text encoder stay as they are; the image encoder learns first and is frozen then, so that what it says of the
pool is computed once. The tokens begin as what the text encoder says of the caption, and keys and values as the UNet's
own, so that an image acts like its caption from the first update on (Ye et al. 2023 begin likewise).
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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from ..host.loaders import load_clip_vision
from ..ip_adapter.formats import read_adapter
from ..ip_adapter.prompts import ImagePrompt, LoadedAdapter, baked
from ..ip_adapter.saved import SUFFIX, save_reference
from ..ip_adapter.sites import Site, find_sites
from .captions import plain
from .parts import FACTOR, new_scheduler
from .textures import draw
from .train_image_encoder import crop as crop_pictures
from .train_image_encoder import pictures, seen, train_encoder
from .train_unet import Label, encode, labels, tokens, worded
from .train_unet import crop as crop_latents
from .training import DEVICE, Run, autocast

TOKENS = 4
PLACES = (14, 33, 52, 71)
"""Places after the caption whose hidden states the image tokens begin as."""

CROPS = 2
"""Crops of each picture that the encoder sees."""

NO_IMAGE = 0.08
"""Share of pictures replaced by zero embeddings, for guidance."""

EMPTY, CAPTION = 0.7, 0.2
"""Shares of empty prompts and of captions that fit; the others fit another picture."""

HALVES, MIXED = 0.3, 0.15
"""Shares of batches with two images: one for each half, and both everywhere at 0.9 and 0.1."""


@dataclass
class Seen:
    """What the attention processors look at: image tokens (B, n, T, D), and weights (B, n, h, w) of each image."""

    tokens: Tensor = field(default_factory=lambda: torch.zeros(0))
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))


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
            side = round(q.shape[1] ** 0.5)
            weight = (
                F.interpolate(self.shown.weights[:, i : i + 1], (side, side), mode="area").flatten(2).transpose(1, 2)
            )
            out = out + weight * _attend(q, k, v, attn.heads)
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
        return self.text(tokens(self.tokenizer, texts).to(DEVICE)).last_hidden_state.float()


def load(folder: Path) -> Frozen:
    """The demo model's UNet and text encoder, in float32."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return Frozen(unet.to(DEVICE).eval().requires_grad_(False), text.to(DEVICE).eval().requires_grad_(False), tokenizer)


@torch.no_grad()
def embed(encoder: nn.Module, pool: Tensor, path: Path) -> Tensor:
    """Embeddings (N, CROPS, E) of crops of every picture, kept as a file."""
    if path.exists():
        return torch.load(path, weights_only=True)
    rng, found = np.random.default_rng(7), []
    for start in trange(0, len(pool), 100, desc="embed", mininterval=5):
        chosen = list(range(start, min(start + 100, len(pool))))
        with autocast():
            views = [encoder(seen(crop_pictures(pool, chosen, rng).to(DEVICE))).image_embeds for _ in range(CROPS)]
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
    """Latents (B, 4, S, S) to be drawn, embeddings (B, n, E), their weights (B, n, S, S), labels, how it was made."""

    latents: Tensor
    embeds: Tensor
    weights: Tensor
    shown: list[Label]
    kind: str


def make_batch(latents: Any, embeds: Tensor, side: int, size: int, rng: np.random.Generator) -> Batch:
    """Draw a batch of one kind: one image, one for each half, or two at unequal scales."""
    first, second = (rng.integers(len(embeds), size=size).tolist() for _ in range(2))
    view = rng.integers(CROPS)
    a, b = crop_latents(latents, first, side, rng), crop_latents(latents, second, side, rng)
    both = torch.stack([embeds[first, view], embeds[second, view]], dim=1)
    shown, kind = [latents.labels[i] for i in first], rng.random()
    ones = torch.ones(size, 1, side, side)
    if kind < HALVES:
        half = ones.clone()
        (half if rng.random() < 0.5 else half.transpose(2, 3))[:, :, :, side // 2 :] = 0
        return Batch(a * half + b * (1 - half), both, torch.cat([half, 1 - half], 1), shown, "halves")
    if kind < HALVES + MIXED:
        return Batch(a, both, torch.cat([0.9 * ones, 0.1 * ones], 1), shown, "mixed")
    kept = torch.from_numpy(rng.random(size) >= NO_IMAGE)[:, None, None]
    return Batch(a, both[:, :1] * kept, ones, shown, "single")


def prompts(batch: Batch, labels_: list[Label], rng: np.random.Generator) -> list[str]:
    """Empty, fitting or misleading captions; two halves have none that fits."""
    texts = []
    for label in batch.shown:
        chance = rng.random() if batch.kind != "halves" else 0.0
        other = labels_[rng.integers(len(labels_))]
        texts.append("" if chance < EMPTY else worded(rng, label if chance < EMPTY + CAPTION else other))
    return texts


def loss_of(
    frozen: Frozen, shown: Seen, projector: Projector, batch: Batch, texts: list[str], alphas: Tensor
) -> Tensor:
    """Mean squared error to the velocity, for single images also to what the UNet says with the caption."""
    count = len(batch.latents)
    times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
    alpha, latents = alphas[times][:, None, None, None], batch.latents.to(DEVICE)
    noise = torch.randn_like(latents)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    if batch.kind != "halves":
        named = [plain(p, (a, b)) for p, a, b in batch.shown]
        blank = (batch.embeds.abs().sum((1, 2)) == 0).tolist()
        shown.tokens = torch.zeros(0)
        with autocast(), torch.no_grad():
            context = frozen.context([t if b else n for t, n, b in zip(texts, named, blank, strict=True)])
            target = (target + frozen.unet(noisy, times, context).sample.float()) / 2
    shown.tokens, shown.weights = projector(batch.embeds.to(DEVICE)), batch.weights.to(DEVICE)
    with autocast():
        return F.mse_loss(frozen.unet(noisy, times, frozen.context(texts)).sample.float(), target)


def install(frozen: Frozen, shown: Seen) -> list[tuple[Site, ImageAttention]]:
    """Put a processor at every cross-attention."""
    placed = []
    for site in find_sites(frozen.unet):
        attention = frozen.unet.get_submodule(f"{site.name}.attn2")
        attention.processor = ImageAttention(attention, shown).to(DEVICE)
        placed.append((site, attention.processor))
    return placed


def export(encoder: nn.Module, projector: Projector, placed: list[tuple[Site, ImageAttention]], out: Path) -> None:
    """Write adapter and encoder in float16."""
    weights = {f"image_proj.{key}": tensor for key, tensor in projector.state_dict().items()}
    for site, processor in placed:
        weights |= {f"ip_adapter.{site.number}.{key}": tensor for key, tensor in processor.state_dict().items()}
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
    """Write the reference that ships with the pack: a drawn zigzag, baked."""
    loaded = LoadedAdapter(read_adapter(out / "ip_adapter.safetensors"), load_clip_vision(out / "image_encoder"))
    drawn = torch.from_numpy(draw(np.random.default_rng(5), "zigzag", ("red", "white"), 128))[None].float() / 255
    reference = baked(ImagePrompt(drawn), loaded, list(loaded.adapter.sites))
    save_reference(out / f"red_zigzag{SUFFIX}", reference)


def train(model: Path, work: Path, out: Path, steps: int, encoder_steps: int, pool: int, rate: float) -> None:
    """Train both parts and write `out`; goes on where an interrupted call stopped."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    latents = encode(AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32), pool, 20 * FACTOR, work)
    drawn = pictures(pool, 20 * FACTOR, work)
    encoder = train_encoder(drawn, labels(pool), work, encoder_steps)
    embeds, frozen, shown = embed(encoder, drawn, work / "embeds.pt"), load(model), Seen()
    placed = install(frozen, shown)
    projector = Projector(embeds.shape[-1], placed[0][0].width).to(DEVICE)
    if not (work / "ip_adapter.pt").exists():
        speak(projector, frozen, embeds, latents.labels, 400)
    modules = [projector, *(processor for _, processor in placed)]
    run = Run(modules, steps, rate, work / "ip_adapter.pt", warmup=50)
    rng, alphas, log = np.random.default_rng(run.step), new_scheduler().alphas_cumprod.to(DEVICE), []
    for step in (bar := trange(run.step, steps, desc="adapter", mininterval=5)):
        batch = make_batch(latents, embeds, *((12, 16) if step < 0.7 * steps else (16, 12)), rng)
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
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "models" / "texture-sd")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and checkpoints")
    parser.add_argument("--out", type=Path, help="folder to write (default: WORK/texture-ip)")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--encoder-steps", type=int, default=2500)
    parser.add_argument("--pool", type=int, default=4800, help="textures drawn")
    parser.add_argument("--rate", type=float, default=6e-4, help="highest learning rate")
    args = parser.parse_args()
    out = args.out or args.work / "texture-ip"
    train(args.model, args.work, out, args.steps, args.encoder_steps, args.pool, args.rate)


if __name__ == "__main__":
    main()
