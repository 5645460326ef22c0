"""Patches act where ComfyUI lets them act, and leave nothing behind, also after errors and interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tessera.host import progress
from tessera.host.models import model_base
from tessera.host.runtime.model_options import set_model_options_patch_replace
from tessera.host.runtime.patcher import CallbacksMP, ModelPatcher, WrapperExecutor, WrappersMP
from tessera.host.runtime.patcher_extension import merge_nested_dicts
from tessera.host.sampling import guiders, ksampler, noise, samplers
from torch import Tensor, nn

WRAPPERS = [value for name, value in vars(WrappersMP).items() if name.isupper()]


class Net(nn.Module):
    """A denoiser of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.Tanh()

    def forward(self, x: Tensor, t: Tensor, context: Tensor, **kwargs: Any) -> tuple[Tensor]:
        return (self.act(self.conv(x)) + context.mean(),)


@pytest.fixture
def patcher() -> ModelPatcher:
    torch.manual_seed(0)
    return ModelPatcher(model_base.SD15(Net()), "cpu", "cpu")


def sample(model: ModelPatcher, cfg: float = 2.0, callback: Any = None) -> Tensor:
    latent = torch.zeros(1, 4, 8, 8)
    positive, negative = [[torch.ones(1, 3, 4), {}]], [[-torch.ones(1, 3, 4), {}]]
    steps = ksampler.KSampler(model, 3, "euler", "normal")
    return steps.sample(noise.prepare_noise(latent, 1), positive, negative, cfg, latent, callback=callback, seed=1)


def state(model: ModelPatcher) -> dict[str, Any]:
    """Everything of the model that a patch could touch, by identity and by bits."""
    modules = {name: (id(module), sorted(vars(module))) for name, module in model.model.named_modules()}
    tensors = {name: (id(t), t.clone()) for name, t in model.model.state_dict(keep_vars=True).items()}
    return {"modules": modules, "tensors": tensors}


def assert_untouched(model: ModelPatcher, before: dict[str, Any]) -> None:
    after = state(model)
    assert after["modules"] == before["modules"]
    for name, (identity, bits) in before["tensors"].items():
        assert after["tensors"][name][0] == identity
        assert torch.equal(after["tensors"][name][1], bits)
    assert not model.backup
    assert not model.object_patches_backup
    assert not model.patched_by
    assert model.model.current_patcher is None


def heavily_patched(model: ModelPatcher) -> ModelPatcher:
    clone = model.clone()
    clone.add_object_patch("diffusion_model.act", nn.ReLU())
    clone.add_object_patch("diffusion_model.conv._conv_forward", model.model.diffusion_model.conv._conv_forward)
    clone.add_object_patch("model_sampling", model_base.model_sampling(None, model_base.ModelType.V_PREDICTION))
    clone.add_patches({"diffusion_model.conv.weight": torch.full((4, 4, 3, 3), 0.3)}, 0.7, 0.9)
    clone.add_patches({"diffusion_model.conv.bias": lambda bias: bias * 2})
    return clone


# Nothing leaks


def test_a_patched_clone_changes_its_own_runs_only(patcher: ModelPatcher) -> None:
    before, plain = state(patcher), sample(patcher)
    clone = heavily_patched(patcher)
    assert not torch.allclose(sample(clone), plain)
    assert_untouched(patcher, before)
    assert torch.equal(sample(patcher), plain)


@pytest.mark.parametrize("place", WRAPPERS)
def test_an_error_at_any_depth_leaves_nothing(patcher: ModelPatcher, place: str) -> None:
    before, plain = state(patcher), sample(patcher)
    clone = heavily_patched(patcher)

    def fail_after(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        executor(*args, **kwargs)
        raise KeyError("stop")

    clone.add_wrapper(place, fail_after)
    with pytest.raises(KeyError, match="stop"):
        sample(clone)
    assert_untouched(patcher, before)
    assert torch.equal(sample(patcher), plain)


@pytest.fixture
def interruption() -> Iterator[None]:
    yield
    progress.interrupt_current_processing(False)


def test_an_interruption_leaves_nothing(patcher: ModelPatcher, interruption: None) -> None:
    before = state(patcher)
    calls: list[int] = []

    def stop(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        calls.append(step)
        progress.interrupt_current_processing()

    with pytest.raises(progress.InterruptProcessingException):
        sample(heavily_patched(patcher), callback=stop)
    assert calls == [0]
    assert_untouched(patcher, before)


def test_an_object_patch_that_does_not_fit_leaves_nothing(patcher: ModelPatcher) -> None:
    before = state(patcher)
    clone = heavily_patched(patcher)
    clone.add_object_patch("diffusion_model.absent.weight", nn.ReLU())
    with pytest.raises(AttributeError, match="absent"):
        sample(clone)
    assert_untouched(patcher, before)


def test_a_weight_patch_of_the_wrong_shape_leaves_nothing(patcher: ModelPatcher) -> None:
    before = state(patcher)
    clone = heavily_patched(patcher)
    clone.add_patches({"diffusion_model.conv.weight": torch.ones(5)})
    with pytest.raises(RuntimeError, match="size"):
        sample(clone)
    assert_untouched(patcher, before)


def test_patching_that_fails_undoes_itself(patcher: ModelPatcher) -> None:
    before = state(patcher)
    clone = heavily_patched(patcher)
    clone.add_callback(CallbacksMP.ON_LOAD, lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clone.patch_model("cpu")
    assert_untouched(patcher, before)


def test_a_module_as_object_patch_follows_the_model_to_its_device() -> None:
    clone = ModelPatcher(Net(), "meta", "cpu")
    layer = nn.Conv2d(4, 4, 3)
    clone.add_object_patch("conv", layer)
    clone.patch_model("meta")
    assert layer.weight.device.type == "meta"
    clone.unpatch_model()


def test_the_same_model_cannot_be_sampled_inside_its_own_run(patcher: ModelPatcher) -> None:
    before = state(patcher)
    clone = heavily_patched(patcher)
    clone.add_wrapper(WrappersMP.APPLY_MODEL, lambda executor, *args, **kwargs: sample(patcher))
    with pytest.raises(RuntimeError, match="end that run"):
        sample(clone)
    assert_untouched(patcher, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inference", [False, True])
def test_weights_come_back_bit_for_bit(dtype: torch.dtype, inference: bool) -> None:
    layer = nn.Linear(33, 17).to(dtype)
    bits = layer.weight.detach().clone()
    model = ModelPatcher(layer, "cpu", "cpu")
    model.add_patches({"weight": torch.randn(17, 33)}, 0.5)
    with torch.inference_mode(inference):
        model.patch_model("cpu")
        assert layer.weight.dtype == dtype
        assert not torch.equal(layer.weight, bits)
        model.unpatch_model("cpu")
    assert torch.equal(layer.weight, bits)


# Weights


def test_weight_patches_add_up_in_order() -> None:
    layer = nn.Linear(2, 2)
    model = ModelPatcher(layer, "cpu", "cpu")
    start = layer.weight.detach().clone()
    change = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert model.add_patches({"weight": change, "absent": change}, 0.5) == ["weight"]
    model.add_patches({"weight": lambda weight: weight * 2}, 0.25, 0.5)
    halved = (start + 0.5 * change) * 0.5
    torch.testing.assert_close(model.patched_weight("weight", start), halved + 0.25 * halved * 2)


def test_many_weights_are_looked_up_once() -> None:
    class Counting(nn.Linear):
        asked = 0

        def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            self.asked += 1
            return super().state_dict(*args, **kwargs)

    layer = Counting(2, 2)
    model = ModelPatcher(layer, "cpu", "cpu")
    model.add_patches({"weight": torch.ones(2, 2), "bias": torch.ones(2), **dict.fromkeys("abc", torch.ones(2))})
    assert layer.asked == 1


def test_size_counts_bytes(patcher: ModelPatcher) -> None:
    expected = sum(t.nelement() * t.element_size() for t in patcher.model.state_dict().values())
    assert patcher.model_size() == expected == patcher.clone().model_size()


def test_state_dict_can_be_filtered(patcher: ModelPatcher) -> None:
    assert set(patcher.model_state_dict("diffusion_model.conv.")) == {
        "diffusion_model.conv.weight",
        "diffusion_model.conv.bias",
    }


# Clones


def test_clones_share_the_model_and_nothing_else(patcher: ModelPatcher) -> None:
    patcher.set_model_attn2_patch("a")
    patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "key", print)
    clone = patcher.clone()
    assert clone.is_clone(patcher)
    assert clone.parent is patcher
    clone.set_model_attn2_patch("b")
    clone.set_model_attn2_replace("c", "input", 1, 0)
    clone.set_model_attn1_replace("d", "middle", 0)
    clone.set_model_sampler_post_cfg_function(print, disable_cfg1_optimization=True)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "key", repr)
    clone.add_patches({"diffusion_model.conv.bias": torch.ones(4)})
    assert patcher.model_options == {"transformer_options": {"patches": {"attn2_patch": ["a"]}}}
    assert clone.model_options["transformer_options"]["patches"] == {"attn2_patch": ["a", "b"]}
    replaced = {"attn2": {("input", 1, 0): "c"}, "attn1": {("middle", 0): "d"}}
    assert clone.model_options["transformer_options"]["patches_replace"] == replaced
    assert patcher.get_wrappers(WrappersMP.APPLY_MODEL, "key") == [print]
    assert clone.get_all_wrappers(WrappersMP.APPLY_MODEL) == [print, repr]
    assert not patcher.patches


def test_replacing_in_options_does_not_reach_options_that_share_dictionaries() -> None:
    shared: dict[str, Any] = {"transformer_options": {"patches_replace": {"attn2": {("input", 1): "a"}}}}
    changed = set_model_options_patch_replace(dict(shared), "b", "attn2", "input", 2)
    assert shared == {"transformer_options": {"patches_replace": {"attn2": {("input", 1): "a"}}}}
    replaced = {"attn2": {("input", 1): "a", ("input", 2): "b"}}
    assert changed["transformer_options"]["patches_replace"] == replaced


def test_get_model_object_sees_own_patches_and_never_another_branch(patcher: ModelPatcher) -> None:
    original = patcher.model.model_sampling
    clone = heavily_patched(patcher)
    seen: list[Any] = []

    def look(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        seen.append((patcher.get_model_object("model_sampling"), patcher.model.model_sampling))
        return executor(*args, **kwargs)

    clone.add_wrapper(WrappersMP.CALC_COND_BATCH, look)
    sample(clone)
    patched = clone.get_model_object("model_sampling")
    assert patched is not original
    assert all(base is original and live is patched for base, live in seen)


# Wrappers and callbacks


def test_wrappers_are_called_where_comfyui_calls_them(patcher: ModelPatcher) -> None:
    calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def record(place: str) -> Any:
        def wrapper(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
            calls.append((place, args, executor.class_obj))
            return executor(*args, **kwargs)

        return wrapper

    for place in WRAPPERS:
        patcher.add_wrapper(place, record(place))
    plain = ModelPatcher(patcher.model, "cpu", "cpu")
    assert torch.equal(sample(patcher), sample(plain))
    step = [
        WrappersMP.PREDICT_NOISE,
        WrappersMP.CALC_COND_BATCH,
        WrappersMP.APPLY_MODEL,
        WrappersMP.DIFFUSION_MODEL,
    ]
    start = [WrappersMP.OUTER_SAMPLE, WrappersMP.PREPARE_SAMPLING, WrappersMP.SAMPLER_SAMPLE]
    assert [place for place, _, _ in calls] == start + 3 * step
    arguments = {place: (args, obj) for place, args, obj in calls}
    assert isinstance(arguments[WrappersMP.OUTER_SAMPLE][1], guiders.CFGGuider)
    assert isinstance(arguments[WrappersMP.PREDICT_NOISE][1], guiders.CFGGuider)
    assert isinstance(arguments[WrappersMP.SAMPLER_SAMPLE][1], samplers.KSAMPLER)
    assert arguments[WrappersMP.APPLY_MODEL][1] is patcher.model
    assert arguments[WrappersMP.DIFFUSION_MODEL][1] is patcher.model.diffusion_model
    x, t, c_concat, c_crossattn, control, options = arguments[WrappersMP.APPLY_MODEL][0]
    assert x.shape == (2, 4, 8, 8)
    assert t.shape == (2,)
    assert c_concat is None
    assert c_crossattn.shape == (2, 3, 4)
    assert control is None
    assert options["cond_or_uncond"] == [1, 0]
    assert len(options["uuids"]) == 2
    assert len(options["sample_sigmas"]) == 4
    assert options["sigmas"].shape == (1,)
    x, timesteps, context, y, control, options = arguments[WrappersMP.DIFFUSION_MODEL][0]
    assert torch.equal(timesteps, torch.tensor([0.0, 0.0]))
    assert context.shape == (2, 3, 4)
    assert y is None


def test_the_first_wrapper_is_outermost_and_can_change_arguments_and_result(patcher: ModelPatcher) -> None:
    executor = WrapperExecutor(
        lambda x: x + 1,
        None,
        [lambda inner, x: inner(x * 2) * 10, lambda inner, x: inner(x + 3)],
    )
    assert executor.execute(5) == (5 * 2 + 3 + 1) * 10


def test_wrappers_are_removed_by_key(patcher: ModelPatcher) -> None:
    patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "key", print)
    patcher.add_wrapper(WrappersMP.APPLY_MODEL, repr)
    patcher.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, "key")
    patcher.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, "never added")
    assert patcher.get_all_wrappers(WrappersMP.APPLY_MODEL) == [repr]


def test_callbacks_of_a_run_come_in_order(patcher: ModelPatcher) -> None:
    calls: list[str] = []
    for kind in (CallbacksMP.ON_LOAD, CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_PREPARE_STATE, CallbacksMP.ON_CLEANUP):
        patcher.add_callback(kind, lambda *args, kind=kind: calls.append(kind))
    patcher.add_callback(CallbacksMP.ON_CLONE, lambda old, new: calls.append(CallbacksMP.ON_CLONE))
    sample(patcher.clone())
    steps = [CallbacksMP.ON_PREPARE_STATE] * 3
    start = [CallbacksMP.ON_CLONE, CallbacksMP.ON_LOAD, CallbacksMP.ON_PRE_RUN]
    assert calls == [*start, *steps, CallbacksMP.ON_CLEANUP]


def test_patches_with_tensors_are_moved_and_cleaned_up(patcher: ModelPatcher) -> None:
    events: list[str] = []

    class Patch:
        def to(self, device: torch.device) -> Patch:
            events.append(f"to {device}")
            return self

        def cleanup(self) -> None:
            events.append("cleanup")

        def __call__(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
            return apply_model(args["input"], args["timestep"], **args["c"])

    patcher.set_model_unet_function_wrapper(Patch())
    sample(patcher)
    assert events == ["to cpu", "cleanup", "to cpu"]


def test_options_merge_without_touching_the_second() -> None:
    first: dict[str, Any] = {"a": {"x": [1]}, "b": 1}
    second: dict[str, Any] = {"a": {"x": [2], "y": [3]}, "b": 2}
    merged = merge_nested_dicts(first, second)
    merged["a"]["y"].append(4)
    assert merged == {"a": {"x": [1, 2], "y": [3, 4]}, "b": 2}
    assert first == {"a": {"x": [1]}, "b": 1}
    assert second == {"a": {"x": [2], "y": [3]}, "b": 2}
