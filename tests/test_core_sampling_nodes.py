"""ComfyUI's sampling nodes: the same widgets, and runs that agree with each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from naming import naming
from tessera.host import progress
from tessera.host.images.latent_resize import METHODS, bislerp
from tessera.host.models import latent_formats, model_base
from tessera.host.nodes import conditioning, custom_sampling, latent, sampling
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.schema import io
from torch import Tensor

GOLDEN = Path(__file__).parent / "data" / "comfyui_sampling_nodes.json"
NODES = {node.define_schema().node_id: node for node in sampling.NODES + latent.NODES + conditioning.NODES}
KEPT = ("default", "min", "max", "step", "round", "control_after_generate", "options")


def golden() -> dict[str, Any]:
    nodes = json.loads(GOLDEN.read_text())
    del nodes["source"]
    return nodes


@pytest.mark.parametrize("node_id", sorted(golden()))
def test_node_has_comfyui_inputs_and_outputs(node_id: str) -> None:
    expected, info = golden()[node_id], NODES[node_id].GET_NODE_INFO_V1()
    inputs = {
        name: [kind, {key: options[key] for key in KEPT if key in options}]
        for name, (kind, options) in info["input"]["required"].items()
    }
    assert list(inputs) == list(expected["inputs"])
    assert inputs == expected["inputs"]
    assert info["output"] == expected["outputs"]
    assert info["output_name"] == expected["names"]
    assert info["category"] == expected["category"]


def test_every_node_is_in_the_golden_file() -> None:
    assert set(NODES) == set(golden())


@pytest.mark.parametrize("node", NODES.values(), ids=lambda node: node.__name__)
def test_everything_is_explained(node: type[io.ComfyNode]) -> None:
    schema = node.define_schema()
    assert schema.description.endswith(".")
    assert all(slot.tooltip and slot.tooltip.endswith(".") for slot in [*schema.inputs, *schema.outputs])


# Runs


@pytest.fixture(scope="module")
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(model_base.SD15(sd15_unet), "cpu", "cpu")


@pytest.fixture(scope="module")
def prompts() -> tuple[list[Any], list[Any]]:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(1, 7, 16, generator=generator) for _ in range(2))
    return [[positive, {}]], [[negative, {}]]


def empty(batch_size: int = 1) -> dict[str, Any]:
    return result(latent.EmptyLatentImage.execute(64, 64, batch_size))


def result(output: io.NodeOutput) -> Any:
    assert output.result is not None
    return output.result[0]


def ksample(model: ModelPatcher, prompts: Any, start: dict[str, Any], **changes: Any) -> Tensor:
    options = {"seed": 3, "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    positive, negative = prompts
    output = sampling.KSampler.execute(
        model, positive=positive, negative=negative, latent_image=start, **(options | changes)
    )
    return result(output)["samples"]


def advanced(model: ModelPatcher, prompts: Any, start: dict[str, Any], first: int, last: int, **changes: Any) -> Any:
    options = {
        "add_noise": "enable",
        "noise_seed": 3,
        "steps": 3,
        "cfg": 2.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "return_with_leftover_noise": "disable",
    }
    positive, negative = prompts
    return result(
        sampling.KSamplerAdvanced.execute(
            model,
            positive=positive,
            negative=negative,
            latent_image=start,
            start_at_step=first,
            end_at_step=last,
            **(options | changes),
        )
    )


def test_custom_sampling_equals_the_ksampler(model: ModelPatcher, prompts: Any) -> None:
    positive, negative = prompts
    sigmas = result(custom_sampling.BasicScheduler.execute(model, "normal", 3, 1.0))
    sampler = result(custom_sampling.KSamplerSelect.execute("euler"))
    guider = result(custom_sampling.CFGGuider.execute(model, positive, negative, 2.0))
    noise = result(custom_sampling.RandomNoise.execute(3))
    expected = ksample(model, prompts, empty())
    parts = custom_sampling.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, empty())
    one = custom_sampling.SamplerCustom.execute(model, True, 3, 2.0, positive, negative, sampler, sigmas, empty())
    for output in (parts, one):
        sampled, denoised = output.args
        assert torch.equal(sampled["samples"], expected)
        # The last step goes to sigma 0: the result is the prediction.
        torch.testing.assert_close(denoised["samples"], expected)
        assert "downscale_ratio_spacial" not in sampled


def test_basic_guider_equals_cfg_1(model: ModelPatcher, prompts: Any) -> None:
    guider = result(custom_sampling.BasicGuider.execute(model, prompts[0]))
    sigmas = result(custom_sampling.BasicScheduler.execute(model, "normal", 3, 1.0))
    sampler = result(custom_sampling.KSamplerSelect.execute("euler"))
    noise = result(custom_sampling.RandomNoise.execute(3))
    got = custom_sampling.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, empty())
    assert torch.equal(result(got)["samples"], ksample(model, prompts, empty(), cfg=1.0))


def test_advanced_halves_make_a_whole(model: ModelPatcher, prompts: Any) -> None:
    whole = ksample(model, prompts, empty())
    assert torch.equal(advanced(model, prompts, empty(), 0, 10000)["samples"], whole)
    half = advanced(model, prompts, empty(), 0, 2, return_with_leftover_noise="enable")
    rest = advanced(model, prompts, half, 2, 10000, add_noise="disable")["samples"]
    torch.testing.assert_close(rest, whole, rtol=1e-4, atol=1e-4)
    ended = advanced(model, prompts, empty(), 0, 2)["samples"]
    assert not torch.allclose(ended, half["samples"], atol=1e-2)


def test_disabled_noise_is_no_noise(model: ModelPatcher, prompts: Any) -> None:
    image = {"samples": torch.sin(torch.arange(256.0)).reshape(1, 4, 8, 8)}
    source = result(custom_sampling.DisableNoise.execute())
    assert source.seed == 0
    assert not source.generate_noise(image).any()
    sampler = result(custom_sampling.KSamplerSelect.execute("euler"))
    sigmas = torch.tensor([0.02, 0.01])
    args = (False, 3, 1.0, prompts[0], prompts[1], sampler, sigmas, image)
    moved = result(custom_sampling.SamplerCustom.execute(model, *args))["samples"] - image["samples"]
    assert 0 < moved.abs().max() < 0.2


def test_no_sigmas_return_the_latent(model: ModelPatcher, prompts: Any) -> None:
    image = {"samples": torch.ones(1, 4, 8, 8)}
    sigmas = result(custom_sampling.BasicScheduler.execute(model, "normal", 3, 0.0))
    sampler = result(custom_sampling.KSamplerSelect.execute("euler"))
    args = (True, 3, 1.0, prompts[0], prompts[1], sampler, sigmas, image)
    for output in custom_sampling.SamplerCustom.execute(model, *args).args:
        assert torch.equal(output["samples"], image["samples"])


def test_denoise_keeps_the_last_steps(model: ModelPatcher) -> None:
    whole = result(custom_sampling.BasicScheduler.execute(model, "karras", 10, 1.0))
    assert torch.equal(result(custom_sampling.BasicScheduler.execute(model, "karras", 5, 0.5)), whole[-6:])


def test_noise_mask_keeps_the_rest(model: ModelPatcher, prompts: Any) -> None:
    image = {"samples": torch.sin(torch.arange(256.0)).reshape(1, 4, 8, 8)}
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1.0
    masked = result(latent.SetLatentNoiseMask.execute(image, mask))
    assert masked["noise_mask"].shape == (1, 1, 64, 64)
    assert "noise_mask" not in image
    out = ksample(model, prompts, masked, denoise=0.5)
    torch.testing.assert_close(out[..., :4], image["samples"][..., :4])
    assert not torch.allclose(out[..., 4:], image["samples"][..., 4:], atol=1e-2)


def test_progress_counts_every_step(model: ModelPatcher, prompts: Any) -> None:
    seen: list[tuple[float, float]] = []
    progress.set_progress_bar_global_hook(lambda value, total, preview: seen.append((value, total)))
    try:
        ksample(model, prompts, empty())
    finally:
        progress.set_progress_bar_global_hook(None)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_batch_of_four_equals_four_runs(model: ModelPatcher, prompts: Any) -> None:
    batch = ksample(model, prompts, empty(4))
    for i in range(4):
        alone = ksample(model, prompts, empty() | {"batch_index": [i]})
        assert within((alone[0] - batch[i]).abs().max(), 1e-4 * float(batch.abs().max()))


# Latents


def test_empty_latents_have_the_size_of_the_image() -> None:
    assert result(latent.EmptyLatentImage.execute(96, 64, 2))["samples"].shape == (2, 4, 8, 12)
    assert result(latent.EmptySD3LatentImage.execute(96, 64))["samples"].shape == (1, 16, 8, 12)


class Sixteen(torch.nn.Module):
    """A model of 16 channels whose cells are 16 pixels wide."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_format = latent_formats.Flux()
        self.latent_format.spacial_downscale_ratio = 16


def test_an_empty_latent_takes_the_models_shape() -> None:
    from tessera.host.sampling.noise import fix_empty_latent_channels

    model = ModelPatcher(Sixteen(), "cpu", "cpu")
    fixed = fix_empty_latent_channels(model, torch.zeros(2, 4, 8, 12), 8)
    assert fixed.shape == (2, 16, 4, 6)
    with pytest.raises(ValueError, match=naming("channels", 4, 16)):
        fix_empty_latent_channels(model, torch.ones(2, 4, 8, 12))


# Conditionings


def test_zero_out_keeps_the_shape_and_the_original() -> None:
    original = [[torch.ones(1, 3, 4), {"pooled_output": torch.ones(1, 5), "guidance": 2.0}]]
    zeroed = result(conditioning.ConditioningZeroOut.execute(original))
    assert not zeroed[0][0].any()
    assert not zeroed[0][1]["pooled_output"].any()
    assert zeroed[0][1]["guidance"] == 2.0
    assert original[0][0].all()
    assert original[0][1]["pooled_output"].all()


def test_flux_guidance_sets_a_copy() -> None:
    original: list[Any] = [[torch.ones(1, 3, 4), {}]]
    assert result(conditioning.FluxGuidance.execute(original, 2.0))[0][1] == {"guidance": 2.0}
    assert original[0][1] == {}


@pytest.mark.parametrize(("pixels", "shift"), [(256, 0.5), (1024, 1.15)])
def test_flux_shift_follows_the_size(model: ModelPatcher, pixels: int, shift: float) -> None:
    patched = result(sampling.ModelSamplingFlux.execute(model, 1.15, 0.5, pixels, pixels))
    assert patched.get_model_object("model_sampling").shift == pytest.approx(shift)
    assert not model.object_patches


def test_repeated_latents_have_masks_and_places_of_their_own() -> None:
    pair = {
        "samples": torch.arange(2.0).reshape(2, 1, 1, 1),
        "noise_mask": torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1),
    }
    repeated = result(latent.RepeatLatentBatch.execute(pair | {"batch_index": [4, 5]}, 2))
    assert repeated["samples"].flatten().tolist() == [0, 1, 0, 1]
    assert repeated["noise_mask"].flatten().tolist() == [0.25, 0.5, 0.25, 0.5]
    assert repeated["batch_index"] == [4, 5, 6, 7]
    one_mask = result(latent.RepeatLatentBatch.execute(pair | {"noise_mask": torch.ones(1, 1, 1, 1)}, 3))
    assert one_mask["noise_mask"].shape[0] == 1


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(256, 128, (16, 32)), (0, 128, (16, 24)), (192, 0, (16, 24)), (8, 8, (8, 8)), (0, 8, (8, 12)), (100, 60, (8, 12))],
)
def test_upscaled_latents_have_the_size_that_was_asked_for(width: int, height: int, size: tuple[int, int]) -> None:
    start = {"samples": torch.randn(2, 4, 8, 12), "noise_mask": torch.ones(1)}
    for method in METHODS:
        made = result(latent.LatentUpscale.execute(start, method, width, height, "disabled"))
        assert made["samples"].shape == (2, 4, *size)
        assert made["noise_mask"] is start["noise_mask"]


def test_latents_of_no_size_stay_as_they_are() -> None:
    start = empty()
    assert result(latent.LatentUpscale.execute(start, "bislerp", 0, 0, "center")) is start


def test_a_factor_is_rounded_to_whole_cells() -> None:
    made = result(latent.LatentUpscaleBy.execute({"samples": torch.randn(1, 4, 5, 6)}, "area", 1.5))
    assert made["samples"].shape == (1, 4, 8, 9)
    frames = {"samples": torch.randn(1, 4, 3, 5, 6)}
    made = result(latent.LatentUpscaleBy.execute(frames, "bislerp", 2.0))
    assert made["samples"].shape == (1, 4, 3, 10, 12)
    for frame in range(3):
        alone = result(latent.LatentUpscaleBy.execute({"samples": frames["samples"][:, :, frame]}, "bislerp", 2.0))
        torch.testing.assert_close(made["samples"][:, :, frame], alone["samples"])


def test_the_middle_is_cut_out_in_the_new_proportions() -> None:
    columns = torch.arange(16.0).expand(1, 4, 8, 16)
    made = result(latent.LatentUpscale.execute({"samples": columns}, "nearest-exact", 64, 64, "center"))
    assert made["samples"][0, 0, 0].tolist() == list(range(4, 12))


def test_bislerp_turns_and_does_not_shorten() -> None:
    right, up = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    pair = torch.stack([right, up], dim=-1).double()[None, :, None]
    made = bislerp(pair, 4, 1)[0, :, 0]
    # The four cells lie at 0, 1/4, 3/4 and 1 of the way.
    lengths, angles = made.norm(dim=0), torch.rad2deg(torch.atan2(made[1], made[0]))
    torch.testing.assert_close(lengths, torch.tensor([3.0, 2.5, 1.5, 1.0]).double())
    torch.testing.assert_close(angles, torch.tensor([0.0, 22.5, 67.5, 90.0]).double())


def test_bislerp_takes_equal_opposite_and_empty_cells() -> None:
    cells = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]]).double()
    made = bislerp(cells.T[None, :, None], 8, 1)[0, :, 0].T
    along = torch.tensor([1.0, 1.0, 1.0, 0.5, -0.5, -0.75, -0.25, 0.0]).double()
    assert made.isfinite().all()
    torch.testing.assert_close(made[[0, 1, 2, 3, 4, 7]], (along[:, None] * cells[0])[[0, 1, 2, 3, 4, 7]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_bislerp_of_the_same_size_changes_nothing(height: int, width: int, seed: int) -> None:
    cells = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(bislerp(cells, width, height), cells)
