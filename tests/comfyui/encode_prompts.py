"""Runs in ComfyUI's interpreter: encodes prompts with a checkpoint's CLIP, or with the demo model's.

    python encode_prompts.py COMFYUI PACK CHECKPOINT PROMPTS.json OUT.safetensors

CHECKPOINT is a file, or the name of a demo model. OUT gets `<number>.cond` and `<number>.pooled` for every prompt.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

comfyui, pack, checkpoint, prompts, out = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = [sys.argv[0], "--cpu", "--force-fp32"]

import comfy.options  # noqa: E402  # pyright: ignore[reportMissingImports]

comfy.options.enable_args_parsing()


def load_clip() -> Any:
    if Path(checkpoint).is_file():
        import comfy.sd  # pyright: ignore[reportMissingImports]

        return comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_model=False)[1]
    spec = importlib.util.spec_from_file_location("pack", f"{pack}/__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return importlib.import_module("pack.contract").demo_checkpoint(checkpoint)[1]


def main() -> None:
    import safetensors.torch

    clip = load_clip()
    encoded = {}
    for number, text in enumerate(json.loads(Path(prompts).read_text(encoding="utf-8"))):
        cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        encoded |= {f"{number}.cond": cond.contiguous().clone(), f"{number}.pooled": pooled.contiguous().clone()}
    safetensors.torch.save_file(encoded, out)


main()
