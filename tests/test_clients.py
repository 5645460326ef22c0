"""Clients written for ComfyUI by others, unchanged, make an image on `tessera serve`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from serving import process

ROOT = Path(__file__).parents[1]
SIMPLIFIED = """
import sys
from pathlib import Path
from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper

address, graph, image, folder = sys.argv[1:]
server = ComfyApiWrapper(address)
workflow = ComfyWorkflowWrapper(graph)
workflow.set_node_param("KSampler", "steps", 2)
for name, content in server.queue_and_wait_images(workflow, "The texture").items():
    Path(folder, name).write_bytes(content)
assert server.upload_image(image)["type"] == "input"
assert server.get_queue() == {"queue_running": [], "queue_pending": []}
"""
SCRIPT = """
import sys
from comfy_script.runtime import *

address, graph, image, folder = sys.argv[1:]
load(address + "/")
from comfy_script.runtime.nodes import *

with Workflow(wait=True):
    model, clip, vae = TesseraDemoCheckpoint("texture-sd")
    model, _ = TesseraSeamlessModel(model)
    text = CLIPTextEncode("blue and white waves", clip)
    latent = KSampler(model, 5, 2, 4, "euler", "normal", text, text, EmptyLatentImage(128, 128, 1), 1)
    saved = SaveImage(VAEDecode(latent, TesseraSeamlessVAE(vae)), "script")
saved.wait()[0].save(folder + "/script.png")
"""
CLIENTS = {"comfy_api_simplified": SIMPLIFIED, "comfy_script": SCRIPT}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    with process(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.mark.parametrize("package", CLIENTS)
def test_a_client_of_others_makes_an_image(address: str, package: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f'{package} is not installed: pip install comfy-api-simplified "comfy-script[client]"')
    graph = ROOT / "tests" / "workflows" / "seamless_texture.api.json"
    arguments = [address, str(graph), str(ROOT / "web" / "images" / "icon.png"), str(tmp_path)]
    # ComfyScript reads its own source.
    script = tmp_path / "script.py"
    script.write_text(CLIENTS[package])
    command = [sys.executable, str(script), *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    (made,) = tmp_path.glob("*.png")
    assert Image.open(made).size == (128, 128)
