"""What requests of hosted services mean, from the body to the nodes and, where it matters, to the pixels."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naming import naming
from PIL import Image
from tessera.app.cli.main import main
from tessera.app.registry import node_classes
from tessera.app.services.bodies.images import RequestImages
from tessera.app.services.bodies.parameters import APPROXIMATED, MAPPED, NO_EFFECT, NOT_YET
from tessera.app.services.convert import Line, convert
from tessera.app.services.drawing.finishing import AROUND, MOST_AROUND, whole_scale
from tessera.app.services.drawing.model_names import LEONARDO_MODELS
from tessera.app.services.hosted.scheduler_names import DIFFUSERS
from tessera.app.services.hosted.styles import PHOTO_WORDS
from tessera.app.services.services import SERVICES
from tessera.host import folder_paths
from tessera.host.errors import GraphError
from tessera.host.graph.validation import validate
from tessera.host.graph.workflow import Workflow, to_prompt
from tessera.host.schema.object_info import ObjectInfo

Nodes = dict[str, dict[str, Any]]


def encoded(pixels: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def ramp(width: int, height: int) -> str:
    """An image whose rows and columns all differ."""
    y, x = np.mgrid[:height, :width]
    return encoded(np.stack([x * 255 // width, y * 255 // height, x * 0 + 90], axis=-1))


def rows_mask(width: int, height: int, painted: slice) -> str:
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[painted] = 255
    return encoded(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("kinds")
    (root / "models" / "ipadapter").mkdir(parents=True)
    (root / "input").mkdir()
    folder_paths.configure(str(root / "models"), str(root / "input"), str(root / "output"))
    yield root
    folder_paths.configure()


def imported(service: str, files: dict[str, Path] | None = None, /, **sent: Any) -> tuple[dict[str, Line], Nodes]:
    """The report by parameter, and the inputs of the nodes by title; the graph is checked."""
    options = {key: sent.pop(key) for key in ("strict", "model", "family") if key in sent}
    info = ObjectInfo(node_classes())
    found = RequestImages(files or {})
    drawing, lines = convert(SERVICES[service], {"prompt": "white bricks"} | sent, info, found, 1, **options)
    for name, content in found.found.items():
        (Path(folder_paths.get_input_directory()) / name).write_bytes(content)
    prompt = to_prompt(Workflow(ui_graph=json.loads(json.dumps(drawing))), info)
    validate(prompt, ObjectInfo(info.classes))
    titles = {str(node["id"]): node["title"] for node in drawing["nodes"]}
    return {line.name: line for line in lines}, {titles[number]: node["inputs"] for number, node in prompt.items()}


KNOWN = ("flux-dev", "phoenix", "sdxl")
pytestmark = pytest.mark.usefixtures("folder")
MODELSLAB = {
    "model_id": "texture-sd",
    "width": 64,
    "height": 32,
    "num_inference_steps": 21,
    "guidance_scale": 3,
    "seed": 4,
    **dict.fromkeys(["enhance_prompt", "safety_checker", "tomesd", "use_karras_sigmas"], "no"),
}


def drawn(service: str, body: dict[str, Any], folder: Path, name: str, *options: str) -> np.ndarray:
    """The first image of a request, through the command line."""
    here = folder / name
    here.mkdir()
    (here / "request.json").write_text(json.dumps({"prompt": "white bricks"} | body))
    folders = ["--models-dir", str(folder / "models"), "--input-dir", str(folder / "input")]
    workflow = str(here / "workflow.json")
    before = folder_paths.models_dir, folder_paths.get_input_directory(), folder_paths.get_output_directory()
    assert main(["import", service, str(here / "request.json"), "-o", workflow, *options, *folders]) == 0
    assert main(["run", workflow, "--device", "cpu", "--output-dir", str(here / "out"), *folders]) == 0
    folder_paths.configure(*before)
    with Image.open(next((here / "out").glob("*.png"))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_a_mask_is_cut_as_its_image_is(folder: Path) -> None:
    """Of 128 x 128 px, rows 32 to 95 are left; the first 16 of these are painted, and no others."""
    body = MODELSLAB | {"width": 128, "height": 64, "init_image": ramp(128, 128), "strength": 1}
    body |= {"mask_image": rows_mask(128, 128, slice(32, 48))}
    kept = drawn("modelslab", body | {"mask_image": rows_mask(128, 128, slice(0, 0))}, folder, "kept")
    painted = drawn("modelslab", body, folder, "painted")
    changed = np.abs(painted - kept).mean(axis=(1, 2))
    # The decoder normalises the whole image, so the rest moves a little.
    assert changed[:12].min() > 5 * changed[20:].max()


@pytest.mark.parametrize("shape", [(64, 64), (32, 64), (96, 16)])
def test_masks_and_images_of_any_shape_have_one_geometry(shape: tuple[int, int]) -> None:
    sent = MODELSLAB | {"init_image": ramp(*shape), "mask_image": rows_mask(*shape, slice(0, 4))}
    _, nodes = imported("modelslab", **sent)
    fits = [{key: nodes[each][key] for key in ("width", "height", "crop")} for each in ("Size", "Mask size")]
    assert fits == [{"width": 64, "height": 32, "crop": "center"}] * 2
    octoai = {"checkpoint": "texture-sd", "width": 576, "height": 448, "init_image": ramp(*shape)}
    octoai |= {"mask_image": rows_mask(*shape, slice(0, 4)), "ip_adapter_image": ramp(*shape)}
    said, nodes = imported(
        "octoai", **octoai, ip_adapter_mask_image=rows_mask(*shape, slice(shape[1] // 2 - 2, shape[1] // 2))
    )
    masks = ("Mask size", "Mask of image prompt 1 size")
    assert [(nodes[each]["width"], nodes[each]["crop"]) for each in ("Size", *masks)] == [(576, "center")] * 3
    assert said["ip_adapter_mask_image"].outcome == said["mask_image"].outcome == MAPPED


def test_a_mask_of_another_shape_runs_with_an_image_prompt(folder: Path) -> None:
    body = {"checkpoint": "texture-sd", "width": 576, "height": 448, "steps": 1, "seed": 3, "cfg_scale": 3}
    body |= {"ip_adapter_image": ramp(32, 32)}
    for name, mask in (("wide", (64, 16)), ("high", (16, 64))):
        image = drawn(
            "octoai", body | {"ip_adapter_mask_image": rows_mask(*mask, slice(0, mask[1] // 2))}, folder, name
        )
        assert image.shape == (448, 576, 3)


@pytest.mark.parametrize("scheduler", [None, *DIFFUSERS])
@pytest.mark.parametrize("strength", [0.001, 0.3, 0.7, 1.0])
def test_strength_runs_its_part_of_the_steps_with_every_scheduler(scheduler: str | None, strength: float) -> None:
    _, nodes = imported("modelslab", **MODELSLAB, init_image=ramp(8, 8), strength=strength, scheduler=scheduler)
    assert nodes["Sampler"]["steps"] == max(1, math.floor(21 * strength + 1e-9))
    assert nodes["Sampler"]["denoise"] == strength


@pytest.mark.parametrize("scheduler", ["DDIM", pytest.param("PNDM", marks=pytest.mark.requests)])
def test_many_steps_with_little_strength_run(scheduler: str, folder: Path) -> None:
    body = {"checkpoint": "texture-sd", "width": 576, "height": 448, "steps": 200, "strength": 0.005, "seed": 3}
    image = drawn("octoai", body | {"init_image": ramp(32, 32), "sampler": scheduler}, folder, f"few-{scheduler}")
    assert image.std() > 1


def test_three_plus_signs_are_the_sde_solver(folder: Path) -> None:
    own = MODELSLAB | {"scheduler": "DPMSolverMultistepScheduler"}
    said, nodes = imported("modelslab", **own, algorithm_type="dpmsolver+++")
    assert nodes["Sampler"]["algorithm_type"] == "sde-dpmsolver++"
    assert "algorithm_type" in said["algorithm_type"].text
    plain = drawn("modelslab", own | {"algorithm_type": "dpmsolver++"}, folder, "two")
    assert np.array_equal(plain, drawn("modelslab", own, folder, "none"))
    assert np.abs(plain - drawn("modelslab", own | {"algorithm_type": "dpmsolver+++"}, folder, "three")).mean() > 1


FLUX = {"modelId": "flux.1-dev", "width": 64, "height": 64, "numSamples": 1}


@pytest.mark.parametrize("guidance", [0, 0.5])
def test_flux_leaves_the_negative_out_where_guidance_is_below_one(guidance: float) -> None:
    negative = {"negativePrompt": "red", "negativePromptStrength": 7}
    said, nodes = imported("scenario-texture", **FLUX, **negative, guidance=guidance)
    assert "Flux negative" not in nodes
    assert {said[name].outcome for name in negative} == {NO_EFFECT}
    assert "Flux negative" in imported("scenario-texture", **FLUX, **negative, guidance=1)[1]


def test_flux_has_no_layers_to_skip() -> None:
    said, nodes = imported("modelslab", **MODELSLAB | {"model_id": "flux-dev"}, clip_skip=2)
    assert "Clip skip" not in nodes
    assert said["clip_skip"].outcome == NO_EFFECT
    assert "T5" in said["clip_skip"].text


def test_flux_image_prompts_are_drawn_where_there_is_an_adapter(folder: Path) -> None:
    sent = FLUX | {"ipAdapterImages": [f"data:image/png;base64,{ramp(16, 16)}"]}
    said, nodes = imported("scenario-ip-adapter", **sent)
    assert said["ipAdapterImages"].outcome == NOT_YET
    assert "models/ipadapter" in said["ipAdapterImages"].text
    assert "Image prompts" not in nodes
    files = [folder / "models" / "ipadapter" / name for name in ("sd15-plus.safetensors", "flux-ip.safetensors")]
    for path in files:
        path.touch()
    said, nodes = imported("scenario-ip-adapter", **sent)
    assert nodes["Image prompt adapter"]["ip_adapter"] == "flux-ip.safetensors"
    assert said["ipAdapterImages"].outcome == MAPPED
    for path in files:
        path.unlink()


def test_a_negative_on_fast_flux_is_told_as_ours() -> None:
    said, _ = imported(
        "scenario-texture", **FLUX | {"modelId": "fast-flux"}, negativePrompt="red", negativePromptStrength=5
    )
    assert said["negativePrompt"].outcome == MAPPED
    assert "Fast-Flux" in said["negativePrompt"].text


@pytest.mark.parametrize(("scale", "used"), [(3, 1.0), (-2, 0.0)])
def test_a_scale_out_of_range_is_approximated_with_the_value_used(scale: float, used: float) -> None:
    sent = {"checkpoint": "texture-sd", "ip_adapter_image": ramp(8, 8), "ip_adapter_scale": scale}
    said, nodes = imported("octoai", **sent)
    # With a scale of 0 there is no node.
    assert nodes.get("Image prompt 1", {"scale": 0.0})["scale"] == used
    assert said["ip_adapter_scale"].outcome == APPROXIMATED
    assert f"{used:g} is used" in said["ip_adapter_scale"].text
    # The scale of an image that is there acts, at its default of 1 too.
    del sent["ip_adapter_scale"]
    assert imported("octoai", **sent)[0]["ip_adapter_scale"].outcome == MAPPED


def test_an_octoai_request_without_a_checkpoint_says_which_model_draws() -> None:
    said, nodes = imported("octoai")
    assert said["checkpoint"].outcome == APPROXIMATED
    assert f"so {nodes['Model']['name']} is used; name one with --model" in said["checkpoint"].text
    imported("octoai", strict=True)
    assert "checkpoint" not in imported("octoai", model="texture-sd")[0]


def test_classes_of_strength_are_graded_and_influence_multiplies(folder: Path) -> None:
    (folder / "a.png").write_bytes(base64.b64decode(ramp(8, 8)))
    classes = ["Low", "Mid", "High", "Ultra", "Max"]
    items = [{"initImageId": "a", "preprocessorId": 67, "strengthType": word} for word in classes]
    halves = [item | {"influence": 0.5} for item in items]

    def scales(sent: list[dict[str, Any]]) -> list[float]:
        _, nodes = imported("leonardo", {"a": folder / "a.png"}, modelId="texture-sd", controlnets=sent)
        return [nodes[f"Image prompt {number}"]["scale"] for number in range(1, len(sent) + 1)]

    whole = scales(items)
    assert whole == sorted(set(whole))
    assert max(whole) <= 1
    assert scales(halves) == pytest.approx([each / 2 for each in whole])
    with pytest.raises(GraphError, match="influence 2; expected a number from 0 to 1"):
        scales([items[0] | {"influence": 2}])


@pytest.mark.parametrize("ratio", [1.5, 2, 2.37])
@pytest.mark.parametrize("large", [{}, {"highResolution": True}])
def test_enlarged_textures_have_their_size_and_are_cut_last(ratio: float, large: dict[str, bool]) -> None:
    _, nodes = imported("leonardo", modelId="texture-sd", tiling=True, upscaleRatio=ratio, **large)
    assert [name for name in nodes if name.startswith("Continue for")] == [
        *(["Continue for twice the size"] if large else []),
        "Continue for enlarge",
    ]
    assert "Cut after enlarge" in nodes


def test_an_enlarged_texture_still_repeats(folder: Path) -> None:
    """Beside the border, pixels differ no more than inside."""
    body = {"modelId": "texture-sd", "width": 64, "height": 64, "num_inference_steps": 10, "num_images": 1}
    image = drawn("leonardo", body | {"tiling": True, "upscaleRatio": 2.37, "seed": 7}, folder, "enlarged")
    assert image.shape == (152, 152, 3)
    for axis in (0, 1):
        steps = np.abs(image - np.roll(image, 1, axis)).mean(axis=(1 - axis, 2))
        # The first is the step over the border.
        assert steps[0] <= np.quantile(steps[1:], 0.95) * 1.1


@given(st.integers(4, 192), st.integers(4, 192), st.floats(1, 8))
def test_the_scale_of_a_texture_makes_whole_pixels_near_the_size_asked(wide: int, high: int, factor: float) -> None:
    size = (8 * wide, 8 * high)
    scale, margin = whole_scale(size, factor)
    assert all((px * scale).denominator == 1 for px in (*size, margin))
    assert AROUND <= margin <= MOST_AROUND
    assert abs(scale - factor) <= 1 / 16
    if factor * 2 == round(factor * 2):
        assert scale == factor


def test_an_unzoomed_side_is_told_with_its_margin(folder: Path) -> None:
    (folder / "b.png").write_bytes(base64.b64decode(ramp(8, 8)))
    sent = {"unzoom": True, "unzoomAmount": 1, "init_image_id": "b", "width": 512, "height": 256}
    said, nodes = imported("leonardo", {"b": folder / "b.png"}, **sent)
    assert nodes["Size"]["width"] + 2 * nodes["Unzoom"]["left"] == 512
    assert "512 px are those of the image, 256, and of its margin, twice 128" in said["width"].text
    said, _ = imported("leonardo", {"b": folder / "b.png"}, **sent | {"unzoomAmount": 9})
    assert (said["unzoomAmount"].outcome, "4 is used" in said["unzoomAmount"].text) == (APPROXIMATED, True)


@pytest.mark.parametrize(
    ("service", "name", "known", "taken"),
    [
        ("scenario-texture", "scheduler", "UniPCMultistep", "UniPCMultistepScheduler"),
        ("scenario-texture", "scheduler", "ddim", "DDIMScheduler"),
        ("octoai", "sampler", "k_euler", "EulerDiscreteScheduler"),
        ("octoai", "sampler", "LMSDiscrete", "LMSDiscreteScheduler"),
        ("leonardo", "scheduler", "HeunDiscrete", "HeunDiscreteScheduler"),
    ],
)
def test_schedulers_of_open_lists_are_spelled_freely(service: str, name: str, known: str, taken: str) -> None:
    model = {"modelId": "texture-sd"} if service == "scenario-texture" else {}
    said, nodes = imported(service, **model, **{name: known})
    assert nodes["Sampler"]["scheduler"] == taken
    assert said[name].outcome == MAPPED


@pytest.mark.parametrize(
    ("service", "sent", "name"),
    [
        ("scenario-texture", {"modelId": "texture-sd", "scheduler": "Restart"}, "scheduler"),
        ("octoai", {"style_preset": "watercolour"}, "style_preset"),
        ("octoai", {"sampler": "MAGIC"}, "sampler"),
        ("leonardo", {"photoReal": True, "presetStyle": "SUBMARINE"}, "presetStyle"),
        ("leonardo", {"sd_version": "v9"}, "sd_version"),
        ("leonardo", {"transparency": "background_only"}, "transparency"),
        ("leonardo", {"canvasRequest": True, "canvasRequestType": "ERASE"}, "canvasRequestType"),
        ("leonardo", {"controlNet": True, "controlNetType": "SCRIBBLE"}, "controlNetType"),
    ],
)
def test_what_an_open_list_does_not_know_is_left_out_and_told(service: str, sent: dict[str, Any], name: str) -> None:
    said, nodes = imported(service, **sent)
    without = imported(service, **{key: value for key, value in sent.items() if key != name})[1]
    assert nodes == without
    assert said[name].outcome == NOT_YET
    assert f'left out: "{sent[name]}" is none of' in said[name].text
    with pytest.raises(GraphError, match=f"{name}: not yet possible"):
        imported(service, strict=True, **sent)


@pytest.mark.parametrize(
    ("service", "numbers"),
    [
        ("leonardo", {"num_images": 2, "guidance_scale": 3.5, "width": 512, "contrast": 2.5, "tiling": True}),
        ("octoai", {"seed": [5, 6], "loras": {"zigzag": 0.5}, "cfg_scale": 4.25, "outpainting": False}),
        ("scenario-texture", {"modelId": "texture-sd", "concepts": [{"modelId": "a", "scale": 0.5}], "guidance": 2}),
    ],
)
def test_numbers_may_be_text(service: str, numbers: dict[str, Any]) -> None:
    def as_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_text(each) for key, each in value.items()}
        return [as_text(each) for each in value] if isinstance(value, list) else str(value)

    assert imported(service, **as_text(numbers))[1] == imported(service, **numbers)[1]


@pytest.mark.parametrize("style", PHOTO_WORDS)
def test_styles_of_photo_real_add_their_words(style: str) -> None:
    sent = {"photoReal": True, "photoRealVersion": "v2", "alchemy": True, "presetStyle": style}
    assert PHOTO_WORDS[style] in imported("leonardo", **sent)[1]["Positive"]["text"]
    with pytest.raises(GraphError, match=f'presetStyle: found "{style}"; expected one of "ANIME"'):
        imported("leonardo", presetStyle=style)


def test_ids_of_leonardos_models_bring_the_rules_of_their_family() -> None:
    flux, phoenix, anime = (next(each for each, kind in LEONARDO_MODELS.items() if kind == family) for family in KNOWN)
    _, nodes = imported("leonardo", modelId=flux)
    assert nodes["Guidance"]["guidance"] == 3.5
    with pytest.raises(GraphError, match="seed: found 9999999998; expected .* for Flux dev"):
        imported("leonardo", modelId=flux, seed=9999999998)
    with pytest.raises(GraphError, match="expected 2.5 or more for PHOENIX"):
        imported("leonardo", modelId=phoenix, contrast=1.8)
    assert "--family" not in imported("leonardo", modelId=anime)[0]["modelId"].text
    assert "say it with --family" in imported("leonardo", modelId="moss-of-mine")[0]["modelId"].text


def test_one_first_image_is_repeated_as_often_as_its_node_can() -> None:
    imported("octoai", num_images=128)
    imported("octoai", num_images=64, init_image=ramp(64, 64), strength=0.5)
    with pytest.raises(GraphError, match=naming("num_images", 65, 64, "init_image")):
        imported("octoai", num_images=65, init_image=ramp(64, 64), strength=0.5)
