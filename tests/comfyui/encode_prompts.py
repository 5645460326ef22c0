"""Runs in ComfyUI's interpreter: encodes prompts with a checkpoint's CLIP, or with the demo model's.

    python encode_prompts.py COMFYUI PACK CHECKPOINT PROMPTS.json OUT.safetensors

CHECKPOINT is a file, or the name of a demo model. OUT gets `<number>.cond` and `<number>.pooled` for every prompt.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from inside import load_pack, start

comfyui, pack, checkpoint, prompts, out = sys.argv[1:]
start(comfyui)


def load_clip() -> Any:
    if Path(checkpoint).is_file():
        import comfy.sd  # pyright: ignore[reportMissingImports]

        return comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False, output_model=False)[1]
    load_pack(pack)
    return importlib.import_module("pack.contract.demo").demo_checkpoint(checkpoint)[1]


def main() -> None:
    import safetensors.torch

    clip = load_clip()
    encoded = {}
    for number, text in enumerate(json.loads(Path(prompts).read_text(encoding="utf-8"))):
        cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        encoded |= {f"{number}.cond": cond.contiguous().clone(), f"{number}.pooled": pooled.contiguous().clone()}
    safetensors.torch.save_file(encoded, out)


main()
