"""ComfyUI's core nodes that apply functions to latents, or to what guidance adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..images.filters import gaussian_kernel
from ..schema import io
from ..schema.declare import Nodes, decimal, integer

Latent = dict[str, Any]
Operation = Callable[..., Tensor]
NODES = Nodes("model/latent/advanced/operations")


@NODES(
    "LatentApplyOperation",
    "LatentApplyOperation",
    [io.Latent.Input("samples"), io.LatentOperation.Input("operation")],
    [io.Latent],
    search_aliases=["transform latent"],
    is_experimental=True,
)
def apply_operation(samples: Latent, operation: Operation) -> Latent:
    """Apply an operation to latents."""
    return {**samples, "samples": operation(latent=samples["samples"])}


@NODES(
    "LatentApplyOperationCFG",
    "LatentApplyOperationCFG",
    [io.Model.Input("model"), io.LatentOperation.Input("operation")],
    [io.Model],
    is_experimental=True,
)
def apply_operation_cfg(model: Any, operation: Operation) -> Any:
    """Apply an operation to what guidance adds at every step."""
    patched = model.clone()

    def change(args: dict[str, Any]) -> list[Tensor]:
        conds = args["conds_out"]
        base = conds[1] if len(conds) == 2 else 0.0
        conds[0] = operation(latent=conds[0] - base) + base
        return conds

    patched.set_model_sampler_pre_cfg_function(change)
    return patched


@NODES(
    "LatentOperationTonemapReinhard",
    "LatentOperationTonemapReinhard",
    [decimal("multiplier", 1.0, 0.0, 100.0, tooltip="Higher changes less.")],
    [io.LatentOperation],
    search_aliases=["hdr latent"],
    is_experimental=True,
)
def tonemap_reinhard(multiplier: float) -> Operation:
    """Compress the brightest latents, five deviations above the mean length."""

    def tonemap(latent: Tensor, **_: Any) -> Tensor:
        length = (torch.linalg.vector_norm(latent, dim=1) + 1e-10)[:, None]
        axes = list(range(1, length.ndim))
        top = (length.std(axes, keepdim=True) * 5 + length.mean(axes, keepdim=True)) * multiplier
        relative = length / top
        return latent / length * (relative / (relative + 1.0)) * top

    return tonemap


@NODES(
    "LatentOperationSharpen",
    "LatentOperationSharpen",
    [
        integer("sharpen_radius", 9, 1, 31, advanced=True, tooltip="How far it looks, in cells."),
        decimal("sigma", 1.0, 0.1, 10.0, 0.1, advanced=True, tooltip="How wide the details are that it stresses."),
        decimal("alpha", 0.1, 0.0, 5.0, advanced=True, tooltip="How much it stresses them."),
    ],
    [io.LatentOperation],
    is_experimental=True,
)
def sharpen(sharpen_radius: int, sigma: float, alpha: float) -> Operation:
    """Sharpen the directions of latents, and keep their lengths."""
    kernel = gaussian_kernel(2 * sharpen_radius + 1, sigma) * (alpha * -10)
    kernel[sharpen_radius, sharpen_radius] += 1.0 - kernel.sum()

    def operation(latent: Tensor, **_: Any) -> Tensor:
        length = (torch.linalg.vector_norm(latent, dim=1) + 1e-6)[:, None]
        channels = latent.shape[1]
        padded = F.pad(latent / length, (sharpen_radius,) * 4, "reflect")
        weight = kernel.to(latent).expand(channels, 1, -1, -1)
        return length * F.conv2d(padded, weight, groups=channels)

    return operation
