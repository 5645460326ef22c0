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
