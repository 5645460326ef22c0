"""What scripts need that run in ComfyUI's interpreter: ComfyUI itself, on the CPU, and the pack."""

from __future__ import annotations

import importlib.util
import sys


def start(comfyui: str) -> None:
    """Let `comfy` be imported from the folder `comfyui`, with the options of the reference."""
    sys.path.insert(0, comfyui)
    sys.argv = [sys.argv[0], "--cpu", "--force-fp32"]

    import comfy.options  # pyright: ignore[reportMissingImports]

    comfy.options.enable_args_parsing()


def load_pack(folder: str) -> None:
    """Import the pack as ComfyUI does; its modules are `pack.nodes`, `pack.contract`, ..."""
    spec = importlib.util.spec_from_file_location("pack", f"{folder}/__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("pack.contract").choose("comfyui")
