"""Workflows of other packs: every node that we stand in for is replaced, with its values, and the rest is said."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import tessera
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from drawings import drawing, drawn
from naming import naming
from tessera.app.cli.main import main
from tessera.app.moving_in import readable, replace
from tessera.app.registry import node_classes, object_info
from tessera.host.errors import GraphError
from tessera.host.graph.workflow import convert
from tessera.host.images.loading import load_image
from tessera.host.schema.extension import REPLACEMENTS as OFFERED
from tessera.host.schema.object_info import inputs_of
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.presets import weight_at
from tessera.ip_adapter.prompts import ImagePrompt
from tessera.nodes.extension import Tessera
from tessera.nodes.moving_in import STAND_INS, offers
from tessera.nodes.moving_in.packs import PACKS, WEIGHT_TYPES
from tessera.nodes.moving_in.rules import BLOCKS, RULES, TYPES
from tessera.nodes.offset import TesseraOffsetImage
from tessera.nodes.replacements import FOREIGN_TILINGS, REPLACEMENTS
from tessera.nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from tessera.tiling import seam

ROOT = Path(__file__).parents[1]
INFO = object_info()
LOADER = {"class_type": "TesseraDemoCheckpoint", "inputs": {"name": "texture-sd"}}
SOURCES: dict[str, Any] = {
    "MODEL": ["1", 0],
    "CLIP": ["1", 1],
    "VAE": ["1", 2],
    "CONDITIONING": ["2", 0],
    "LATENT": ["3", 0],
    "IMAGE": ["4", 0],
    "SAMPLER": ["5", 0],
    "SIGMAS": ["6", 0],
    "IPADAPTER": ["7", 0],
}
CHOSEN = {"sampler_name": "euler", "scheduler": "normal", "ipadapter_file": "texture-sd (demo)"}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
    """A graph with what foreign nodes are linked to, and `n9` and so on, without the letter."""
    known = {
        "1": LOADER,
        "2": node("CLIPTextEncode", clip=["1", 1], text="blue"),
        "3": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "4": node("VAEDecode", samples=["3", 0], vae=["1", 2]),
        "5": node("KSamplerSelect", sampler_name="euler"),
        "6": node("BasicScheduler", model=["1", 0], scheduler="normal", steps=4, denoise=1.0),
        "7": node("IPAdapterModelLoader", ipadapter_file="texture-sd (demo)"),
        "8": node("SaveImage", images=["4", 0], filename_prefix="x"),
    }
    return known | {number[1:]: each for number, each in nodes.items()}


def foreign(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of another pack, with every link that it needs."""
    known = {name: each for name, each in inputs_of(PACKS[kind]).items() if each.required}
    links = {name: SOURCES[each.type] for name, each in known.items() if each.type in SOURCES}
    return node(kind, **{**links, **{name: CHOSEN[name] for name in known.keys() & CHOSEN}, **inputs})


def replaced(kind: str, **inputs: Any) -> tuple[dict[str, Any], list[str]]:
    """The graph in which a node 9 of another pack was, and what was said of it."""
    prompt, said = replace(graph(n9=foreign(kind, **inputs)), INFO)
    return prompt, [line for line in said if line.startswith(f"node 9 {kind}")]


def test_every_pack_has_a_rule() -> None:
    assert PACKS.keys() == RULES.keys()
    assert not PACKS.keys() & node_classes().keys()


@pytest.mark.parametrize("kind", PACKS)
def test_what_takes_a_nodes_place_is_known_and_whole(kind: str) -> None:
    prompt, said = replaced(kind)
    assert all(each["class_type"] in INFO for each in prompt.values())
    assert prompt["9"]["class_type"] in said[0]
    for each in prompt.values():
        known = inputs_of(INFO[each["class_type"]])
        assert each["inputs"].keys() <= known.keys()
        assert {name for name, entry in known.items() if entry.required} <= each["inputs"].keys()
        links = [value for value in each["inputs"].values() if isinstance(value, list)]
        assert all(
            target in prompt and output < len(INFO[prompt[target]["class_type"]]["output"]) for target, output in links
        )


@pytest.mark.parametrize(("theirs", "ours"), FOREIGN_TILINGS.items())
def test_tilings(theirs: str, ours: str) -> None:
    for kind in ("SeamlessTile", "MakeCircularVAE"):
        assert replaced(kind, tiling=theirs)[0]["9"]["inputs"]["tiling"] == ours
    decoded = replaced("CircularVAEDecode", tiling=theirs)[0]
    assert decoded["9_vae"]["inputs"]["tiling"] == ours
    assert decoded["9"]["inputs"]["vae"] == ["9_vae", 0]


def test_what_was_changed_in_place_is_said() -> None:
    assert any("in place" in line for line in replaced("SeamlessTile", copy_model="Modify in place")[1])
    assert len(replaced("SeamlessTile", copy_model="Make a copy")[1]) == 1


def test_negatives_keep_their_strength() -> None:
    prompt, said = replaced("KSamplerWithNAG", nag_scale=6.5, seed=3, sampler_name="euler", scheduler="simple")
    steering = prompt["9_negative"]["inputs"]
    assert (steering["strength"], steering["end_percent"], steering["method"]) == (5.5, 1.0, "nag")
    assert prompt["9"]["inputs"]["model"] == ["9_negative", 0]
    assert prompt["9"]["inputs"]["seed"] == 3
    assert len(said) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nag_scale", 40.0, ("nag_scale", "40.0", "10.0")),
        ("nag_tau", 3.0, ("nag_tau", "3.0", "2.5")),
        ("nag_alpha", 0.5, ("nag_alpha", "0.5", "0.25")),
        ("nag_sigma_end", 0.75, ("nag_sigma_end", "0.75", "end_percent")),
    ],
)
def test_what_a_negative_cannot_keep_is_said(name: str, value: float, words: tuple[str, ...]) -> None:
    said = replaced("NAGGuider", **{name: value})[1]
    assert any(all(word in line for word in words) for line in said)


def test_the_end_of_a_negative_lies_at_its_noise_level() -> None:
    """On Flux's usual schedule, the noise level at end_percent is nag_sigma_end again."""
    shift = 2.718281828**1.15
    for sigma in (0.1, 0.5, 0.75, 0.95):
        end = replaced("NAGCFGGuider", nag_sigma_end=sigma)[0]["9_negative"]["inputs"]["end_percent"]
        time = 1 - end
        assert abs(shift * time / (1 + (shift - 1) * time) - sigma) < 0.005


@pytest.mark.parametrize("kind", ["IPAdapter", "IPAdapterAdvanced"])
def test_references_keep_their_values(kind: str) -> None:
    prompt, said = replaced(
        kind, weight=0.7, start_at=0.1, end_at=0.6, weight_type="style transfer", attn_mask=["4", 0]
    )
    given = prompt["9_image"]["inputs"]
    assert (given["scale"], given["start_percent"], given["end_percent"]) == (0.7, 0.1, 0.6)
    assert given["type"] == "style_transfer"
    assert given["mask"] == ["4", 0]
    assert prompt["9"]["inputs"]["image_prompts"] == ["9_image", 0]
    assert prompt["9"]["inputs"]["ip_adapter"] == ["7", 0]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("weight", "meant"), [(0.0, 0.0), (1.0, 1.0), (1.75, 1.75), (5.0, 3.0), (-0.4, -0.4), (-1.0, -1.0), (-3.0, -1.0)]
)
def test_a_weight_is_a_scale_within_a_limit(weight: float, meant: float) -> None:
    prompt, said = replaced("IPAdapterAdvanced", weight=weight)
    given = prompt["9_image"]["inputs"]
    assert given["scale"] * given.get("limit", 1.0) == meant
    assert 0.0 <= given["scale"] <= 1.0
    assert any(str(weight) in line and str(meant) in line for line in said) == (weight != meant)


def test_a_negative_image_and_an_average_have_a_counterpart() -> None:
    prompt, said = replaced("IPAdapterAdvanced", image_negative=["4", 0], combine_embeds="average")
    given = prompt["9_image"]["inputs"]
    assert (given["negative_image"], given["batch"]) == (["4", 0], "average")
    assert len(said) == 1
    assert "subtract" in replaced("IPAdapterAdvanced", combine_embeds="subtract")[1][1]


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_weight_types_are_translated_or_said(weight_type: str) -> None:
    prompt, said = replaced("IPAdapterAdvanced", weight_type=weight_type)
    given = prompt["9_image"]["inputs"]
    assert given["type"] == TYPES.get(weight_type, "full")
    assert ("blocks" in given) == (weight_type in BLOCKS)
    exact = weight_type in TYPES or weight_type in BLOCKS
    assert any(weight_type in line for line in said) == (not exact)


# By the number of a cross-attention layer of SD 1.5 as ComfyUI_IPAdapter_plus counts: 6 down, one in the middle, 9 up.
PLACES = {
    "style transfer": {n: 1.0 for n in range(16) if n not in (4, 5, 6, 7, 8)},
    "strong style transfer": {n: 1.0 for n in range(16) if n not in (4, 5)},
    "composition": {4: 0.25, 5: 1.0},
    "weak input": {n: 0.2 if n < 6 else 1.0 for n in range(16)},
    "weak middle": {n: 0.2 if n == 6 else 1.0 for n in range(16)},
    "weak output": {n: 0.2 if n > 6 else 1.0 for n in range(16)},
    "strong middle": {n: 1.0 if n == 6 else 0.2 for n in range(16)},
}


@pytest.mark.parametrize(("weight_type", "expected"), PLACES.items())
def test_weight_types_weight_the_layers_that_they_weight_there(weight_type: str, expected: dict[int, float]) -> None:
    given = replaced("IPAdapterAdvanced", weight_type=weight_type)[0]["9_image"]["inputs"]
    with torch.device("meta"):
        layers = find_layers(UNet2DConditionModel(block_out_channels=(32, 32, 32, 32), cross_attention_dim=16))
    prompt = ImagePrompt(torch.rand(1, 8, 8, 3), type=given["type"], blocks=given.get("blocks", ""))
    ordered = sorted(layers, key=lambda layer: ("down", "mid_", "up_b").index(layer.name[:4]))
    found = [weight_at(prompt.block_weights(layers), layer) for layer in ordered]
    assert {number: weight for number, weight in enumerate(found) if weight} == expected


def test_the_unified_loader_passes_the_model_on() -> None:
    prompt, said = replace(
        graph(
            n9=foreign("IPAdapterUnifiedLoader", preset="PLUS (high strength)"),
            n10=foreign("IPAdapter", model=["9", 0], ipadapter=["9", 1]),
        ),
        INFO,
    )
    assert prompt["10"]["inputs"]["model"] == ["1", 0]
    assert prompt["10"]["inputs"]["ip_adapter"] == ["9", 0]
    assert any("PLUS" in line and prompt["9"]["inputs"]["ip_adapter"] in line for line in said)


def test_a_chain_of_foreign_nodes_stays_a_chain() -> None:
    prompt, _ = replace(graph(n9=foreign("SeamlessTile"), n10=foreign("KSamplerWithNAG", model=["9", 0])), INFO)
    assert prompt["10_negative"]["inputs"]["model"] == ["9", 0]


def test_what_nobody_has_is_left_out_with_what_needs_it() -> None:
    prompt, said = replace(
        graph(n9=node("Elsewhere", image=["4", 0]), n10=node("SaveImage", images=["9", 0], filename_prefix="y")), INFO
    )
    assert not {"9", "10"} & prompt.keys()
    assert "8" in prompt
    assert [line.split(":")[0] for line in said if "left out" in line] == ["node 9 Elsewhere", "node 10 SaveImage"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(GraphError, match="nothing"):
        replace({"1": LOADER, "9": node("Elsewhere", model=["1", 0])}, INFO)
    with pytest.raises(GraphError, match=naming("9", "SeamlessTile", "model")):
        replace(graph(n9=node("SeamlessTile", tiling="enable")), INFO)


def test_a_value_that_cannot_be_translated_is_one_line() -> None:
    for kind, name in (("NAGGuider", "nag_scale"), ("IPAdapter", "weight"), ("SeamlessTile", "tiling")):
        with pytest.raises(GraphError, match=naming("9", kind, name)):
            replaced(kind, **{name: ["2", 0]})


def test_a_circle_of_nodes_that_pass_on_is_left_to_the_check() -> None:
    prompt, _ = replace(
        graph(n9=foreign("IPAdapterUnifiedLoader", model=["9", 0]), n10=foreign("SeamlessTile", model=["9", 0])), INFO
    )
    assert prompt["10"]["inputs"]["model"] == ["9", 0]


# A file of the editor, as people share it


def shared() -> dict[str, Any]:
    """A seamless texture by another pack's nodes, and a node that nobody here has."""
    return drawing(
        drawn(1, "CheckpointLoaderSimple", ["texture"], outputs=["MODEL", "CLIP", "VAE"]),
        drawn(2, "SeamlessTile", ["enable", "Make a copy"], [("model", "MODEL", 1)], ["MODEL"]),
        drawn(3, "MakeCircularVAE", ["enable", "Make a copy"], [("vae", "VAE", 2)], ["VAE"]),
        drawn(4, "CLIPTextEncode", ["red and white stripes"], [("clip", "CLIP", 3)], ["CONDITIONING"]),
        drawn(5, "CLIPTextEncode", [""], [("clip", "CLIP", 4)], ["CONDITIONING"]),
        drawn(6, "EmptyLatentImage", [128, 128, 1], outputs=["LATENT"]),
        drawn(
            7,
            "KSampler",
            [5, "randomize", 8, 4, "dpmpp_2m", "karras", 1],
            [
                ("model", "MODEL", 5),
                ("positive", "CONDITIONING", 6),
                ("negative", "CONDITIONING", 7),
                ("latent_image", "LATENT", 8),
            ],
            ["LATENT"],
        ),
        drawn(8, "VAEDecode", [], [("samples", "LATENT", 9), ("vae", "VAE", 10)], ["IMAGE"]),
        drawn(9, "SaveImage", ["texture"], [("images", "IMAGE", 11)]),
        drawn(10, "MaterialElsewhere", [], [("image", "IMAGE", 12)], ["IMAGE"]),
        drawn(11, "SaveImage", ["normal"], [("images", "IMAGE", 13)]),
        links=[
            (1, 1, 0, 2, 0),
            (2, 1, 2, 3, 0),
            (3, 1, 1, 4, 0),
            (4, 1, 1, 5, 0),
            (5, 2, 0, 7, 0),
            (6, 4, 0, 7, 1),
            (7, 5, 0, 7, 2),
            (8, 6, 0, 7, 3),
            (9, 7, 0, 8, 0),
            (10, 3, 0, 8, 1),
            (11, 8, 0, 9, 0),
            (12, 8, 0, 10, 0),
            (13, 10, 0, 11, 0),
        ],
    )


def models(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "texture").symlink_to(ROOT / "demo" / "models" / "texture-sd", target_is_directory=True)
    return folder


def test_values_of_foreign_widgets_are_read_by_position() -> None:
    prompt = convert(shared(), readable(INFO))
    assert prompt["2"]["inputs"]["tiling"] == "enable"
    assert prompt["2"]["inputs"]["copy_model"] == "Make a copy"


def test_a_shared_file_runs_as_far_as_it_can(tmp_path: Path) -> None:
    said: list[str] = []
    made = tessera.run(
        shared(), models_dir=models(tmp_path / "models"), output_dir=tmp_path, device="cpu", replace=said.append
    )
    assert [Path(path).name for path in made.paths] == ["texture_00001_.png"]
    assert not seam.measure(load_image(made.paths[0])[0])[0].visible
    assert "workflow" not in made[0].info
    assert [line for line in said if "MaterialElsewhere" in line]


def test_the_command_line_replaces_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shared.json"
    file.write_text(json.dumps(shared()))
    where = ["--models-dir", str(models(tmp_path / "models"))]
    assert main(["check", str(file), *where]) == 2
    capsys.readouterr()
    assert main(["check", str(file), "--replace", *where]) == 0
    printed = capsys.readouterr()
    assert "nothing wrong" in printed.out
    assert "node 2 SeamlessTile: replaced by TesseraSeamlessModel" in printed.err
    assert "Traceback" not in printed.err


# ComfyUI's own replacement


def test_comfyui_is_offered_what_our_nodes_take() -> None:
    asyncio.run(Tessera().on_load())
    assert set(OFFERED) >= {entry["old_node_id"] for entry in REPLACEMENTS}
    for entry in REPLACEMENTS:
        theirs, ours = inputs_of(PACKS[entry["old_node_id"]]), inputs_of(INFO[entry["new_node_id"]])
        assert [name for name, each in theirs.items() if each.is_widget] == entry["old_widget_ids"]
        for each in entry["input_mapping"]:
            assert each["new_id"] in ours
            assert "set_value" in each or each["old_id"] in theirs
        assert {name for name, each in ours.items() if each.required} <= {e["new_id"] for e in entry["input_mapping"]}


def test_every_class_is_offered_once() -> None:
    asyncio.run(Tessera().on_load())
    assert PACKS.keys() <= OFFERED.keys()
    assert all(len(OFFERED[kind]) == 1 for kind in PACKS)
    for entry in offers():
        assert STAND_INS[entry["new_node_id"]] == entry["old_node_id"]
        assert [each["new_id"] for each in entry["input_mapping"]] == list(inputs_of(PACKS[entry["old_node_id"]]))


@pytest.mark.parametrize(("ours", "theirs"), STAND_INS.items())
def test_a_node_that_stands_in_is_replaced_as_what_it_stands_for(ours: str, theirs: str) -> None:
    by_them, _ = replaced(theirs)
    by_us, _ = replace(graph(n9=foreign(theirs) | {"class_type": ours}), INFO)
    assert by_us == by_them


@pytest.mark.parametrize("theirs", FOREIGN_TILINGS)
def test_our_nodes_take_the_words_of_the_other_pack(theirs: str) -> None:
    for kind in (TesseraSeamlessModel, TesseraSeamlessVAE):
        assert kind.validate_inputs(tiling=theirs) is True
        assert kind.validate_inputs(tiling="everywhere") is not True


def test_an_offset_in_percent() -> None:
    image = torch.rand(1, 8, 10, 3)
    (fraction,) = TesseraOffsetImage.execute(image, 0.3, 0.25).args
    (percent,) = TesseraOffsetImage.execute(image, 30, 25, "percent").args
    assert torch.equal(fraction, percent)
    assert TesseraOffsetImage.validate_inputs(x=30.0) is not True
    assert TesseraOffsetImage.validate_inputs(x=30.0, unit="percent") is True
