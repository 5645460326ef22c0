"""Requests of hosted services, imported: bodies, and what their workflows hold."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.convert import Line, convert
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

PROMPT = {"prompt": "white and teal zigzag"}


SCENARIO = {**PROMPT, "modelId": "texture-sd"}


SEED = 11


def encoded(size: tuple[int, int] = (16, 16), kind: str = "PNG", colour: str = "teal") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


DATA_URL = f"data:image/png;base64,{encoded()}"


REFERENCE = {**SCENARIO, "ipAdapterImages": [DATA_URL, DATA_URL]}
GUIDANCE = {"image": {"id": DATA_URL, "type": "UPLOADED"}, "strength": "LOW"}


# Minimal, typical, and every parameter set, with values at the ends of their ranges.
BODIES: dict[str, list[dict[str, Any]]] = {
    "scenario-texture": [
        SCENARIO,
        SCENARIO | {"seed": "7", "width": 64, "height": 1024, "numSamples": 1, "numInferenceSteps": 1},
        SCENARIO | {"width": 1024, "height": 64, "numSamples": 128, "numInferenceSteps": 150, "guidance": 20},
        SCENARIO | {"negativePrompt": "((ugly))", "guidance": 0.5, "scheduler": "DDIMScheduler"},
        SCENARIO | {"modelId": "flux.1-dev", "guidance": 0},
        SCENARIO | {"modelId": "flux.1-dev", "negativePrompt": "blur", "negativePromptStrength": 10},
        SCENARIO | {"modelId": "flux.1.1-pro", "guidance": 2},
        SCENARIO | {"modelId": "stable-diffusion-xl-base-1.0", "width": 2048, "height": 512},
        SCENARIO | {"baseModelId": "flux.1-dev", "modelId": "my-lora", "modelEpoch": "5"},
        SCENARIO | {"concepts": [{"modelId": "a", "scale": 0.4}, {"modelId": "b"}]},
        SCENARIO | {"seed": 2**64 - 1, "hideResults": True, "intermediateImages": True, "originalAssets": "true"},
        SCENARIO | {"prompt": "", "seed": None, "scheduler": "LCMScheduler", "undocumented": [1]},
    ],
    "scenario-ip-adapter": [
        REFERENCE,
        SCENARIO,
        REFERENCE | {"ipAdapterScales": [0.0, 1.0], "ipAdapterType": "character"},
        REFERENCE | {"ipAdapterScales": [0.3]},
        SCENARIO | {"ipAdapterImage": DATA_URL, "ipAdapterScale": 0.2},
        SCENARIO | {"ipAdapterImageId": "asset_1", "ipAdapterScale": 1},
        SCENARIO | {"ipAdapterImageIds": ["asset_1", "asset_2"]},
        REFERENCE | {"ipAdapterImageIds": ["gone"], "ipAdapterImage": "gone"},
        SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": "16:9"},
        SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": "1:4", "width": 512},
        REFERENCE | {"modelId": "stable-diffusion-xl-base-1.0", "width": 1024, "height": 1024},
        REFERENCE | {"negativePrompt": "blur", "scheduler": "UniPCMultistepScheduler", "seed": 1, "guidance": 7.5},
    ],
    "scenario-img2img-texture": [
        SCENARIO | {"image": DATA_URL},
        SCENARIO | {"imageId": "asset_1", "maskId": "asset_2", "strength": 0.01},
        SCENARIO | {"image": DATA_URL, "mask": DATA_URL, "maskId": "gone", "strength": 1, "imageHide": True},
    ],
    "scenario-controlnet-texture": [
        SCENARIO | {"controlImage": DATA_URL, "modality": "canny"},
        SCENARIO | {"controlImageId": "asset_1", "modality": "canny:0.5,depth:1", "disableModalityDetection": False},
        SCENARIO | {"modelId": "flux.1-dev", "image": DATA_URL, "modality": "tile", "controlStart": 0.1},
        SCENARIO | {"image": DATA_URL, "modality": "city:0.2"},
    ],
    "scenario-texture-upscale": [
        {"image": DATA_URL},
        {"image": "asset_1", "upscaleFactor": 8, "loras": ["a", "b"], "lorasScale": [0.5], "strength": 0},
        {"image": DATA_URL, "imagePrompt": [DATA_URL] * 4, "preset": "creative", "baseModel": "FLUX.1-Krea-dev"},
    ],
    "scenario-texture-converter": [{"texture": DATA_URL}, {"texture": "asset_1", "raised": 1, "invert": True}],
    "modelslab": [
        PROMPT,
        PROMPT | {"width": "512", "height": "512", "samples": "1", "num_inference_steps": "31", "seed": None},
        PROMPT | {"scheduler": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver+++"},
        PROMPT | {"scheduler": "KDPM2DiscreteScheduler", "use_karras_sigmas": "no", "tomesd": "no"},
        PROMPT | {"init_image": encoded(), "strength": 0.5, "samples": 4},
        PROMPT | {"init_image": encoded(), "mask_image": encoded(colour="white"), "strength": 1, "base64": "yes"},
        PROMPT | {"init_image": "https://example.com/a.png?x=1", "strength": 0, "scheduler": "DDIMScheduler"},
        PROMPT | {"lora_model": "contrast-fix,yae-miko-genshin", "lora_strength": "0.1,1", "vae": "x", "clip_skip": 8},
        PROMPT | {"lora_model": "a, b", "lora_strength": 0.5, "clip_skip": "1", "temp": "yes"},
        PROMPT | {"safety_checker": "no", "enhance_prompt": "no", "safety_checker_type": "pixelate", "key": "k"},
        PROMPT | {"model_id": "texture-sd", "width": 1024, "height": 1020, "guidance_scale": 20, "samples": 1},
        PROMPT | {"webhook": "https://example.com/hook", "track_id": "5", "negative_prompt": "blur", "seed": 0},
    ],
    "modelslab-community": [PROMPT, PROMPT | {"panorama": "yes", "upscale": "yes", "num_inference_steps": 30}],
    "modelslab-controlnet": [
        PROMPT,
        PROMPT | {"controlnet_model": "canny,depth", "init_image": DATA_URL, "auto_hint": "yes", "guess_mode": "yes"},
        PROMPT | {"controlnet_type": "pose", "control_image": DATA_URL, "init_image": DATA_URL, "strength": 0.3},
    ],
    "octoai": [
        PROMPT,
        PROMPT | {"width": 640, "height": 1536, "cfg_scale": 50, "steps": 200, "num_images": 64},
        PROMPT | {"checkpoint": "v1-5", "width": 768, "height": 576, "sampler": "K_EULER_ANCESTRAL"},
        PROMPT | {"seed": 1, "sampler": "DPM_PLUS_PLUS_2M_KARRAS", "steps": 1},
        PROMPT | {"seed": [1, 2**32 - 1, 5]},
        PROMPT | {"init_image": encoded(), "strength": 1, "num_images": 2},
        PROMPT | {"init_image": encoded(), "mask_image": encoded(), "outpainting": True, "strength": 0.01},
        PROMPT | {"ip_adapter_image": encoded(), "ip_adapter_mask_image": encoded(), "ip_adapter_method": "style"},
        PROMPT | {"loras": {"a": 0.5, "b": None}, "textual_inversions": {"zig": "zigzag", "c": None}, "vae": "v"},
        PROMPT | {"prompt_2": "moss", "negative_prompt": "a", "negative_prompt_2": "b", "style_preset": "anime"},
        PROMPT | {"use_refiner": True, "high_noise_frac": 0.5, "image_encoding": "jpeg", "clip_skip": 23},
        PROMPT | {"controlnet": "canny", "controlnet_image": encoded(), "transfer_images": {"x": [encoded()]}},
    ],
    "leonardo": [
        PROMPT,
        PROMPT | {"width": 32, "height": 32, "num_images": 8, "num_inference_steps": 10, "tiling": True},
        PROMPT | {"width": 1536, "height": 1536, "num_images": 4, "num_inference_steps": 60, "guidance_scale": 20},
        PROMPT | {"alchemy": False, "presetStyle": "LEONARDO", "scheduler": "KLMS", "seed": 9999999998},
        PROMPT | {"sd_version": "FLUX_DEV", "seed": 2147483637, "guidance_scale": 1, "ultra": False},
        PROMPT | {"init_image_id": "asset_1", "init_strength": 0.1, "num_images": 2},
        PROMPT | {"canvasRequest": True, "canvasRequestType": "INPAINT", "canvasInitId": "a", "canvasMaskId": "b"},
        PROMPT | {"imagePrompts": ["asset_1", "asset_2"], "imagePromptWeight": 0.4},
        PROMPT | {"photoReal": True, "photoRealVersion": "v2", "photoRealStrength": 0.45, "presetStyle": "ANIME"},
        PROMPT | {"unzoom": True, "unzoomAmount": 0.5, "init_image_id": "a", "upscaleRatio": 2, "contrastRatio": 1},
        PROMPT | {"unzoom": True, "unzoomAmount": 1e9, "init_image_id": "a", "width": 32, "highContrast": True},
        PROMPT | {"highResolution": True, "width": 64, "height": 64, "scheduler": "DDIM"},
        PROMPT | {"promptMagic": True, "promptMagicStrength": 1, "promptMagicVersion": "v3", "enhancePrompt": True},
        PROMPT | {"elements": [{"akUUID": "a", "weight": 1}], "userElements": [{"userLoraId": 5, "weight": 0.2}]},
        PROMPT | {"controlNet": True, "controlNetType": "POSE", "weighting": 0.5, "contrast": 4.5, "public": False},
    ],
    "leonardo-v2": [
        PROMPT | {"model": "phoenix-v1.0"},
        {"model": "flux-dev", "public": True, "parameters": PROMPT | {"seed": 2**32 - 1, "quantity": 8}},
        PROMPT | {"model": "lucid-realism", "style_ids": ["gone"], "mode": "ULTRA", "contrast": "LOW", "width": 70},
        PROMPT
        | {"model": "flux-pro-2.0", "image_reference": [GUIDANCE] * 6, "style": [GUIDANCE | {"strength": "MAX"}]},
        PROMPT | {"model": "texture-sd", "image_to_image": [GUIDANCE], "tiling": True, "prompt_enhance": "ON"},
    ],
}


def nodes_in(root: Path) -> Iterator[ObjectInfo]:
    """The nodes, with no models beside those that ship; images go to root/input."""
    folder_paths.configure(str(root / "models"), str(root / "input"), str(root / "output"))
    Path(folder_paths.get_input_directory()).mkdir()
    yield ObjectInfo(node_classes())
    folder_paths.configure()


def imported(
    name: str, body: Any, info: ObjectInfo, files: dict[str, Path] | None = None, **options: Any
) -> tuple[dict[str, Any], list[Line], dict[str, Any]]:
    """The drawing, the report and the API graph of a request, whose images lie in the input folder."""
    found = RequestImages(files or {})
    drawing, lines = convert(SERVICES[name], body, info, found, SEED, **options)
    for file, content in found.found.items():
        (Path(folder_paths.get_input_directory()) / file).write_bytes(content)
    return drawing, lines, to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)


def of_class(prompt: dict[str, Any], *class_types: str) -> dict[str, Any]:
    """The inputs of the only node of these classes."""
    (found,) = [node["inputs"] for node in prompt.values() if node["class_type"] in class_types]
    return found


def sampler(prompt: dict[str, Any]) -> dict[str, Any]:
    return of_class(prompt, "KSampler", "TesseraSchedulerKSampler")


def outcomes(lines: list[Line]) -> dict[str, str]:
    return {line.name: line.outcome for line in lines}


def with_files(info: ObjectInfo, **lists: list[str]) -> dict[str, Any]:
    """The nodes as they are where models lie: the first list of each loader offers these files."""
    changed = {node_id: copy.deepcopy(entry) for node_id, entry in info.items()}
    for class_type, files in lists.items():
        for name, kind in changed[class_type]["input"]["required"].items():
            if name.endswith(("_name", "_name1", "_name2")):
                kind[1]["options"] = files
    return changed
