"""Folders of models that are the pack's own, beside those that every host knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OWN = ("ipadapter", "safety_checker", "text_generation", "controlnet_aux")


def register(folder_paths: Any) -> None:
    """Add the pack's folders to a host's `folder_paths`, where another pack has not done it."""
    for name in OWN:
        if name not in folder_paths.folder_names_and_paths:
            folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
