"""Seconds that the pack adds to the start of its host, beyond torch. Budget: 0.2 s, for the first start, too.

The first start compiles the pack's files, which later ones read back; both are measured in fresh interpreters with a
cache of their own, whatever PYTHONDONTWRITEBYTECODE says, in processor time, and the median counts. Python's garbage
collector goes over all of torch's objects once in a while, and whether that falls into a time as short as this is
chance, so it is measured apart: what it takes belongs to whatever is imported next after torch.

    python benchmarks/import_time.py                      beside the embedded host
    python benchmarks/import_time.py --comfyui PATH       inside a ComfyUI checkout, beyond ComfyUI's own modules
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BUDGET = 0.2
ROOT = Path(__file__).parents[1]
MEASURE = """
import asyncio, gc, importlib.util, sys, time
import torch, numpy, PIL.Image
comfyui = {comfyui!r}
if comfyui:
    sys.path.insert(0, comfyui)
    sys.argv = ["", "--cpu"]
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy_api.latest, comfy.samplers, comfy.sd, folder_paths, latent_preview
start = time.process_time()
gc.collect()
collector = time.process_time() - start
gc.freeze()
start = time.process_time()
spec = importlib.util.spec_from_file_location("pack", {door!r})
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
[node.GET_NODE_INFO_V1() for node in nodes]
print(time.process_time() - start, collector)
"""


def seconds(python: str, comfyui: str | None, cache: str) -> tuple[float, float]:
    """Seconds from opening the door to having every node's description, and of the collector, in a fresh interpreter.

    Args:
        cache: the folder of compiled files; an empty one makes it a first start.
    """
    code = MEASURE.format(comfyui=comfyui, door=str(ROOT / "__init__.py"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=environment)
    pack, collector = map(float, done.stdout.split()[-2:])
    return pack, collector


def starts(python: str, comfyui: str | None, runs: int) -> tuple[float, float, float]:
    """Seconds of a first start, of a later one, and of the collector: medians.

    The host's own files are compiled before either, by a run that is not counted.
    """
    first, later = [], []
    with tempfile.TemporaryDirectory() as cache:
        seconds(python, comfyui, cache)
        compiled = Path(cache, *ROOT.parts[1:])
        for _ in range(runs):
            for file in compiled.rglob("*.pyc"):
                file.unlink()
            first.append(seconds(python, comfyui, cache))
            later.append(seconds(python, comfyui, cache))
    packs = (statistics.median(pack for pack, _ in each) for each in (first, later))
    return *packs, statistics.median(collector for _, collector in first + later)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of that ComfyUI")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    *packs, collector = starts(args.python, args.comfyui, args.runs)
    for name, found in zip(("first", "later"), packs, strict=True):
        print(f"{name} start {found:.3f} s, budget {BUDGET} s: {'within' if found <= BUDGET else 'OVER'}")
    print(f"a garbage collection over the host's objects: {collector:.3f} s")


if __name__ == "__main__":
    main()
