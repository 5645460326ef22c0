"""Memory and time of loading one file. Budgets: 1.1 times the file above the model itself, 1.3 times reading it.

The file is a Flux transformer with random weights in the layout of the original, whose fused layers are divided. Each
load runs in a fresh process that has loaded a small one before, beside one that reads the same bytes into memory and,
where the model computes in another precision, casts them, which no loader can spare. Both begin with the file outside
the page cache (Linux); processor time counts, so that load on the machine falls on neither. Memory
is the highest resident size while it loads, less that of the loaded model.

    python benchmarks/loading.py                    0.5 GB
    python benchmarks/loading.py --blocks 40        larger
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

MOST_MEMORY, MOST_TIME = 1.1, 1.3
TESTS = Path(__file__).parents[1] / "tests"
KINDS = {
    "float32 as it is": (torch.float32, "fp32"),
    "bfloat16 as it is": (torch.bfloat16, "bf16"),
    "bfloat16 to float32": (torch.bfloat16, "fp32"),
    "float8 to bfloat16": (torch.float8_e4m3fn, "bf16"),
}
"""The precision of the file, and that of the model."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHUNK = 2**24


def make(path: Path, dtype: torch.dtype, blocks: int, width: int = 1024) -> None:
    """Write a transformer with random weights in the original layout."""
    sys.path.insert(0, str(TESTS))
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from safetensors.torch import save_file
    from tessera.host.layouts.ldm_layout import flux_sources

    heads = width // 128
    config = {
        "num_layers": blocks,
        "num_single_layers": blocks,
        "attention_head_dim": 128,
        "num_attention_heads": heads,
    }
    config |= {"joint_attention_dim": 256, "pooled_projection_dim": 64, "guidance_embeds": True}
    with torch.device("meta"):
        module: Any = FluxTransformer2DModel.from_config(config)
    shapes = module.state_dict()
    parts: dict[str, list[torch.Tensor]] = {}
    for key, source in flux_sources(blocks, blocks, guidance=True).items():
        parts.setdefault(source.key, []).append(torch.rand(shapes[key].shape).to(dtype))
    save_file({key: torch.cat([each.view(torch.uint8) for each in found]).view(dtype) if dtype.itemsize == 1
               else torch.cat(found) for key, found in parts.items()}, path)  # fmt: skip


def resident(name: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, dtype: torch.dtype) -> list[torch.Tensor]:
    """The tensors of a file in a precision, one after another."""
    from tessera.weights.safetensors_files import read_header

    found = []
    with path.open("rb", buffering=0) as file:
        entries, _ = read_header(file)  # pyright: ignore[reportArgumentType]
        for entry in entries:
            stored = {"F32": torch.float32, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}[entry.dtype]
            content = torch.empty(entry.end - entry.start, dtype=torch.uint8)
            room: Any = content.numpy()
            view, place = memoryview(room), 0
            while place < len(view):
                place += file.readinto(view[place : place + CHUNK])
            found.append(content.view(stored).to(dtype))
    return found


def measure(way: str, path: Path, small: Path, precision: str) -> None:
    """Print the seconds and the bytes of one load, or of one reading."""
    from tessera.host.models.loaders import load_diffusion_model
    from tessera.host.runtime import devices

    devices.configure("cpu", precision)
    load_diffusion_model(small)
    forget(path)
    before, start = resident("VmRSS"), time.process_time()
    made = load_diffusion_model(path) if way == "load" else read(path, DTYPES[precision])
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "above": resident("VmHWM") - resident("VmRSS"), "before": before}))
    del made


def run(way: str, path: Path, small: Path, precision: str) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", way, str(path), str(small), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=4, help="of each kind")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, path, small, precision = options.measure
        return measure(way, Path(path), Path(small), precision)
    exceeded = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (stored, precision) in KINDS.items():
            path, small = Path(folder, "model.safetensors"), Path(folder, "small.safetensors")
            make(small, stored, 1, 128)
            make(path, stored, options.blocks)
            size = path.stat().st_size
            pairs = [
                (run("read", path, small, precision), run("load", path, small, precision)) for _ in range(options.pairs)
            ]
            ratio = statistics.median(ours["seconds"] / plain["seconds"] for plain, ours in pairs)
            memory = max(ours["above"] for _, ours in pairs) / size
            seconds = statistics.median(ours["seconds"] for _, ours in pairs)
            print(f"{kind}: {size / 1e9:.2f} GB, {memory:.2f} times the file above the model, {seconds:.2f} s, "
                  f"{ratio:.2f} times reading")  # fmt: skip
            exceeded += [kind] if memory > MOST_MEMORY or ratio > MOST_TIME else []
    print(
        f"budgets: {MOST_MEMORY} times the file, {MOST_TIME} times reading; "
        + (f"exceeded by {', '.join(exceeded)}" if exceeded else "held")
    )
    sys.exit(bool(exceeded))


if __name__ == "__main__":
    main()
