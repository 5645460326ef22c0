"""Language models that see: images as tokens of a prompt, by the vision transformer of Qwen2.5-VL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ..layouts.state_dicts import StateDict, count_blocks, fill, with_prefix
from .language_models import HEAD_SIZE, Chunks, LanguageModelEncoder, filled, shape_of, without_head

PATCH, MERGED, FRAMES = 14, 2, 2
"""Pixels along a side of a patch, patches along a side of a token, and how often a still image is shown."""

FEWEST, MOST = 3136, 12845056
"""Pixels of an image, within which it is shown as large as it is."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of training images (CLIP's)."""

VISION_HEADS, WINDOW, WHOLE_LAYERS = 16, 112, (7, 15, 23, 31)
SECTIONS = [16, 24, 24]
"""Pairs of numbers of a head that are turned by the places in time, height and width."""

VISUAL = "visual."


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the size in pixels at which an image is seen: whole tokens, neither too few nor too many."""
    side = PATCH * MERGED
    rows, columns = round(height / side) * side, round(width / side) * side
    if rows * columns > MOST:
        factor = math.sqrt(height * width / MOST)
        rows, columns = (max(side, math.floor(each / factor / side) * side) for each in (height, width))
    elif rows * columns < FEWEST:
        factor = math.sqrt(FEWEST / (height * width))
        rows, columns = (math.ceil(each * factor / side) * side for each in (height, width))
    return rows, columns


def patches(image: Tensor) -> tuple[Tensor, int, int]:
    """Return the patches (N, 1176) of an image (H, W, 3) in 0..1 in the order of tokens, and how many there are."""
    size = shown_size(*image.shape[:2])
    pixels = F.interpolate(image.movedim(-1, 0)[None].float(), size, mode="bilinear", align_corners=False)[0]
    mean, deviation = (torch.tensor(each).to(pixels)[:, None, None] for each in (MEAN, DEVIATION))
    pixels = ((pixels - mean) / deviation)[:, None].expand(-1, FRAMES, -1, -1)
    pattern = "c t (h mh p) (w mw q) -> (h w mh mw) (c t p q)"
    found = rearrange(pixels, pattern, mh=MERGED, mw=MERGED, p=PATCH, q=PATCH)
    return found, size[0] // PATCH, size[1] // PATCH


class SeeingEncoder(LanguageModelEncoder):
    """Qwen2.5-VL without its head: a chunk may hold images, each a dictionary with `data` (B, H, W, 3) in 0..1.

    Args:
        transformer: the language model.
        visual: transformers' vision model.
        layers: as in `LanguageModelEncoder`.
    """

    sees_images = True

    def __init__(self, transformer: nn.Module, visual: nn.Module, layers: Sequence[int]) -> None:
        super().__init__(transformer, layers)
        self.visual: Any = visual

    def encode_tokens(self, chunks: Chunks, pad: int | None = None) -> Tensor:
        """Return the embedding (1, L, D * layers) of a chunk, on the CPU in float32; images have a token per 28 px."""
        entries = [token[0] for token in chunks[0]]
        if not any(isinstance(entry, dict) for entry in entries):
            return super().encode_tokens(chunks, pad)
        embeds, grids = zip(*self._parts(entries), strict=True)
        places = positions([grid or len(part) for part, grid in zip(embeds, grids, strict=True)])
        return self._embedding(inputs_embeds=torch.cat(embeds)[None], position_ids=places[:, None].to(embeds[0].device))

    def _parts(self, entries: Sequence[Any]) -> Iterable[tuple[Tensor, tuple[int, int] | None]]:
        """Yield runs of text and images as embeddings (N, D), with how many rows and columns of tokens an image has."""
        device = next(self.parameters()).device
        for is_image, run in groupby(entries, lambda entry: isinstance(entry, dict)):
            if not is_image:
                yield self.transformer.embed_tokens(torch.tensor(list(run), device=device)), None
                continue
            for entry in run:
                pixels, rows, columns = patches(entry["data"][0])
                grid = torch.tensor([[1, rows, columns]], device=device)
                seen = self.visual(pixels.to(device, next(self.visual.parameters()).dtype), grid_thw=grid)
                yield getattr(seen, "pooler_output", seen), (rows // MERGED, columns // MERGED)


def positions(runs: Iterable[int | tuple[int, int]]) -> Tensor:
    """Return the places of tokens in time, height and width (3, L).

    Text goes on along all three; an image lies at one time, and what follows begins behind its longer side.

    Args:
        runs: lengths of text, and rows and columns of images.
    """
    found, begin = [], 0
    for run in runs:
        if isinstance(run, int):
            found.append(torch.arange(begin, begin + run).expand(3, -1))
            begin += run
        else:
            rows, columns = run
            grid = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.arange(rows), torch.arange(columns))
            found.append(grid.T + begin)
            begin += max(run)
    return torch.cat(found, 1)


def build_seeing(sd: StateDict, dtype: torch.dtype, layers: Sequence[int]) -> LanguageModelEncoder | None:
    """Return Qwen2.5-VL with these weights; None where they hold no vision model, or transformers is too old."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

    visual = with_prefix(sd, VISUAL)
    if not visual or not hasattr(modeling, "Qwen2_5_VLTextModel"):
        return None
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

    text = without_head(sd)
    config = Qwen2_5_VLTextConfig(
        **shape_of(text, HEAD_SIZE),
        rope_scaling={"type": "mrope", "mrope_section": SECTIONS},  # pyright: ignore[reportCallIssue]
    )
    return SeeingEncoder(filled(modeling.Qwen2_5_VLTextModel, config, text, dtype), _vision(visual, dtype), layers)


def _vision(sd: StateDict, dtype: torch.dtype) -> nn.Module:
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

    width = sd["patch_embed.proj.weight"].shape[0]
    config = Qwen2_5_VLVisionConfig(
        depth=count_blocks(sd, "blocks."),
        hidden_size=width,
        intermediate_size=sd["blocks.0.mlp.gate_proj.weight"].shape[0],
        num_heads=VISION_HEADS,
        patch_size=PATCH,
        spatial_merge_size=MERGED,
        temporal_patch_size=FRAMES,
        window_size=WINDOW,
        out_hidden_size=sd["merger.mlp.2.weight"].shape[0],
        fullatt_block_indexes=list(WHOLE_LAYERS),
    )
    with torch.device("meta"):
        module: Any = modeling.Qwen2_5_VisionTransformerPretrainedModel(config)
    half = width // VISION_HEADS // 2
    for name, buffer in list(module.rotary_pos_emb.named_buffers()):
        assert buffer.ndim == 1
        frequencies = 1.0 / 10000.0 ** (torch.arange(0, half, 2, dtype=torch.float) / half)
        module.rotary_pos_emb.register_buffer(name, frequencies, persistent=False)
    return fill(module, sd, dtype, "the vision model")
