"""Hooks around the blocks of transformers, and the nodes that use them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.host.models.block_hooks import hooked_blocks
from tessera.host.nodes.block_patches import KeptReferences, normalized_guidance
from tessera.host.runtime.patcher import ModelPatcher
from test_all_families import model_of, plain, run, sample

JOINT = ["Stable Diffusion 3", "Qwen-Image", "Flux.2", "Flux.1", "Chroma"]
SKIPPED = {"scale": 2.0, "start_percent": 0.0, "end_percent": 1.0, "rescaling_scale": 0.0}


def replaced(model: ModelPatcher, function: Any, block: str = "double_block") -> ModelPatcher:
    clone = model.clone()
    clone.set_model_patch_replace(function, "dit", block, 0)
    return clone


@pytest.mark.parametrize("name", JOINT)
def test_a_block_that_is_called_by_its_hook_is_itself(name: str) -> None:
    seen: list[dict[str, Any]] = []

    def hook(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        seen.append({**args, "transformer_options": dict(args["transformer_options"])})
        return extra["original_block"](args)

    torch.testing.assert_close(sample(replaced(model_of(name), hook), name), plain(name), rtol=0, atol=0)
    options = seen[0]["transformer_options"]
    assert (options["block_index"], options["block_type"]) == (0, "double")
    assert seen[0]["img"].ndim == seen[0]["txt"].ndim == 3
    torch.testing.assert_close(sample(model_of(name), name), plain(name), rtol=0, atol=0)


@pytest.mark.parametrize("name", JOINT)
def test_skipped_layers_guide(name: str) -> None:
    found = sample(
        run("SkipLayerGuidanceDiT", model=model_of(name), double_layers="0", single_layers="", **SKIPPED), name
    )
    assert (found - plain(name)).abs().max() > 0.01
    torch.testing.assert_close(sample(model_of(name), name), plain(name), rtol=0, atol=0)


def test_z_image_has_no_layers_to_skip(caplog: pytest.LogCaptureFixture) -> None:
    found = run(
        "SkipLayerGuidanceSD3", model=model_of("Z-Image"), layers="0", scale=2.0, start_percent=0.0, end_percent=1.0
    )
    torch.testing.assert_close(sample(found, "Z-Image"), plain("Z-Image"), rtol=1e-3, atol=1e-3)


def test_hooks_behind_blocks_change_both_streams() -> None:
    model = model_of("Qwen-Image").clone()
    count = len(model.model.diffusion_model.transformer_blocks)
    seen: list[int] = []

    def nothing(args: dict[str, Any]) -> dict[str, Any]:
        seen.append(args["block_index"])
        assert args["x"].ndim == 4
        return {"img": args["img"] * 0, "txt": args["txt"]}

    model.set_model_patch(nothing, "double_block")
    assert (sample(model, "Qwen-Image") - plain("Qwen-Image")).abs().max() > 0.01
    assert seen[:count] == list(range(count))


def test_hooks_that_a_family_does_not_call_are_named() -> None:
    model = model_of("Stable Diffusion 3").clone()
    model.set_model_attn1_patch(lambda q, k, v, **options: {})
    with pytest.raises(NotImplementedError, match=naming("attn1_patch")):
        sample(model, "Stable Diffusion 3")


def test_blocks_are_themselves_again_after_an_error() -> None:
    block = torch.nn.Identity()
    options = {"patches_replace": {"dit": {("double_block", 0): lambda args, extra: args}}}
    with (
        pytest.raises(RuntimeError),
        hooked_blocks(SimpleNamespace(transformer_blocks=[block]), options, torch.zeros(1, 1, 1, 1)),
    ):
        assert "forward" in vars(block)
        raise RuntimeError
    assert "forward" not in vars(block)


def test_normalized_guidance_is_off_at_its_ends_and_bounded() -> None:
    positive, negative = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(normalized_guidance(positive, negative, 1.0, 0.7, 2.0), positive)
    torch.testing.assert_close(normalized_guidance(positive, negative, 9.0, 0.0, 2.0), positive)
    found = normalized_guidance(positive, negative, 9.0, 1.0, 1.2)
    ratio = found.norm(p=1, dim=-1) / positive.norm(p=1, dim=-1)
    assert within(float(ratio.max()) - 1.2, 1e-9)
    guided = positive + 8.0 * (positive - negative)
    torch.testing.assert_close(torch.cosine_similarity(found, guided, -1), torch.ones(3, 5, dtype=torch.float64))


@pytest.mark.parametrize("name", ["Flux.1", "Flux.2", "Chroma", "Stable Diffusion 1.5"])
def test_attention_is_led_away_from_the_negative(name: str) -> None:
    off = run("NAGuidance", model=model_of(name), nag_scale=1.0, nag_alpha=0.0, nag_tau=1.0)
    alone = sample(model_of(name), name, cfg=1.0)
    torch.testing.assert_close(sample(off, name, cfg=1.0), alone, rtol=1e-2, atol=1e-3)
    on = run("NAGuidance", model=model_of(name), nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5)
    assert (sample(on, name, cfg=1.0) - alone).abs().max() > 0.01


def test_references_are_kept_for_a_run() -> None:
    references = KeptReferences()
    options = {"reference_image_num_tokens": [1, 1], "block_type": "double", "block_index": 0}
    q, k, v = torch.randn(3, 2, 1, 5, 4)
    values = {"img": torch.randn(2, 4, 8), "transformer_options": options}
    assert references.leave_out(values)["img"].shape[1] == 4 and references(q, k, v, options) == {}
    assert references.leave_out(values)["img"].shape[1] == 2
    found = references(q[:, :, :3], k[:, :, :3] + 1, v[:, :, :3], options)
    torch.testing.assert_close(found["k"], torch.cat([k[:, :, :3] + 1, k[:, :, 3:]], 2))
    torch.testing.assert_close(found["v"], v)
    assert references(q, k, v, {**options, "reference_image_num_tokens": []}) == {}
    references.cleanup()
    assert references(q, k, v, options) == {}


@pytest.mark.parametrize("name", ["Stable Diffusion 1.5", "Qwen-Image"])
def test_families_that_cannot_keep_references_say_so(name: str) -> None:
    with pytest.raises(NotImplementedError, match=naming("post_input")):
        sample(run("FluxKVCache", model=model_of(name)), name)


def test_nothing_is_kept_after_a_run() -> None:
    model = run("FluxKVCache", model=model_of("Flux.2"))
    torch.testing.assert_close(sample(model, "Flux.2"), plain("Flux.2"))
    (references,) = model.model_options["transformer_options"]["patches"]["attn1_patch"]
    assert not references.kept
