"""Small networks of the real architectures, with random weights."""

from __future__ import annotations

import inspect
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hypothesis import settings
from naming import Naming
from torch import nn

pytest_plugins = ["margins"]

# What starts the tests, such as nohup or a shell's background, may ignore signals, and processes of tests inherit that.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) == signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)

# Words of a comparison that has a tolerance.
COMPARES = re.compile(r"\b(within|assert_close|allclose|approx)\(")
# Draw or train for minutes; `-m quick` leaves them out.
SLOW = {
    "test_clients",
    "test_chaos",
    "test_example_workflows",
    "test_request_bodies",
    "test_demo_adapter",
    "test_demo_model",
    "test_demo_seam",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let faults be tested for longer."""
    parser.addoption(
        "--long", action="store_true", help="tests of faults: 200 kills, 20,000 broken inputs of each kind"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark `numeric` what compares numbers with a tolerance, and `quick` the first case of each test."""
    seen: set[tuple[str, str]] = set()
    for item in items:
        function = getattr(item, "function", None)
        if function is None or any(map(item.get_closest_marker, ("comfyui", "requests", "faults"))):
            continue
        place = (item.path.stem, function.__qualname__)
        if place[0] not in SLOW and place not in seen:
            item.add_marker("quick")
        seen.add(place)
        if not place[0].startswith(("test_demo", "test_example")) and COMPARES.search(inspect.getsource(function)):
            item.add_marker("numeric")


# No test asserts a time. CI draws the same cases everywhere; `pytest --hypothesis-profile=search` draws others.
settings.register_profile("search", deadline=None)
settings.register_profile("tessera", deadline=None, derandomize=True)
settings.load_profile("tessera")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Call a case by the words of its message, not by the pattern that finds them."""
    return " ".join(val.parts) if isinstance(val, Naming) else None


def _random(network: Any) -> Any:
    """Weights large enough that every output depends on every input (initial ones leave outputs almost constant)."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter.data, std=0.06 if parameter.ndim > 1 else 0.2, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.data += 1.0
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def sd15_unet() -> Any:
    """A UNet of the SD 1.5 kind: 4 levels, text of width 16."""
    return _random(
        UNet2DConditionModel.from_config(
            {
                "block_out_channels": [32, 32, 64, 64],
                "layers_per_block": 1,
                "cross_attention_dim": 16,
                "attention_head_dim": 4,
            }
        )
    )


@pytest.fixture(scope="session")
def sdxl_unet() -> Any:
    """A UNet of the SDXL kind: 3 levels, text of width 16, pooled text of width 16."""
    return _random(
        UNet2DConditionModel.from_config(
            {
                "block_out_channels": [32, 32, 64],
                "layers_per_block": 1,
                "cross_attention_dim": 16,
                "attention_head_dim": 4,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": [1, 1, 2],
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 64,
            }
        )
    )


@pytest.fixture(scope="session")
def flux_transformer() -> Any:
    """A Flux of two double and two single blocks with heads of 16: text of width 16, pooled text of width 24."""
    return _random(
        FluxTransformer2DModel.from_config(
            {
                "in_channels": 64,
                "num_layers": 2,
                "num_single_layers": 2,
                "attention_head_dim": 16,
                "num_attention_heads": 2,
                "joint_attention_dim": 16,
                "pooled_projection_dim": 24,
                "guidance_embeds": True,
                "axes_dims_rope": [4, 6, 6],
            }
        )
    )


@pytest.fixture(scope="session")
def autoencoder() -> Any:
    """An autoencoder of the Stable Diffusion kind: factor 8, 4 latent channels."""
    return _random(
        AutoencoderKL.from_config(
            {
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "block_out_channels": [32, 32, 32, 32],
                "layers_per_block": 1,
            }
        )
    )


VIDEO_VAE = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True],
}


@pytest.fixture(scope="session")
def wan_vae() -> Any:
    """An autoencoder of Wan's kind: factor 4, 4 latent channels, causal in time."""
    return _random(AutoencoderKLWan.from_config(VIDEO_VAE))


@pytest.fixture(scope="session")
def qwen_vae() -> Any:
    """An autoencoder of Qwen-Image's kind: factor 4, 4 latent channels, causal in time."""
    return _random(AutoencoderKLQwenImage.from_config(VIDEO_VAE))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """For each family the same random weights as a diffusers folder and as a single file."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        family: (make_folder(root / family), make_file(root / f"{family}_file" / f"{family}.safetensors"))
        for family, (make_folder, make_file) in {
            "sd15": (tiny_models.sd15_folder, tiny_models.sd15_file),
            "sdxl": (tiny_models.sdxl_folder, tiny_models.sdxl_file),
            "flux": (tiny_models.flux_folder, tiny_models.flux_file),
        }.items()
    }
