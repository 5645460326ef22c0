"""The real ComfyUI's MODEL, CLIP and VAE have what `contract.protocols` says the pack uses."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from pathlib import Path

import pytest
from comfyui.server import python_of
from tessera.contract import protocols

if "COMFYUI_PATH" not in os.environ:
    reason = "no COMFYUI_PATH: set it to a ComfyUI checkout to look at its classes"
    pytest.skip(reason, allow_module_level=True)

pytestmark = pytest.mark.comfyui

CLASSES = {"MODEL": "comfy.model_patcher.ModelPatcher", "CLIP": "comfy.sd.CLIP", "VAE": "comfy.sd.VAE"}
LOOK = """
import importlib, inspect, json, sys
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
found = {}
for path in json.loads(sys.stdin.read()):
    module, name = path.rsplit(".", 1)
    each = getattr(importlib.import_module(module), name)
    methods = {n: list(inspect.signature(m).parameters) for n, m in inspect.getmembers(each, inspect.isfunction)}
    found[path] = {"methods": methods, "init": inspect.getsource(each.__init__)}
print(json.dumps(found))
"""


def test_its_classes_have_what_the_pack_uses() -> None:
    checkout = Path(os.environ["COMFYUI_PATH"]).resolve()
    command = [python_of(checkout), "-c", LOOK, str(checkout)]
    done = subprocess.run(
        command, input=json.dumps(list(CLASSES.values())), capture_output=True, text=True, check=False, cwd=checkout
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for kind, path in CLASSES.items():
        protocol = getattr(protocols, kind)
        for name, method in vars(protocol).items():
            if inspect.isfunction(method) and not name.startswith("_"):
                wanted = list(inspect.signature(method).parameters)
                assert found[path]["methods"].get(name, [])[: len(wanted)] == wanted, f"{path}.{name}"
        for name in protocol.__annotations__:
            assert f"self.{name}" in found[path]["init"], f"{path}.{name}"
