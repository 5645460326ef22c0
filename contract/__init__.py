"""The one seam to the host: what the pack takes from ComfyUI, or from the embedded host where there is no ComfyUI.

A ComfyUI that is there but broken raises its own error here; it is never replaced in silence.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..weights.files import check, check_folder

IN_COMFYUI = find_spec("comfy_api") is not None

if TYPE_CHECKING:
    import torch

if TYPE_CHECKING or not IN_COMFYUI:
    from ..host import folder_paths, io, ui
    from ..host.api import ComfyExtension
    from ..host.attention import optimized_attention
    from ..host.cond_batch import calc_cond_batch
    from ..host.conds import convert_cond
    from ..host.patcher_extension import WrappersMP
    from ..host.progress import ProgressBar, throw_exception_if_processing_interrupted
else:
    import folder_paths
    from comfy.ldm.modules.attention import optimized_attention
    from comfy.model_management import throw_exception_if_processing_interrupted
    from comfy.patcher_extension import WrappersMP
    from comfy.sampler_helpers import convert_cond
    from comfy.samplers import calc_cond_batch
    from comfy.utils import ProgressBar
    from comfy_api.latest import ComfyExtension, io, ui

DEMO_MODELS = Path(__file__).parents[1] / "demo" / "models"
DEMO_CHECKPOINTS = ["texture-sd", "texture-flux"]
DEMO_ADAPTER = DEMO_MODELS / "texture-ip"

__all__ = [
    "DEMO_ADAPTER",
    "DEMO_CHECKPOINTS",
    "ComfyExtension",
    "ProgressBar",
    "WrappersMP",
    "add_lora",
    "calc_cond_batch",
    "convert_cond",
    "demo_checkpoint",
    "folder_paths",
    "io",
    "load_clip_vision",
    "optimized_attention",
    "room_for_model",
    "sample_one_step",
    "saves_metadata",
    "throw_exception_if_processing_interrupted",
    "ui",
]

for _own in ("ipadapter", "safety_checker", "text_generation"):
    if _own not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(_own, str(Path(folder_paths.models_dir) / _own))


def load_clip_vision(path: str | Path) -> Any:
    """Load a CLIP_VISION from a file, or from a folder with `config.json` and `model.safetensors`.

    Raises:
        ValueError: it holds no image encoder, or is broken.
    """
    path = Path(path)
    check_folder(path) if path.is_dir() else check([path])
    if not IN_COMFYUI:
        from ..host.loaders import load_clip_vision

        return load_clip_vision(path)
    from .comfyui_demo import load_image_encoder

    return load_image_encoder(path)


def add_lora(model: Any, weights: dict[str, Any], strength: float) -> Any:
    """A clone of a MODEL with a LoRA, whose tensors are named as in kohya's files.

    Raises:
        ValueError: it fits nowhere.
    """
    if IN_COMFYUI:
        from comfy.sd import load_lora_for_models  # pyright: ignore[reportMissingImports]
    else:
        from ..host.lora import load_lora_for_models
    return load_lora_for_models(model, None, weights, strength, 0.0)[0]


def room_for_model(size: int) -> torch.device:
    """Where a model of `size` bytes runs that is no MODEL, CLIP or VAE; ComfyUI makes room for it there."""
    if not IN_COMFYUI:
        from ..host.devices import torch_device

        return torch_device()
    from comfy.model_management import free_memory, text_encoder_device  # pyright: ignore[reportMissingImports]

    device = text_encoder_device()
    free_memory(size, device)
    return device


def saves_metadata() -> bool:
    """Whether pictures may carry their graph: ComfyUI can be told that they must not."""
    if not IN_COMFYUI:
        return True
    from comfy.cli_args import args  # pyright: ignore[reportMissingImports]

    return not args.disable_metadata


def sample_one_step(model: Any, positive: Any, noise: Any, latent: Any, sigma: float) -> Any:
    """Run a MODEL once on latents (B, C, H, W) at a noise level, without guidance; what it draws (B, C, H, W)."""
    import torch

    if IN_COMFYUI:
        from comfy.samplers import CFGGuider, sampler_object  # pyright: ignore[reportMissingImports]
    else:
        from ..host.guiders import CFGGuider
        from ..host.samplers import sampler_object
    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": positive, "negative": positive})
    return guider.sample(noise, latent, sampler_object("euler"), torch.tensor([sigma, 0.0]), seed=0)


def demo_checkpoint(name: str) -> tuple[Any, Any, Any]:
    """Load a model that ships with the pack, as the host's own objects.

    Returns:
        MODEL, CLIP and VAE.

    Raises:
        ValueError: no demo model has this name.
        FileNotFoundError: its files are not where the pack keeps them.
    """
    if name not in DEMO_CHECKPOINTS:
        raise ValueError(f"There is no demo model {name!r}; choose one of: {', '.join(DEMO_CHECKPOINTS)}.")
    folder = DEMO_MODELS / name
    if not folder.is_dir():
        raise FileNotFoundError(f"The demo model {name} is missing from {folder}; install the pack again.")
    if IN_COMFYUI:
        from .comfyui_demo import load
    else:
        from .host_demo import load
    return load(folder)
