"""Weights in eight bits: those that a change of precision and a factor bring back, and those that need ComfyUI."""

from __future__ import annotations

import json
import logging
from collections import Counter

import torch

from .state_dicts import StateDict

log = logging.getLogger(__name__)

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
FACTORS = (".scale_weight", ".weight_scale")
"""Endings of what a weight is multiplied with, in ComfyUI's layouts of 2025 and of 2026."""

ASIDE = (".scale_input", ".input_scale", ".comfy_quant")
"""Endings of what is of use only to compute in eight bits."""

MARKER = "scaled_fp8"
FORMATS = ("float8_e4m3fn", "float8_e5m2")
OTHERS = {".absmax": "bitsandbytes", ".quant_map": "bitsandbytes", ".qweight": "GPTQ or AWQ", ".qzeros": "GPTQ or AWQ"}


def dequantized(sd: StateDict, dtype: torch.dtype = torch.bfloat16) -> StateDict:
    """Return weights without float8: multiplied with their factors, in another precision.

    Says in a line what was converted. Weights that are not in float8 are returned as they are.

    Raises:
        ValueError: they are in another format of few bits.
    """
    _refuse_others(sd)
    eighths = [key for key, tensor in sd.items() if tensor.dtype in FLOAT8 and key != MARKER]
    factors = {key for key in sd if key.endswith(FACTORS)}
    if not eighths and not factors:
        return sd
    made: StateDict = {}
    for key, tensor in sd.items():
        if key in factors or key.endswith(ASIDE) or key == MARKER:
            continue
        made[key] = _restored(tensor, _factor(sd, key), dtype) if tensor.dtype in FLOAT8 else tensor
    kinds = Counter(str(sd[key].dtype).removeprefix("torch.") for key in eighths)
    said = ", ".join(f"{count} in {kind}" for kind, count in kinds.items())
    to = str(dtype).removeprefix("torch.")
    log.warning("converted weights to %s: %s%s", to, said or "factors alone", " with factors" if factors else "")
    return made


def _factor(sd: StateDict, key: str) -> torch.Tensor | None:
    stem = key.removesuffix(".weight")
    return next((sd[stem + ending] for ending in FACTORS if stem + ending in sd), None)


def _restored(tensor: torch.Tensor, factor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    if factor is None:
        return tensor.to(dtype)
    factor = factor.float()
    # A factor for each row, or one for all.
    shape = (-1, *[1] * (tensor.ndim - 1)) if factor.numel() > 1 else ()
    return (tensor.float() * factor.reshape(shape)).to(dtype)


def _refuse_others(sd: StateDict) -> None:
    for key, tensor in sd.items():
        if key.endswith(".comfy_quant"):
            found = json.loads(bytes(tensor.tolist())).get("format")
            if found not in FORMATS:
                raise ValueError(f"the weights are quantized as {found} ({key}), {_remedy()}")
        ending = next((ending for ending in OTHERS if key.endswith(ending)), None)
        if ending is not None:
            raise ValueError(f"the weights are quantized for {OTHERS[ending]} ({key}), {_remedy()}")
        if key.endswith(".weight") and tensor.dtype in (torch.int8, torch.uint8):
            raise ValueError(f"the weights are quantized as {str(tensor.dtype)[6:]} ({key}), {_remedy()}")


def _remedy() -> str:
    return "expected float32, float16, bfloat16, float8 or scaled float8; take such a file, or run it in ComfyUI"
