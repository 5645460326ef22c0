"""`tessera import`: request bodies become workflows that are valid, whole, and do what the request asked."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services import images
from tessera.app.services.build import LONE_BACKSLASH, literal, named_file
from tessera.app.services.convert import Line, convert
from tessera.app.services.images import RequestImages
from tessera.app.services.parameters import APPROXIMATED, FAMILIES, MAPPED, MEANINGLESS, NO_EFFECT, NOT_YET, UNKNOWN
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.dynamic_prompts import dynamic_prompt
from tessera.host.graph.validation import validate
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
}
EVERY = [pytest.param(name, body, id=f"{name}-{i}") for name, bodies in BODIES.items() for i, body in enumerate(bodies)]
bodies = pytest.mark.parametrize(("name", "body"), EVERY)


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> ObjectInfo:
    root = tmp_path_factory.mktemp("importer")
    folder_paths.configure(str(root / "models"), str(root / "input"), str(root / "output"))
    Path(folder_paths.get_input_directory()).mkdir()
    return ObjectInfo(node_classes())


@pytest.fixture
def own_folders() -> Iterator[None]:
    """The command line sets its own folders; afterwards they are those of `info` again."""
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    yield
    folder_paths.configure(*before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The images that names in the bodies stand for."""
    image = tmp_path_factory.mktemp("images") / "image.jpg"
    image.write_bytes(base64.b64decode(encoded(kind="JPEG")))
    return dict.fromkeys(["asset_1", "asset_2", "a", "b", "https://example.com/a.png?x=1"], image)


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


@bodies
def test_request_becomes_a_valid_workflow(
    name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]
) -> None:
    _, lines, prompt = imported(name, body, info, files)
    # A fresh one: the lists of files are read anew.
    checked, outputs = validate(prompt, ObjectInfo(info.classes))
    assert len(checked) == len(prompt)
    assert len(outputs) == (3 if "texture" in body else 1 + bool(body.get("intermediateImages")))
    said = outcomes(lines)
    assert {key for key, value in body.items() if value is not None} <= said.keys()


@bodies
def test_the_report_is_true(name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]) -> None:
    """What is said to be somewhere is there, with its value where nothing is said of a change."""
    _, lines, prompt = imported(name, body, info, files)
    known = SERVICES[name].table()
    for line in lines:
        places = re.findall(r"node (\d+) (\w+)\.(\w+)", line.text)
        found = [prompt[number]["inputs"][entry] for number, _, entry in places]
        assert all(prompt[number]["class_type"] == kind for number, kind, _ in places)
        assert (line.outcome == UNKNOWN) == (line.name not in known)
        assert line.text or line.outcome in (MAPPED, APPROXIMATED)
        is_plain = line.outcome == MAPPED and line.name in body and not known[line.name].how and len(found) == 1
        # With unzoom, the size is that of the image and its margin together.
        if is_plain and known[line.name].type in (int, float) and "unzoom" not in body:
            assert float(body[line.name]) == found[0], line


@bodies
def test_drawing_is_whole_and_runs_from_left_to_right(
    name: str, body: dict[str, Any], info: ObjectInfo, files: dict[str, Path]
) -> None:
    drawing, _, prompt = imported(name, body, info, files)
    nodes = {node["id"]: node for node in drawing["nodes"]}
    assert drawing["last_node_id"] == max(nodes)
    for number, source, out_slot, target, in_slot, kind in drawing["links"]:
        output, entry = nodes[source]["outputs"][out_slot], nodes[target]["inputs"][in_slot]
        assert number in output["links"]
        assert entry["link"] == number
        assert output["type"] == entry["type"] == kind
        assert nodes[source]["pos"][0] + nodes[source]["size"][0] < nodes[target]["pos"][0]
        assert prompt[str(target)]["inputs"][entry["name"]] == [str(source), out_slot]
    boxes = [
        (*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in nodes.values()
    ]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
            assert apart


def test_values_reach_the_nodes(info: ObjectInfo) -> None:
    body = SCENARIO | {"seed": "7", "width": 128, "height": 64, "numSamples": 2, "numInferenceSteps": 9, "guidance": 4}
    _, lines, prompt = imported("scenario-texture", body | {"negativePrompt": "blur"}, info)
    sampled = sampler(prompt)
    assert {key: sampled[key] for key in ("seed", "steps", "cfg", "denoise")} == {
        "seed": 7,
        "steps": 9,
        "cfg": 4,
        "denoise": 1.0,
    }
    assert of_class(prompt, "EmptyLatentImage") == {"width": 128, "height": 64, "batch_size": 2}
    texts = [prompt[sampled[side][0]]["inputs"]["text"] for side in ("positive", "negative")]
    assert texts == [PROMPT["prompt"], "blur"]
    assert prompt[sampled["model"][0]]["class_type"] == "TesseraSeamlessModel"
    assert set(outcomes(lines).values()) == {MAPPED, MEANINGLESS}
    line = next(line for line in lines if line.name == "numInferenceSteps")
    node_id = next(node_id for node_id, node in prompt.items() if node["class_type"] == "KSampler")
    assert str(line) == f"numInferenceSteps: mapped; node {node_id} KSampler.steps"


def test_strength_runs_the_steps_that_the_services_run(info: ObjectInfo) -> None:
    body = PROMPT | {"init_image": encoded(), "strength": 0.5, "num_inference_steps": 21, "width": 64, "height": 64}
    sampled = sampler(imported("modelslab", body, info)[2])
    assert (sampled["steps"], sampled["denoise"]) == (10, 0.5)
    body = PROMPT | {"init_image_id": "x", "init_strength": 0.1, "scheduler": "LEONARDO", "num_inference_steps": 20}
    image = Path(folder_paths.get_input_directory()) / "own.png"
    image.write_bytes(base64.b64decode(encoded()))
    sampled = sampler(imported("leonardo", body, info, {"x": image})[2])
    assert sampled["denoise"] == pytest.approx(0.9)


def test_guidance_below_one_does_without_the_negative_prompt(info: ObjectInfo) -> None:
    _, lines, prompt = imported("scenario-texture", SCENARIO | {"guidance": 0.2, "negativePrompt": "blur"}, info)
    assert sampler(prompt)["cfg"] == 1.0
    assert outcomes(lines)["negativePrompt"] == NO_EFFECT
    assert "blur" not in [node["inputs"].get("text") for node in prompt.values()]


def test_lists_of_references_go_before_their_deprecated_forms(info: ObjectInfo) -> None:
    body = SCENARIO | {"ipAdapterImages": [DATA_URL], "ipAdapterImage": "gone", "ipAdapterScale": 0.1}
    _, lines, _ = imported("scenario-ip-adapter", body | {"ipAdapterScales": [0.7]}, info)
    said = {line.name: str(line) for line in lines}
    assert "ignored beside ipAdapterImages" in said["ipAdapterImage"]
    assert "deprecated, use ipAdapterImages" in said["ipAdapterImage"]
    assert "ignored beside ipAdapterScales" in said["ipAdapterScale"]


@pytest.mark.parametrize(("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1360, 768)), ("1:4", (512, 2048))])
def test_aspect_ratio_gives_a_size(info: ObjectInfo, ratio: str, size: tuple[int, int]) -> None:
    body = SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": ratio}
    latent = of_class(imported("scenario-ip-adapter", body, info)[2], "EmptyLatentImage", "EmptySD3LatentImage")
    assert (latent["width"], latent["height"]) == size


@pytest.mark.parametrize("ratio", ["16x9", "0:1", "1:5", "9" * 5000, ""])
def test_wrong_aspect_ratio_is_refused(info: ObjectInfo, ratio: str) -> None:
    with pytest.raises(GraphError, match="aspectRatio"):
        imported("scenario-ip-adapter", SCENARIO | {"modelId": "flux.1.1-pro-ultra", "aspectRatio": ratio}, info)


def test_strict_refuses_what_is_not_done(info: ObjectInfo) -> None:
    imported("scenario-texture", SCENARIO | {"intermediateImages": False, "hideResults": True}, info, strict=True)
    with pytest.raises(GraphError) as caught:
        imported(
            "leonardo", PROMPT | {"modelId": "x", "presetStyle": "ANIME", "contrast": 2.5, "typo": 1}, info, strict=True
        )
    assert [line.partition(":")[0] for line in caught.value.lines] == ["contrast", "modelId", "presetStyle", "typo"]


@pytest.mark.usefixtures("embedding")
def test_styles_and_triggers_change_the_prompt(info: ObjectInfo) -> None:
    body = PROMPT | {"style_preset": "anime", "textual_inversions": {"zig": "zigzag"}, "prompt_2": "moss"}
    sampled = imported("octoai", body, info)[2]
    text = sampled[sampler(sampled)["positive"][0]]["inputs"]["text"]
    assert text.startswith("white and teal embedding:zig, moss, anime drawing")


@given(st.text() | st.text("\\{}|a ", max_size=12))
def test_prompt_arrives_as_it_was_sent(text: str) -> None:
    sent = text.replace("/", "")
    parted = LONE_BACKSLASH.sub(r"\1 ", sent)
    assert dynamic_prompt(literal(sent)) == parted
    assert parted == sent or "\\" in sent


def test_a_backslash_before_a_brace_is_parted_from_it() -> None:
    assert dynamic_prompt(literal(r"a \{b|c} \\{d}")) == r"a \ {b|c} \\{d}"


def test_comment_signs_stay_in_a_prompt() -> None:
    assert dynamic_prompt(literal("see http://a.b /* c */")) == "see http:/ /a.b / * c */"


def test_files_are_found_by_their_names() -> None:
    files = ["sd/Moss_v2.safetensors", "other.ckpt"]
    assert named_file("moss_v2", files) == named_file("sd/moss_v2", files) == files[0]
    assert named_file("Other.ckpt", files) == files[1]
    assert named_file("moss", files) is named_file("", files) is None


def refused_image(value: str, files: dict[str, Path] | None = None) -> str:
    with pytest.raises(GraphError) as caught:
        RequestImages(files or {})("init_image", value)
    (line,) = caught.value.lines
    return line


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_kept_byte_for_byte(kind: str) -> None:
    found = RequestImages({})
    text = encoded(kind=kind)
    name = found("init_image", f"data:image/{kind.lower()};base64,{text}")
    assert found("mask_image", text) == name
    assert found.found == {name: base64.b64decode(text)}


def test_images_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused_image("https://example.com/a.png").endswith("or --image https://example.com/a.png=FILE")
    assert "nothing is fetched" in refused_image("data:image/png;base64,%%%")
    assert "no readable image" in refused_image(base64.b64encode(bytes(100)).decode())
    assert "no readable image" in refused_image(encoded((64, 64), "BMP"))
    cut = base64.b64encode(base64.b64decode(encoded((300, 300)))[:-400]).decode()
    assert "no readable image" in refused_image(cut)
    assert "expected an image" in refused_image("a", {"a": tmp_path / "missing.png"})
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    assert "more than 50 bytes" in refused_image(encoded())
    big = tmp_path / "big.png"
    big.write_bytes(bytes(51))
    assert "more than 50 bytes" in refused_image("a", {"a": big})


def test_strength_beyond_every_number_is_refused(info: ObjectInfo) -> None:
    with pytest.raises(GraphError, match="expected a number from 0 to 2"):
        imported("leonardo", PROMPT | {"controlnets": [{"initImageId": "a", "weight": 10**400}]}, info)


def test_images_are_counted(info: ObjectInfo) -> None:
    samples = {"teal": [encoded()] * 100, "zigzag": [encoded()] * 29}
    with pytest.raises(GraphError, match=naming("more than", 128)):
        imported("octoai", PROMPT | {"transfer_images": samples}, info)


@pytest.mark.parametrize("side", [8200, 10_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_read(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(10))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    assert "pixels" in refused_image(base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DATA_URL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", SERVICES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_object_gives_a_valid_workflow_or_lines(name: str, info: ObjectInfo, data: st.DataObject) -> None:
    known = data.draw(st.sampled_from(BODIES[name]))
    changes = data.draw(
        st.dictionaries(st.sampled_from(list(SERVICES[name].table())) | st.text(max_size=5), JSON, max_size=3)
    )
    options = {"strict": data.draw(st.booleans()), "family": data.draw(st.sampled_from([None, *FAMILIES]))}
    try:
        _, lines, prompt = imported(name, known | changes, info, **options)
    except GraphError as error:
        assert error.lines
        assert all(line.isprintable() and not line.startswith("node ") for line in error.lines)
    else:
        assert all(str(line).isprintable() for line in lines)
        validate(prompt, ObjectInfo(info.classes))


TINY = {"width": 64, "height": 64, "numInferenceSteps": 2}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "scenario-texture": ("scenario-texture", SCENARIO | TINY | {"numSamples": 2}),
    "flux": (
        "scenario-texture",
        SCENARIO
        | TINY
        | {"modelId": "flux.1-dev", "negativePrompt": "red", "negativePromptStrength": 4, "numSamples": 1},
    ),
    "scenario-ip-adapter": ("scenario-ip-adapter", REFERENCE | TINY | {"numSamples": 1}),
    "modelslab": (
        "modelslab",
        PROMPT | {"width": 64, "height": 64, "num_inference_steps": 21, "init_image": DATA_URL, "strength": 0.1},
    ),
    "leonardo": ("leonardo", PROMPT | {"width": 64, "height": 64, "num_images": 1, "num_inference_steps": 10}),
}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(("name", "body"), SMALL.values(), ids=SMALL)
def test_imported_request_runs_on_the_demo_model(
    name: str, body: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, workflow = tmp_path / "request.json", tmp_path / "workflow.json"
    request.write_text(json.dumps(body))
    folders = ["--input-dir", str(tmp_path / "input"), "--models-dir", str(tmp_path)]
    assert main(["import", name, str(request), "-o", str(workflow), "--seed", "3", *folders]) == 0
    said = capsys.readouterr().out
    assert "prompt: mapped; node " in said
    note = json.loads(workflow.read_text())["nodes"][-1]
    assert note["widgets_values"] == [said.rstrip("\n")]
    assert main(["run", str(workflow), "--device", "cpu", "--output-dir", str(tmp_path / "out"), *folders]) == 0
    saved = capsys.readouterr().out.splitlines()
    assert len(saved) == body.get("numSamples", 1)
    with Image.open(saved[0]) as image:
        assert image.size == (64, 64)


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("{", [], "not JSON"),
        ("[" * 100_000, [], "nested too deeply"),
        ("[]", [], "expected the JSON object"),
        ("[" * 100 + "]" * 100, [], "lists more than 32 deep"),
        ('{"prompt": "\\ud800", "modelId": "a"}', [], "prompt: found half of a surrogate pair"),
        ("{}", [], "prompt: missing"),
        (json.dumps(SCENARIO), ["--image", "x"], "expected NAME=FILE"),
        (json.dumps(SCENARIO), ["--seed", "-1"], "--seed: found -1"),
        (json.dumps(SCENARIO), ["-o", "."], "expected the file to write"),
        (json.dumps(SCENARIO), ["-o", "/"], "expected the file to write"),
        (json.dumps(SCENARIO | {"modelId": "flux", "negativePrompt": "a"}), [], "negativePromptStrength: missing"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    content: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = tmp_path / "request.json"
    request.write_text(content)
    code = main(["import", "scenario-texture", str(request), "-o", str(tmp_path / "w.json"), *options])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "w.json").exists()


def test_report_has_a_line_for_each_parameter(info: ObjectInfo) -> None:
    body = SCENARIO | {"baseModelId": "texture-sd", "modelId": "a\nb\u2028c", "modelEpoch": "\r1", "new\nname": 1}
    drawing, lines, _ = imported("scenario-texture", body, info)
    assert all(str(line).isprintable() for line in lines)
    assert len(drawing["nodes"][-1]["widgets_values"][0].splitlines()) == len(lines)


def with_files(info: ObjectInfo, **lists: list[str]) -> dict[str, Any]:
    """The nodes as they are where models lie: the first list of each loader offers these files."""
    changed = {node_id: copy.deepcopy(entry) for node_id, entry in info.items()}
    for class_type, files in lists.items():
        for name, kind in changed[class_type]["input"]["required"].items():
            if name.endswith(("_name", "_name1", "_name2")):
                kind[1]["options"] = files
    return changed


def test_flux_is_loaded_in_parts(info: ObjectInfo) -> None:
    encoders = ["clip_l.safetensors", "t5xxl_fp16.safetensors"]
    parts = {"UNETLoader": ["flux1-dev.safetensors"], "DualCLIPLoader": encoders, "VAELoader": ["ae.safetensors"]}
    body = SCENARIO | {"modelId": "flux1-dev", "guidance": 2.5}
    _, lines, prompt = imported("scenario-texture", body, with_files(info, **parts))  # pyright: ignore[reportArgumentType]
    assert of_class(prompt, "DualCLIPLoader")["clip_name2"] == encoders[1]
    assert of_class(prompt, "FluxGuidance")["guidance"] == 2.5
    assert sampler(prompt)["cfg"] == 1.0
    assert outcomes(lines)["modelId"] == MAPPED
    said = next(line.text for line in lines if line.name == "guidance")
    assert "FluxGuidance.guidance" in said
    assert "cfg" not in said
    assert of_class(prompt, "EmptySD3LatentImage")["width"] == 512


def test_refiner_goes_on_where_the_first_model_stops(info: ObjectInfo) -> None:
    files = {"CheckpointLoaderSimple": ["base_xl.safetensors", "sd_xl_refiner_1.0.safetensors"]}
    body = PROMPT | {"checkpoint": "base_xl", "use_refiner": True, "steps": 40, "seed": 5}
    _, lines, prompt = imported("octoai", body, with_files(info, **files))  # pyright: ignore[reportArgumentType]
    first, second = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSamplerAdvanced"]
    assert (first["start_at_step"], first["end_at_step"], first["add_noise"]) == (0, 32, "enable")
    assert (second["start_at_step"], second["end_at_step"], second["add_noise"]) == (32, 40, "disable")
    assert first["return_with_leftover_noise"] == "enable"
    assert prompt[second["model"][0]]["inputs"]["ckpt_name"] == files["CheckpointLoaderSimple"][1]
    said = outcomes(lines)
    assert {said[name] for name in ("use_refiner", "high_noise_frac", "steps", "seed", "cfg_scale")} == {MAPPED}


def test_refiner_that_is_missing_is_said(info: ObjectInfo) -> None:
    _, lines, _ = imported("octoai", PROMPT | {"use_refiner": True, "high_noise_frac": 0.5}, info)
    said = {line.name: line for line in lines}
    assert said["use_refiner"].outcome == NOT_YET
    assert "models/checkpoints" in said["use_refiner"].text


def test_what_flux_does_not_take_is_said(info: ObjectInfo) -> None:
    flux = {"modelId": "flux.1-dev"}
    lines = imported("scenario-ip-adapter", REFERENCE | flux, info)[1]
    lines += imported("leonardo", PROMPT | flux | {"negative_prompt": "blur"}, info)[1]
    said = {line.name: line for line in lines}
    assert {said[name].outcome for name in ("ipAdapterImages", "ipAdapterType", "negative_prompt")} == {NOT_YET}
    with pytest.raises(GraphError, match="ipAdapterImages"):
        imported("scenario-ip-adapter", REFERENCE | flux, info, strict=True)


def image_prompts(prompt: dict[str, Any]) -> list[dict[str, Any]]:
    return [node["inputs"] for node in prompt.values() if node["class_type"] == "TesseraImagePrompt"]


def test_transfer_images_act_where_the_prompt_has_their_word(info: ObjectInfo) -> None:
    samples = {"teal": [encoded(), encoded(colour="red")], "moss": [encoded()], "zig": [], "zag": None}
    _, lines, prompt = imported("octoai", PROMPT | {"transfer_images": samples}, info)
    acting = image_prompts(prompt)
    assert [(each["scale"], each["type"]) for each in acting] == [(0.45, "full")] * 2
    said = next(line for line in lines if line.name == "transfer_images")
    assert said.outcome == APPROXIMATED
    assert '"moss", "zig", "zag"' in said.text
    _, lines, prompt = imported("octoai", PROMPT | {"transfer_images": {"moss": [encoded()]}}, info)
    assert not image_prompts(prompt)
    assert outcomes(lines)["transfer_images"] == NO_EFFECT


@pytest.fixture
def embedding() -> Iterator[None]:
    """The file zig in models/embeddings."""
    path = Path(folder_paths.models_dir) / "embeddings" / "zig.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    yield
    path.unlink()


@pytest.mark.usefixtures("embedding")
@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("white zigzag", "white embedding:zig"),
        ("zigzag.", "embedding:zig ."),
        ("(zigzag:1.2), [zigzag]", "(embedding:zig:1.2), [embedding:zig]"),
        ('"zigzag" zigzags', '" embedding:zig " zigzags'),
        ("moss", "moss"),
    ],
)
def test_trigger_words_name_embeddings(info: ObjectInfo, prompt: str, named: str) -> None:
    body = {"prompt": prompt, "negative_prompt": prompt, "textual_inversions": {"zig": "zigzag"}}
    _, lines, made = imported("octoai", body, info)
    texts = [made[sampler(made)[side][0]]["inputs"]["text"] for side in ("positive", "negative")]
    assert texts == [named, named]
    assert outcomes(lines)["textual_inversions"] == (NO_EFFECT if prompt == named else MAPPED)


@pytest.mark.usefixtures("embedding")
def test_an_embedding_without_a_word_is_its_own_word_and_one_without_a_file_is_said(info: ObjectInfo) -> None:
    body = {"prompt": "a zig of zags", "textual_inversions": {"zig": None, "zag": "zags"}}
    _, lines, made = imported("octoai", body, info)
    assert made[sampler(made)["positive"][0]]["inputs"]["text"] == "a embedding:zig of zags"
    said = next(line for line in lines if line.name == "textual_inversions")
    assert (said.outcome, '"zag"' in said.text) == (NOT_YET, True)


def test_epoch_and_missing_loras(info: ObjectInfo) -> None:
    files = {"LoraLoader": ["b.safetensors", "style-3.safetensors"]}
    body = SCENARIO | {"modelId": "style", "modelEpoch": "3", "concepts": [{"modelId": name} for name in "abc"]}
    _, lines, prompt = imported("scenario-texture", body, with_files(info, **files), model="texture-flux")  # pyright: ignore[reportArgumentType]
    loaded = [node["inputs"]["lora_name"] for node in prompt.values() if node["class_type"] == "LoraLoader"]
    assert loaded == ["b.safetensors", "style-3.safetensors"]
    said = {line.name: line for line in lines}
    assert said["concepts"].outcome == NOT_YET
    assert '"a", "c"' in said["concepts"].text
    assert of_class(prompt, "TesseraDemoCheckpoint") == {"name": "texture-flux"}


@pytest.mark.parametrize(("share", "parts"), [(0.0, (0, 0, 20)), (0.25, (0, 5, 20)), (1.0, (0, 20, 20))])
@pytest.mark.parametrize("strength", [None, 0.5])
def test_refiner_takes_its_share_of_the_steps(
    info: ObjectInfo, share: float, parts: tuple[int, int, int], strength: float | None
) -> None:
    files = {"CheckpointLoaderSimple": ["base_xl.safetensors", "xl_refiner.safetensors"]}
    body = PROMPT | {"checkpoint": "base_xl", "use_refiner": True, "steps": 20, "high_noise_frac": share}
    body |= {"init_image": encoded(), "strength": strength} if strength else {}
    _, _, prompt = imported("octoai", body, with_files(info, **files))  # pyright: ignore[reportArgumentType]
    samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "KSamplerAdvanced"]
    begin = 10 if strength else 0
    change = max(begin, parts[1])
    shares = [(begin, change), (change, parts[2])]
    found = [(each["start_at_step"], each["end_at_step"]) for each in samplers]
    # A sampler that has no step would not add its noise.
    assert found == [(start, end) for start, end in shares if start < end]
    assert [each["add_noise"] for each in samplers] == ["enable", "disable"][: len(found)]


def test_report_says_what_is_taken_only_where_nothing_is_given(info: ObjectInfo) -> None:
    given = PROMPT | {"width": 512, "height": 512, "samples": 1, "seed": 5, "scheduler": "DDIMScheduler"}
    _, lines, _ = imported("modelslab", given, info)
    assert not [line for line in lines if "Left out" in line.text or "no default" in line.text]
    assert not [line for line in lines if not line.text or line.text.endswith((";", " "))]


@pytest.mark.parametrize("model", ["texture-sd", "texture-flux", None])
def test_a_demo_model_does_not_change_what_octoai_allows(info: ObjectInfo, model: str | None) -> None:
    """The endpoint is Generate SDXL, whatever draws the image here."""
    body = PROMPT | {"width": 1536, "height": 640}
    _, _, prompt = imported("octoai", body, info, model=model)
    assert of_class(prompt, "EmptyLatentImage", "EmptySD3LatentImage")["width"] == 1536
    with pytest.raises(GraphError, match=r"found 512x512; expected one of .* for SDXL; say with --family"):
        imported("octoai", PROMPT | {"width": 512, "height": 512}, info, model=model)
    imported("octoai", PROMPT | {"width": 512, "height": 512}, info, model=model, family="sd15")


def test_steps_that_modelslab_does_not_list(info: ObjectInfo) -> None:
    """The nearest are taken, and told; numbers may be text, and switches flags."""
    body = PROMPT | {"num_inference_steps": "30", "safety_checker": False, "enhance_prompt": "no", "width": "720"}
    _, lines, prompt = imported("modelslab", body, info)
    assert of_class(prompt, "KSampler", "TesseraSchedulerKSampler")["steps"] == 31
    (line,) = [line for line in lines if line.name == "num_inference_steps"]
    assert line.outcome == APPROXIMATED
    assert '"30" is none of 21, 31, 41' in line.text
    with pytest.raises(GraphError, match="num_inference_steps: approximated.*refused with --strict"):
        imported("modelslab", body, info, strict=True)
    imported("modelslab", body | {"num_inference_steps": "31"}, info)
