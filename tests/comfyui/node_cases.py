"""Random input for core nodes, on which both hosts must agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Case = tuple[str, dict[str, Any]]
"""A node, and its inputs."""


def node(node_id: str, **inputs: Any) -> tuple[str, str, dict[str, Any]]:
    """An input that another node makes."""
    return "node", node_id, inputs


def cases() -> dict[str, Case]:
    """Cases by name; the same ones at every call."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def latent(batch: int = 2, height: int = 12, width: int = 16, channels: int = 4, **more: Any) -> dict[str, Any]:
        return {"samples": random(batch, channels, height, width) * 2 - 1, **more}

    def conditioning(length: int = 77, pooled: bool = True, **values: Any) -> list[list[Any]]:
        more = {"pooled_output": random(1, 16)} if pooled else {}
        return [[random(1, length, 8), {**more, **values}]]

    def image(batch: int = 2, height: int = 24, width: int = 32, channels: int = 3) -> Tensor:
        return random(batch, height, width, channels)

    found: dict[str, Case] = {}

    def add(node_id: str, **inputs: Any) -> None:
        count = sum(each[0] == node_id for each in found.values())
        found[f"{node_id}-{count}"] = (node_id, inputs)

    _conditionings(add, conditioning, random)
    _latents(add, latent, random)
    return found


def _conditionings(add: Any, conditioning: Any, random: Any) -> None:
    add("ConditioningCombine", conditioning_1=conditioning(), conditioning_2=conditioning())
    add("ConditioningConcat", conditioning_to=conditioning(), conditioning_from=conditioning(154))
    for first, second in ((77, 77), (77, 154), (154, 77)):
        for pooled in ((True, True), (False, True), (True, False)):
            add(
                "ConditioningAverage",
                conditioning_to=conditioning(first, pooled[0]),
                conditioning_from=conditioning(second, pooled[1]),
                conditioning_to_strength=0.3,
            )
    add("ConditioningMultiply", conditioning=conditioning(), multiplier=-1.5)
    add("ConditioningMultiply", conditioning=conditioning(pooled=False), multiplier=2.0)
    area = {"x": 40, "y": 8, "strength": 0.7}
    add("ConditioningSetArea", conditioning=conditioning(), width=72, height=64, **area)
    part = {"x": 0.25, "y": 0.5, "strength": 0.7}
    add("ConditioningSetAreaPercentage", conditioning=conditioning(), width=0.3, height=0.4, **part)
    add("ConditioningSetAreaStrength", conditioning=conditioning(), strength=3.0)
    for where in ("default", "mask bounds"):
        add("ConditioningSetMask", conditioning=conditioning(), mask=random(9, 7), set_cond_area=where, strength=0.6)
    add("ConditioningSetTimestepRange", conditioning=conditioning(), start=0.2, end=0.7)
    add("ConditioningZeroOut", conditioning=conditioning())
    add("FluxGuidance", conditioning=conditioning(), guidance=2.5)
    add("FluxDisableGuidance", conditioning=conditioning(guidance=3.0))
    add("ReferenceLatent", conditioning=conditioning())
    reference = random(1, 4, 6, 6)
    add("ReferenceLatent", conditioning=conditioning(), latent={"samples": reference})
    seen = conditioning(reference_latents=[reference])
    add("ReferenceLatent", conditioning=seen, latent={"samples": reference + 1})
    for method in ("offset", "index", "uxo/uno", "index_timestep_zero"):
        add(
            "FluxKontextMultiReferenceLatentMethod",
            conditioning=conditioning(),
            reference_latents_method=method,
        )


def _latents(add: Any, latent: Any, random: Any) -> None:
    for mask, batch_index, length in ((None, 1, 5), (random(1, 1, 8, 8), -2, 1), (random(2, 1, 8, 8), 3, 1)):
        samples = latent(3) if mask is None else latent(3, noise_mask=mask)
        add("LatentFromBatch", samples=samples, batch_index=batch_index, length=length)
    add("LatentFromBatch", samples=latent(3, batch_index=[4, 5, 6]), batch_index=1, length=2)
    for x, y, feather in ((0, 0, 0), (16, 8, 0), (24, 16, 24), (0, 24, 16), (80, 40, 32)):
        add("LatentComposite", samples_to=latent(), samples_from=latent(2, 8, 8), x=x, y=y, feather=feather)
    for x, y, resize, mask in ((0, 0, False, None), (40, 16, False, random(10, 6)), (8, 8, True, random(2, 10, 6))):
        over = latent(1, 8, 8)
        inputs: dict[str, Any] = {"destination": latent(), "source": over, "x": x, "y": y, "resize_source": resize}
        add("LatentCompositeMasked", **inputs, **({} if mask is None else {"mask": mask}))
    add("LatentBlend", samples1=latent(), samples2=latent(2, 8, 24), blend_factor=0.3)
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        add("LatentRotate", samples=latent(), rotation=turn)
    for method in ("x-axis: vertically", "y-axis: horizontally"):
        add("LatentFlip", samples=latent(), flip_method=method)
    for width, height, x, y in ((64, 72, 0, 0), (512, 512, 16, 8), (64, 64, 400, 400)):
        add("LatentCrop", samples=latent(), width=width, height=height, x=x, y=y)
    for each in ("LatentAdd", "LatentSubtract", "LatentBatch"):
        add(each, samples1=latent(), samples2=latent())
        add(each, samples1=latent(3), samples2=latent(2, 8, 8))
    add("LatentMultiply", samples=latent(), multiplier=-2.5)
    add("LatentInterpolate", samples1=latent(1), samples2=latent(1), ratio=0.3)
    for dim in ("x", "-x", "y", "-y"):
        add("LatentConcat", samples1=latent(), samples2=latent(1), dim=dim)
    for dim, index, amount in (("x", 2, 3), ("y", -4, 9), ("y", 40, 2), ("t", 1, 2)):
        add("LatentCut", samples=latent(), dim=dim, index=index, amount=amount)
    for dim, size in (("x", 5), ("y", 40), ("t", 1)):
        add("LatentCutToBatch", samples=latent(), dim=dim, slice_size=size)
    for behavior in ("random", "fixed"):
        add("LatentBatchSeedBehavior", samples=latent(3, batch_index=[4, 5, 6]), seed_behavior=behavior)
        add("LatentBatchSeedBehavior", samples=latent(3), seed_behavior=behavior)
    tonemap = node("LatentOperationTonemapReinhard", multiplier=0.7)
    sharpen = node("LatentOperationSharpen", sharpen_radius=2, sigma=0.8, alpha=0.5)
    for operation in (tonemap, sharpen):
        add("LatentApplyOperation", samples=latent(), operation=operation)
    for method in ("nearest-exact", "bilinear", "area", "bicubic", "bislerp"):
        for crop in ("disabled", "center"):
            add("LatentUpscale", samples=latent(), upscale_method=method, width=96, height=160, crop=crop)
        add("LatentUpscaleBy", samples=latent(), upscale_method=method, scale_by=1.3)
    add("RepeatLatentBatch", samples=latent(3, batch_index=[4, 5, 6], noise_mask=random(2, 1, 8, 8)), amount=2)
    add("SetLatentNoiseMask", samples=latent(), mask=random(9, 7))
