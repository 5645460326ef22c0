"""Image prompts on small models of the embedded host: what their tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tessera.host.models.model_base import SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import Encoder, plain_image, random_adapter
from torch import Tensor

SHAPE = (1, 4, 16, 24)
ROLES = [1, 0]


def load_for(model: ModelPatcher, kind: str = "base", seed: int = 0) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(model.model.diffusion_model, kind, seed), kind), Encoder())


def prompts_of(*colours: float, scale: float = 0.7, kind: str = "full", **more: Any) -> tuple[ImagePrompt, ...]:
    return tuple(ImagePrompt(plain_image(colour), scale, kind, **more) for colour in colours)


def apply(
    model: ModelPatcher, loaded: LoadedAdapter | None, prompts: Sequence[ImagePrompt], combine: str = "sum"
) -> Any:
    return TesseraApplyImagePrompts.execute(model, tuple(prompts), combine, loaded).args[0]


def inputs_of(model: ModelPatcher, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """Two rows: the negative prompt and the positive one."""
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, *shape[1:], generator=generator), torch.randn(2, 7, 16, generator=generator)
    conds = {"y": torch.ones(2, 16), "time_ids": torch.ones(2, 6)} if isinstance(model.model, SDXL) else {}
    return {"x": x, "t": torch.tensor([3.0, 3.0]), "c_crossattn": text, **conds}


def predict(model: Any, inputs: dict[str, Any], roles: list[int] | None = None, **options: Any) -> Tensor:
    """One call as a sampler makes it, without a run around it."""
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, **options}
    return model.model.apply_model(**inputs, transformer_options={**to, "cond_or_uncond": roles or ROLES})


def text_of(value: float, **options: Any) -> list[list[Any]]:
    return [[torch.linspace(-value, value, 77 * 16).view(1, 77, 16), {"pooled_output": torch.ones(1, 16), **options}]]


def sample(model: Any, noise: Tensor | None = None, positive: list[list[Any]] | None = None, steps: int = 3) -> Tensor:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)) if noise is None else noise
    run = KSampler(model, steps, "euler", "normal")
    return run.sample(noise, positive or text_of(1.0), text_of(-2.0), 2.0, torch.zeros_like(noise), seed=1)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
