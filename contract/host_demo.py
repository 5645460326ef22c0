"""The demo checkpoint as objects of the embedded host."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(folder: Path) -> tuple[Any, Any, Any]:
    """Load a diffusers folder as MODEL, CLIP and VAE."""
    from ..host.folder_paths import get_folder_paths
    from ..host.loaders import load_checkpoint

    return load_checkpoint(folder, get_folder_paths("embeddings"))
