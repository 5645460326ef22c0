"""Train the IP-Adapter of `texture-sd`: `python -m tessera.demo.training.train_ip_adapter --work FOLDER`.

UNet and text encoder stay as they are; the image encoder learns first and is frozen then, so that what it says of the
pool is computed once. The tokens begin as what the text encoder says of the caption, and keys and values as the UNet's
own, so that an image acts like its caption from the first update on (Ye et al. 2023 begin likewise).

Scales are trained, too: at a scale s the target lies the share s / FULL of the way from what the UNet says without the
image to what it says with the caption, so that guidance grows with the scale. So are types: an image acts in the blocks
of its type, and the caption names its colours (style), its pattern (composition, character) or both; see
`adapter_batches`.
"""

# diffusers and transformers declare their classes through lazy modules and unions that no checker follows.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
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
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ...host.models.loaders import load_clip_vision
from ...ip_adapter.formats import read_adapter
from ...ip_adapter.layers import Layer, find_layers
from ...ip_adapter.norms import AreaNorms, SharesAt, shares_of
from ...ip_adapter.presets import TYPES, by_layer, weights_of_type
from ...ip_adapter.prompts import ImagePrompt, LoadedAdapter, make_references
from ...ip_adapter.saved import SUFFIX, encode_reference
from .adapter_batches import Batch, Pool, make_batch
from .captions import plain
from .common import DEVICE, TrainingRun, autocast
from .parts import FACTOR, new_scheduler
from .textures import draw
from .train_image_encoder import crop as crop_images
from .train_image_encoder import images, seen, train_encoder
from .train_unet import Label, encode, labels, tokens

TOKENS = 4
PLACES = (14, 33, 52, 71)
"""Places after the caption whose hidden states the image tokens begin as."""

CROPS = 4
"""Crops of each image that the encoder sees."""

STRENGTH, BEFORE = 0.7, 0.4
"""Share of the trained values that is written, here and in the adapter that this one began at. More of them follows the
reference more closely, and in type style takes its pattern along."""

STAGES: tuple[tuple[float, int, int], ...] = ((0.7, 12, 16), (1.0, 16, 12))
"""(end as a share of all updates, latents along a side, images); halves are two such squares, and half as many."""


@dataclass
class Seen:
    """What the attention processors look at.

    Attributes:
        tokens: of the images (B, n, T, D).
        weights: of each image (B, n, h, w).
        gains: of each image by number of the layer, as its type has them.
        types: gains of every type.
    """

    tokens: Tensor = field(default_factory=lambda: torch.zeros(0))
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    gains: list[dict[int, float]] = field(default_factory=list)
    types: dict[str, dict[int, float]] = field(default_factory=dict)

    def weight(self, image: int, length: int) -> Tensor:
        """Weights (B, length, 1) of an image at an attention over `length` places."""
        plane = self.weights[:, image : image + 1]
        factor = round((plane.shape[2] * plane.shape[3] / length) ** 0.5)
        return F.avg_pool2d(plane, factor).flatten(2).transpose(1, 2)


class ImageAttention(nn.Module):
    """A diffusers attention processor with decoupled attention to images, in plain products that are fast to train."""

    def __init__(self, number: int, attention: Any, shown: Seen) -> None:
        super().__init__()
        self.number = number
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
            gain = self.shown.gains[i].get(self.number, 0.0)
            if gain:
                k, v = self.to_k_ip(self.shown.tokens[:, i]), self.to_v_ip(self.shown.tokens[:, i])
                out = out + gain * self.shown.weight(i, q.shape[1]) * _attend(q, k, v, attn.heads)
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

    known: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def context(self, texts: list[str]) -> Tensor:
        """Hidden states (B, 77, D); each distinct text is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            states = self.text(tokens(self.tokenizer, new).to(DEVICE)).last_hidden_state.float()
            self.known |= dict(zip(new, states, strict=True))
        return torch.stack([self.known[text] for text in texts])


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


def loss_of(
    frozen: Frozen, shown: Seen, projector: Projector, batch: Batch, norms: AreaNorms, alphas: Tensor
) -> Tensor:
    """Mean squared error to what the UNet says of each pane with the caption that is wanted there.

    Where nothing but the image decides, the velocity counts as much: it knows details that no caption names.
    """
    count = len(batch.strength)
    times = (torch.rand(count).add(torch.arange(count)).div(count) * 1000).long().to(DEVICE)
    alpha, panes = alphas[times][:, None, None, None], [pane.to(DEVICE) for pane in batch.panes]
    noises = [torch.randn_like(pane) for pane in panes]
    noisy = [alpha.sqrt() * pane + (1 - alpha).sqrt() * noise for pane, noise in zip(panes, noises, strict=True)]
    whole, context = batch.joined(noisy), frozen.context(batch.prompts)
    shown.tokens = torch.zeros(0)
    with autocast(), torch.no_grad():
        wanted = frozen.context([text for texts in batch.wanted for text in texts])
        taught = frozen.unet(torch.cat(noisy), times.repeat(len(noisy)), wanted).sample.float()
        target = batch.joined(list(taught.chunk(len(noisy))))
        if batch.known:
            target = (target + alpha.sqrt() * noises[0] - (1 - alpha).sqrt() * panes[0]) / 2
        if (batch.strength < 1).any():
            prompted = frozen.unet(whole, times, context).sample.float()
            target = torch.lerp(prompted, target, batch.strength.to(DEVICE)[:, None, None, None])
    shown.tokens, shown.weights = projector(batch.embeds.to(DEVICE)), batch.weights.to(DEVICE)
    shown.gains = [shown.types[kind] for kind in batch.kinds]
    with autocast(), norms.acting(shares_in(shown.weights) if batch.apart else None):
        return F.mse_loss(frozen.unet(whole, times, context).sample.float(), target)


def shares_in(weights: Tensor) -> SharesAt:
    """Return the areas of images (B, n, h, w) that have the same masks in every row."""

    def shares(grid: tuple[int, int], batch: int) -> list[tuple[slice, Tensor | None]]:
        return [(slice(batch), shares_of(F.adaptive_avg_pool2d((weights[0] > 0).float(), grid).flatten(1)))]

    return shares


def install(frozen: Frozen, shown: Seen) -> list[tuple[Layer, ImageAttention]]:
    """Put a processor at every cross-attention."""
    if DEVICE.type == "cpu":  # the backward pass of fused attention is slow there
        frozen.unet.set_attn_processor(AttnProcessor())
    placed, layers = [], find_layers(frozen.unet)
    for layer in layers:
        attention = frozen.unet.get_submodule(f"{layer.name}.attn2")
        attention.processor = ImageAttention(layer.number, attention, shown).to(DEVICE)
        placed.append((layer, attention.processor))
    shown.types = {kind: by_layer(weights_of_type(kind, layers), layers, 1.0) for kind in TYPES}
    return placed


def begin_at(folder: Path, projector: Projector, placed: list[tuple[Layer, ImageAttention]]) -> None:
    """Take the weights of an adapter that was written before."""
    earlier = read_adapter(folder / "ip_adapter.safetensors")
    projector.load_state_dict(earlier.image_proj)
    for layer, processor in placed:
        keys, values = earlier.layers[layer.number]
        processor.to_k_ip.weight.data.copy_(keys)
        processor.to_v_ip.weight.data.copy_(values.float() / BEFORE)


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


def train(
    model: Path, work: Path, out: Path, steps: int, encoder_steps: int, size: int, rate: float, start: Path | None
) -> None:
    """Train both parts and write `out`; goes on where an interrupted call stopped.

    Args:
        model: folder of `texture-sd`.
        work: folder of data and checkpoints.
        out: folder to write.
        steps: updates of the adapter.
        encoder_steps: updates of the image encoder.
        size: textures drawn.
        rate: highest learning rate.
        start: folder of an adapter to begin at, whose image encoder stays as it is.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    latents = encode(AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32), size, 20 * FACTOR, work)
    drawn = images(size, 20 * FACTOR, work)
    if start is None:
        encoder = train_encoder(drawn, labels(size), work, encoder_steps)
    else:
        encoder = CLIPVisionModelWithProjection.from_pretrained(start / "image_encoder", torch_dtype=torch.float32)
        encoder = encoder.eval().requires_grad_(False)
    embeds, frozen, shown = embed(encoder, drawn, work / "embeds.pt"), load(model), Seen()
    placed = install(frozen, shown)
    projector = Projector(embeds.shape[-1], placed[0][0].width).to(DEVICE)
    if start is not None:
        begin_at(start, projector, placed)
    elif not (work / "ip_adapter.pt").exists():
        speak(projector, frozen, embeds, latents.labels, 400)
    modules = [projector, *(processor for _, processor in placed)]
    run = TrainingRun(modules, steps, rate, work / "ip_adapter.pt", warmup=50)
    pool, alphas = Pool(latents, embeds), new_scheduler().alphas_cumprod.to(DEVICE)
    with (norms := AreaNorms()).installed(frozen.unet):
        for _ in updates(run, frozen, shown, projector, pool, norms, alphas):
            run.average.swap()
            export(encoder, projector, placed, out)
            run.average.swap()
    save_demo_reference(out)


def updates(
    run: TrainingRun, frozen: Frozen, shown: Seen, projector: Projector, pool: Pool, norms: AreaNorms, alphas: Tensor
) -> Iterator[int]:
    """Train, and yield at every checkpoint."""
    rng, log = np.random.default_rng(run.step), []
    for step in (bar := trange(run.step, run.total, desc="adapter", mininterval=5)):
        side, size = next((side, size) for end, side, size in STAGES if step < end * run.total)
        loss = loss_of(frozen, shown, projector, make_batch(pool, side, size, rng), norms, alphas)
        run.update(loss)
        log.append(loss.item())
        if run.step % 25 == 0:
            bar.set_postfix(loss=f"{np.mean(log[-100:]):.4f}")
        if run.step % 200 == 0 or run.step == run.total:
            run.save()
            yield run.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "models" / "texture-sd")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and checkpoints")
    parser.add_argument("--out", type=Path, help="folder to write (default: WORK/texture-ip)")
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--encoder-steps", type=int, default=2500)
    parser.add_argument("--pool", type=int, default=4800, help="textures drawn")
    parser.add_argument("--rate", type=float, default=6e-4, help="highest learning rate")
    parser.add_argument("--start", type=Path, help="folder of an adapter to begin at, whose image encoder stays")
    args = parser.parse_args()
    out = args.out or args.work / "texture-ip"
    train(args.model, args.work, out, args.steps, args.encoder_steps, args.pool, args.rate, args.start)


if __name__ == "__main__":
    main()
