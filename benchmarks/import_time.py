"""Seconds that the pack adds to the start of its host, beyond torch. Budget: 0.2 s.

Each measurement is a fresh interpreter; the lowest of them counts, since other load only adds.

    python benchmarks/import_time.py                      beside the embedded host
    python benchmarks/import_time.py --comfyui PATH       inside a ComfyUI checkout, beyond ComfyUI's own modules
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BUDGET = 0.2
ROOT = Path(__file__).parents[1]
MEASURE = """
import asyncio, importlib.util, sys, time
import torch, numpy, PIL.Image
comfyui = {comfyui!r}
if comfyui:
    sys.path.insert(0, comfyui)
    sys.argv = ["", "--cpu"]
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy_api.latest, comfy.samplers, comfy.sd, folder_paths, latent_preview
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", {door!r})
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
[node.GET_NODE_INFO_V1() for node in nodes]
print(time.perf_counter() - start)
"""


def seconds(python: str, comfyui: str | None) -> float:
    """Seconds from opening the door to having every node's description, in a fresh interpreter."""
    code = MEASURE.format(comfyui=comfyui, door=str(ROOT / "__init__.py"))
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of that ComfyUI")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    found = min(seconds(args.python, args.comfyui) for _ in range(args.runs))
    print(f"{found:.3f} s, budget {BUDGET} s: {'within' if found <= BUDGET else 'OVER'}")


if __name__ == "__main__":
    main()
