"""Where models run and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tessera.host.models.loaders import load_checkpoint
from tessera.host.runtime import devices

Checkpoints = dict[str, tuple[Path, Path]]


@pytest.fixture
def flags() -> Iterator[None]:
    """Leaves the flags as they were."""
    yield
    devices.configure()


@pytest.mark.parametrize("arguments", [("gpu", None), ("cpu", "int8"), ("cuda:99", None), ("meta", None), ("", "")])
def test_bad_flags(flags: None, arguments: tuple[str, str | None]) -> None:
    devices.configure("cpu", "fp32")
    with pytest.raises(ValueError) as error:
        devices.configure(*arguments)
    assert "\n" not in str(error.value)
    assert devices.torch_device().type == "cpu" and devices.model_dtype(torch.float16) == torch.float32


def test_precision_follows_the_flag(flags: None, checkpoints: Checkpoints) -> None:
    devices.configure("cpu", "bf16")
    model, _, vae = load_checkpoint(checkpoints["sd15"][1])
    assert vae is not None
    assert model.model.get_dtype() == torch.bfloat16 and vae.vae_dtype == torch.float32


@pytest.mark.parametrize("arguments", [("cuda", "bf16"), (None, "bf16")])
def test_a_precision_that_the_gpu_lacks(
    flags: None, arguments: tuple[str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "_has_bf16", lambda _: False)
    with pytest.raises(ValueError, match="use fp16"):
        devices.configure(*arguments)
    devices.configure("cpu", "bf16")
