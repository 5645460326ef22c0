"""Weights in eight bits: those that a change of precision and a factor bring back, and those that need ComfyUI."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

import torch

from .state_dicts import StateDict

log = logging.getLogger(__name__)

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
FACTORS = (".scale_weight", ".weight_scale")
"""Endings of what a weight is multiplied with, in ComfyUI's layouts of 2025 and of 2026."""

TOLD = ".comfy_quant"
ASIDE = (".scale_input", ".input_scale", TOLD)
"""Endings of what is of use only to compute in eight bits."""

MARKER = "scaled_fp8"
FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")
HADAMARD = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))
GROUP = 256
"""Columns that are rotated together, where a file does not say it."""

OTHERS = {".absmax": "bitsandbytes", ".quant_map": "bitsandbytes", ".qweight": "GPTQ or AWQ", ".qzeros": "GPTQ or AWQ"}


def dequantized(sd: StateDict, dtype: torch.dtype = torch.bfloat16) -> StateDict:
    """Return weights without float8 and int8: multiplied with their factors, in another precision.

    Says in a line what was converted. Other weights are returned as they are.

    Raises:
        ValueError: they are in another format of few bits.
    """
    told = {key.removesuffix(TOLD): json.loads(bytes(sd[key].tolist())) for key in sd if key.endswith(TOLD)}
    _refuse_others(sd, told)
    eighths = [key for key, tensor in sd.items() if tensor.dtype in (*FLOAT8, torch.int8) and key != MARKER]
    factors = {key for key in sd if key.endswith(FACTORS)}
    if not eighths and not factors:
        return sd
    made: StateDict = {}
    for key, tensor in sd.items():
        if key in factors or key.endswith(ASIDE) or key == MARKER:
            continue
        made[key] = tensor
        if tensor.dtype in (*FLOAT8, torch.int8):
            made[key] = _restored(tensor, _factor(sd, key), told.get(key.removesuffix(".weight"), {}), dtype)
    kinds = Counter(str(sd[key].dtype).removeprefix("torch.") for key in eighths)
    said = ", ".join(f"{count} in {kind}" for kind, count in kinds.items())
    to = str(dtype).removeprefix("torch.")
    log.warning("converted weights to %s: %s%s", to, said or "factors alone", " with factors" if factors else "")
    return made


def _factor(sd: StateDict, key: str) -> torch.Tensor | None:
    stem = key.removesuffix(".weight")
    return next((sd[stem + ending] for ending in FACTORS if stem + ending in sd), None)


def _restored(
    tensor: torch.Tensor, factor: torch.Tensor | None, told: dict[str, Any], dtype: torch.dtype
) -> torch.Tensor:
    if factor is None:
        return tensor.to(dtype)
    factor = factor.float()
    # A factor for each row, or one for all.
    shape = (-1, *[1] * (tensor.ndim - 1)) if factor.numel() > 1 else ()
    restored, told = tensor.float() * factor.reshape(shape), {**told, **told.get("params", {})}
    return (unrotated(restored, int(told.get("convrot_groupsize", GROUP))) if told.get("convrot") else restored).to(
        dtype
    )


def unrotated(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Return a weight (out, in) whose columns were rotated in groups before they were rounded (ConvRot).

    Args:
        weight: the rotated weight.
        group: columns of a group, a power of 4; the rotation is a Hadamard matrix, which is its own inverse.
    """
    rotation = four = torch.tensor(HADAMARD, dtype=weight.dtype, device=weight.device) / 2
    while len(rotation) < group:
        rotation = torch.kron(rotation, four)
    return (weight.unflatten(1, (-1, group)) @ rotation).flatten(1)


def _refuse_others(sd: StateDict, told: dict[str, dict[str, Any]]) -> None:
    for key, said in told.items():
        if said.get("format") not in FORMATS:
            raise ValueError(f"the weights are quantized as {said.get('format')} ({key}), {_remedy()}")
    for key, tensor in sd.items():
        ending = next((ending for ending in OTHERS if key.endswith(ending)), None)
        if ending is not None:
            raise ValueError(f"the weights are quantized for {OTHERS[ending]} ({key}), {_remedy()}")
        rounded = tensor.dtype in (torch.int8, torch.uint8) and key.endswith(".weight")
        if rounded and not (tensor.dtype == torch.int8 and key.removesuffix(".weight") in told):
            raise ValueError(f"the weights are quantized as {str(tensor.dtype)[6:]} ({key}), {_remedy()}")


def _remedy() -> str:
    return (
        "expected float32, float16, bfloat16, float8 or scaled float8 or int8; take such a file, or run it in ComfyUI"
    )
