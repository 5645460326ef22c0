"""The pack imports at once: nothing heavy comes with it. Seconds are measured by benchmarks/import_time.py."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
import tessera
assert "torch" not in sys.modules, "the door itself imports torch"
from tessera.nodes import NODES
[node.GET_NODE_INFO_V1() for node in NODES]
print(len(NODES), *sorted(sys.modules))
"""
LATER = {
    "tessera.host.sampling.ksampler",
    "tessera.host.sampling.samplers",
    "tessera.host.nodes",
    "tessera.host.layouts.ldm_layout",
    "PIL.ImageDraw",
}
HEAVY = {"diffusers", "transformers", "scipy", "peft", "accelerate", "huggingface_hub", "tokenizers", "torchsde"}


def test_pack_imports_nothing_heavy() -> None:
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    assert (looked.returncode, looked.stderr) == (0, ""), "the pack failed to import, or is not quiet"
    count, *modules = looked.stdout.split()
    assert int(count) > 0
    assert not HEAVY & {name.split(".")[0] for name in modules}
    assert not LATER & set(modules), "what only a run needs is imported at the start"
