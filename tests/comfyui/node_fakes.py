"""What stands for models where core nodes are compared: it is the same in both hosts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class FakeModel:
    """A model that records what nodes do to it.

    Args:
        sampling: the host's noise schedule and prediction.
    """

    def __init__(self, sampling: Any) -> None:
        self.sampling = sampling
        self.before: Any = None
        self.after: Any = None
        self.mask: Any = None
        self.conds: Any = None
        self.model = SimpleNamespace(model_config=SimpleNamespace(sampling_settings={}))

    def clone(self) -> FakeModel:
        return FakeModel(self.sampling)

    def get_model_object(self, name: str) -> Any:
        return self.sampling

    def add_object_patch(self, name: str, value: Any) -> None:
        self.sampling = value

    def set_model_sampler_cfg_function(self, function: Any) -> None:
        self.before = function

    def set_model_sampler_post_cfg_function(self, function: Any) -> None:
        self.after = function

    def set_model_sampler_pre_cfg_function(self, function: Any) -> None:
        self.conds = function

    def set_model_denoise_mask_function(self, function: Any) -> None:
        self.mask = function


def probe(value: Any) -> Any:
    """What a recorded model does to random predictions; other values as they are."""
    if not isinstance(value, FakeModel):
        return value
    generator = torch.Generator().manual_seed(3)
    x, cond, uncond = torch.randn(3, 2, 4, 6, 5, generator=generator)
    sigma, sampling = torch.tensor([0.7, 0.7]), value.sampling
    found: list[Any] = [sampling.sigmas, sampling.timestep(sigma).float(), sampling.percent_to_sigma(0.4)]
    found += [sampling.calculate_denoised(sigma, cond, x), sampling.sigma(torch.tensor([0.3]))]
    args: dict[str, Any] = {"input": x, "cond_scale": 4.0, "sigma": sigma, "timestep": sigma}
    args |= {"cond": x - cond, "uncond": x - uncond, "cond_denoised": cond, "uncond_denoised": uncond}
    if value.conds is not None:
        found.append(value.conds({**args, "conds_out": [cond.clone(), uncond.clone()]}))
    guided = uncond + 4.0 * (cond - uncond)
    if value.before is not None:
        guided = x - value.before(args)
    if value.after is not None:
        guided = value.after({**args, "denoised": guided})
    found.append(guided)
    if value.mask is not None:
        inner = SimpleNamespace(inner_model=SimpleNamespace(model_sampling=sampling))
        extra = {"model": inner, "sigmas": torch.tensor([0.9, 0.7, 0.4, 0.0])}
        found.append(value.mask(sigma, torch.rand(1, 1, 6, 5, generator=generator), extra_options=extra))
    return found


class FakeVae:
    """A VAE whose latents are means of pixels."""

    def encode(self, pixels: Tensor) -> Tensor:
        height, width = (side // 8 for side in pixels.shape[1:3])
        return torch.nn.functional.adaptive_avg_pool2d(pixels[..., :3].movedim(-1, 1), (height, width))

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        return pixels

    def spacial_compression_encode(self) -> int:
        return 8


class FakeStyle:
    """A style model whose tokens are the image's states."""

    def get_cond(self, image: Any) -> Tensor:
        return image.last_hidden_state.clone()


class FakeClip:
    """A text encoder whose embedding is what it sees."""

    def tokenize(self, text: str, **options: Any) -> dict[str, Any]:
        return {"text": text, **options}

    def encode_from_tokens_scheduled(self, tokens: dict[str, Any]) -> list[list[Any]]:
        seen = [image.flatten() for image in tokens["images"]]
        values = {"text": tokens["text"], "template": tokens.get("llama_template")}
        return [[torch.cat(seen) if seen else torch.zeros(1), values]]
