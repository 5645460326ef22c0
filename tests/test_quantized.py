"""Weights in eight bits: converted with a line, or refused by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from tessera.host.layouts.quantized import dequantized, unrotated
from tessera.host.layouts.state_dicts import load_state_dict

E4M3 = torch.float8_e4m3fn
WEIGHT = torch.tensor([[1.0, -2.0], [0.5, 4.0]])


def said(told: str | dict[str, Any]) -> torch.Tensor:
    settings = {"format": told} if isinstance(told, str) else told
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("more", "factor"),
    [
        ({}, 1.0),
        ({"a.scale_weight": torch.tensor([0.25]), "scaled_fp8": torch.zeros(2, dtype=E4M3)}, 0.25),
        ({"a.weight_scale": torch.tensor(0.5), "a.comfy_quant": said("float8_e4m3fn")}, 0.5),
        ({"a.weight_scale": torch.tensor([[1.0], [2.0]]), "a.input_scale": torch.ones(1)}, None),
    ],
)
def test_float8_is_multiplied_with_its_factor(
    more: dict[str, torch.Tensor], factor: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    bias = torch.ones(2)
    with caplog.at_level(logging.WARNING):
        made = dequantized({"a.weight": WEIGHT.to(E4M3), "a.bias": bias, **more}, torch.float32)
    assert list(made) == ["a.weight", "a.bias"]
    wanted = WEIGHT * (torch.tensor([[1.0], [2.0]]) if factor is None else factor)
    assert torch.equal(made["a.weight"], wanted) and made["a.bias"] is bias
    assert "float8_e4m3fn" in caplog.text and "float32" in caplog.text


@pytest.mark.parametrize("inside", [False, True])
def test_int8_is_multiplied_and_rotated_back(inside: bool) -> None:
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotated = unrotated(weight, 16)
    torch.testing.assert_close(unrotated(rotated, 16), weight)
    torch.testing.assert_close(rotated @ rotated.T, weight @ weight.T)
    scale = rotated.abs().amax(1, keepdim=True) / 127
    settings = {"convrot": True, "convrot_groupsize": 16}
    told = {"format": "int8_tensorwise", **({"params": settings} if inside else settings)}
    file = {"a.weight": (rotated / scale).round().to(torch.int8), "a.weight_scale": scale, "a.comfy_quant": said(told)}
    made = dequantized(file, torch.float64)
    assert list(made) == ["a.weight"]
    # Each rotated column is at most half a step off, and a column is a sum of 16 of a quarter each.
    assert (made["a.weight"] - weight).abs().max() <= scale.max() * 16 * 0.25 / 2
    plain = {**file, "a.comfy_quant": said({"format": "int8_tensorwise"})}
    # Rounding takes half a step at most, and the factor is float32.
    assert (dequantized(plain, torch.float64)["a.weight"] - rotated).abs().max() <= 0.5001 * scale.max()


def test_other_weights_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    weights = {"a.weight": WEIGHT}
    assert dequantized(weights) is weights
    assert not caplog.text


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"a.comfy_quant": said("nvfp4")}, "nvfp4"),
        ({"a.comfy_quant": said("convrot_w4a4")}, "convrot_w4a4"),
        ({"a.weight.absmax": torch.ones(1)}, "bitsandbytes"),
        ({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, "int8"),
    ],
)
def test_other_formats_are_refused_by_name(more: dict[str, torch.Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=naming("quantized", name, "scaled float8")):
        dequantized({"a.weight": WEIGHT, **more})


def test_gguf_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=naming("model.gguf", "GGUF", ".safetensors")):
        load_state_dict(path)
