"""Models that ship with the pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import load_demo
from .protocols import Loaded

DEMO_MODELS = Path(__file__).parents[1] / "demo" / "models"
DEMO_CHECKPOINTS = ["texture-sd", "texture-flux"]
DEMO_ADAPTER = DEMO_MODELS / "texture-ip"


def demo_checkpoint(name: str) -> Loaded:
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
    model, clip, vae = load_demo(folder)
    _show_colours(model, folder)
    return model, clip, vae


def _show_colours(model: Any, folder: Path) -> None:
    """Tell a MODEL's previews the colours of its latents, which are not those of its family."""
    colours = json.loads((folder / "latent_colours.json").read_text(encoding="utf-8"))
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = colours["factors"], colours["bias"]
