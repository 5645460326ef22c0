"""Where models run and in which precision.

Drop-in replacement for the flags and choices of `comfy.model_management`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
RESIDENT_SHARE = 0.25
"""A model that takes more of the GPU than this rests in main memory between runs."""


@dataclass
class _Flags:
    device: torch.device | None = None
    dtype: torch.dtype | None = None


_flags = _Flags()


def configure(device: str | None = None, dtype: str | None = None) -> None:
    """Set what every model loaded from now on uses; None chooses by the machine.

    Args:
        device: "cuda", "cuda:1", "mps" or "cpu".
        dtype: of denoisers, "fp16", "bf16" or "fp32".

    Raises:
        ValueError: an unknown name, a device that this machine does not have, or a precision that the device lacks;
            nothing is changed then.
    """
    parsed_device = None if device is None else _parse_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f'dtype is "{dtype}", expected one of {", ".join(DTYPES)}')
    chosen = parsed_device or torch_device()
    if dtype == "bf16" and chosen.type == "cuda" and not _has_bf16(chosen):
        raise ValueError('dtype is "bf16", which this GPU does not compute in; use fp16')
    _flags.device, _flags.dtype = parsed_device, None if dtype is None else DTYPES[dtype]


def _parse_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f'device is "{name}", expected cuda, cuda:<number>, mps or cpu') from None
    if device.type not in ("cuda", "mps", "cpu"):
        raise ValueError(f'device is "{name}", expected cuda, cuda:<number>, mps or cpu')
    found = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= found or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f'device is "{name}", but torch finds no such device here; use "cpu"')
    return device


def torch_device() -> torch.device:
    """Return where models run: the flag, else CUDA, else Apple's GPU, else the processor."""
    if _flags.device is not None:
        return _flags.device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def offload_device(size: int) -> torch.device:
    """Return where a model of `size` bytes rests between runs."""
    device = torch_device()
    if device.type != "cuda":
        return device
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.device("cpu") if size > RESIDENT_SHARE * total else device


def _has_bf16(device: torch.device | None = None) -> bool:
    return torch.cuda.get_device_capability(device or torch_device())[0] >= 8


def model_dtype(stored: torch.dtype, wide_range: bool = False) -> torch.dtype:
    """Return the precision of a denoiser.

    Args:
        stored: of the file; half precisions are kept on a GPU.
        wide_range: the values of this family overflow float16.
    """
    kind = torch_device().type
    if _flags.dtype is not None:
        return _flags.dtype
    if kind == "cpu":
        return torch.float32
    if kind == "cuda" and (stored == torch.bfloat16 or wide_range) and _has_bf16():
        return torch.bfloat16
    return torch.float16


def computes_in_float32() -> bool:
    """Return whether a denoiser is computed in float32, whatever its file holds."""
    return {model_dtype(torch.float16), model_dtype(torch.bfloat16, wide_range=True)} == {torch.float32}


def text_encoder_dtype(wide_range: bool = False) -> torch.dtype:
    """Return the precision in which a text encoder is stored. `wide_range`: its values overflow float16 (T5)."""
    if torch_device().type != "cuda":
        return torch.float32
    if wide_range:
        return torch.bfloat16 if _has_bf16() else torch.float32
    return torch.float16


def vae_dtype() -> torch.dtype:
    """Return the precision of a VAE, whose values overflow float16."""
    return torch.bfloat16 if torch_device().type == "cuda" and _has_bf16() else torch.float32


def free_memory(device: torch.device) -> int:
    """Return the bytes that a batch may take: what CUDA has free, else 2 GiB."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**31
