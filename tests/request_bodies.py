"""The request bodies in tests/data/requests, and the small files that they name: all work on the demo models.

A body is what would be sent to the service. Its options are those of `tessera import`: `--model` names a demo model
where the body names a model of the service, `--image` a file where it names a image that lies there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from PIL import Image
from safetensors.torch import load_file, save_file
from tessera.app.services.services import SERVICES
from tiny_models import sdxl_file
from tiny_text_models import llama_folder

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo" / "models"
WIDTH, RANK, SIDE = 128, 2, 48
FLUX_WIDTH = 256
UNET_LAYERS = [f"down_blocks_{block}_attentions_0_transformer_blocks_0_attn2_to_q" for block in (1, 2)]
FLUX_LAYERS = [f"single_transformer_blocks_{block}_attn_to_q" for block in (0, 1)]
CONTROL = ("block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim", "attention_head_dim")
LORAS = {"zigzag": UNET_LAYERS, "zigzag-3": UNET_LAYERS, "moss": UNET_LAYERS[:1], "5": UNET_LAYERS[1:]}
FLUX_LORAS = {"my-style-5": FLUX_LAYERS, "flux-detail": FLUX_LAYERS[:1]}


@dataclass(frozen=True)
class Entry:
    """A body, the options it is imported with, and what it is an example of."""

    service: str
    name: str
    body: dict[str, Any]
    options: list[str]

    @property
    def parameters(self) -> dict[str, Any]:
        """What the body sets, wherever it stands in it."""
        return SERVICES[self.service].flat(self.body)

    @property
    def id(self) -> str:
        """For test names."""
        return f"{self.service}-{self.name.replace(' ', '_').replace(',', '')}"


def entries() -> list[Entry]:
    """Every body of every service."""
    return [
        Entry(path.stem, name, each["body"], each["options"])
        for path in sorted((ROOT / "tests" / "data" / "requests").glob("*.json"))
        for name, each in json.loads(path.read_text(encoding="utf-8")).items()
    ]


def write_files(folder: Path) -> None:
    """The models that the bodies name, in folder/models, and the image that `--image` names, in folder.

    LoRAs, embeddings, the ControlNet and tiny-sdxl are random and small; the refiner is texture-sd, the VAE its own but
    brighter.
    """
    torch.manual_seed(0)
    models = folder / "models"
    for part in ("checkpoints", "controlnet", "embeddings", "loras", "vae"):
        (models / part).mkdir(parents=True, exist_ok=True)
    for name, layers in LORAS.items():
        save_file(_lora(layers, WIDTH), models / "loras" / f"{name}.safetensors")
    for name, layers in FLUX_LORAS.items():
        save_file(_lora(layers, FLUX_WIDTH), models / "loras" / f"{name}.safetensors")
    for name in ("zig", "teal-word"):
        save_file({"emb_params": torch.randn(2, WIDTH)}, models / "embeddings" / f"{name}.safetensors")
    vae = load_file(DEMO / "texture-sd" / "vae" / "diffusion_pytorch_model.safetensors")
    vae["decoder.conv_out.bias"] += 0.1
    save_file(vae, models / "vae" / "texture-vae.safetensors")
    (models / "checkpoints" / "texture-refiner").symlink_to(DEMO / "texture-sd", target_is_directory=True)
    sdxl_file(models / "checkpoints" / "tiny-sdxl.safetensors")
    save_file(_control(), models / "controlnet" / "texture-control_canny_openpose.safetensors")
    llama_folder(models / "text_generation" / "tiny-chat")
    image = Image.linear_gradient("L").resize((SIDE, SIDE // 2))
    Image.merge("RGB", [image, image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), image]).save(folder / "image.png")


def _control() -> dict[str, torch.Tensor]:
    """A ControlNet of texture-sd's shape, whose last layers are small instead of zero."""
    config = json.loads((DEMO / "texture-sd" / "unet" / "config.json").read_text(encoding="utf-8"))
    network = ControlNetModel.from_config({key: config[key] for key in CONTROL})
    assert isinstance(network, ControlNetModel)
    weights = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    return {key: torch.randn_like(each) * 0.02 if not each.any() else each for key, each in weights.items()}


def _lora(layers: list[str], width: int) -> dict[str, torch.Tensor]:
    """Random factors for square layers, in the layout of kohya's scripts."""
    return {
        f"lora_unet_{layer}.lora_{part}.weight": torch.randn(*shape) * 0.3
        for layer in layers
        for part, shape in (("up", (width, RANK)), ("down", (RANK, width)))
    }
