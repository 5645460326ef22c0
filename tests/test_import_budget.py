"""The pack imports at once: nothing heavy comes with it. Seconds are measured by benchmarks/import_time.py."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import asyncio, sys
import tessera
assert "torch" not in sys.modules, "the door itself imports torch"
nodes = asyncio.run(asyncio.run(tessera.comfy_entrypoint()).get_node_list())
[node.GET_NODE_INFO_V1() for node in nodes]
print(len(nodes), *sorted(sys.modules))
"""
LATER = {"tessera.host.samplers", "tessera.host.core_nodes", "tessera.host.ldm_layout", "PIL.ImageDraw"}
HEAVY = {"diffusers", "transformers", "scipy", "peft", "accelerate", "huggingface_hub", "tokenizers", "torchsde"}


def test_pack_imports_nothing_heavy() -> None:
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    assert (looked.returncode, looked.stderr) == (0, ""), "the pack failed to import, or is not quiet"
    count, *modules = looked.stdout.split()
    assert int(count) > 0
    assert not HEAVY & {name.split(".")[0] for name in modules}
    assert not LATER & set(modules), "what only a run needs is imported at the start"
