"""The tiling nodes in a run: what they do to a sampled picture, and that nothing of them is left elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tessera.host.model_base import SD15
from tessera.host.patcher import ModelPatcher
from tessera.host.progress import InterruptProcessingException, interrupt_current_processing
from tessera.host.samplers import KSampler
from tessera.nodes import NODES
from tessera.nodes.offset import TesseraOffsetImage
from tessera.nodes.seam_check import TesseraSeamCheck
from tessera.nodes.seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from torch import Tensor, nn

SHAPE = (1, 4, 16, 24)


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _noise(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _text(value: float, **options: Any) -> list[list[Any]]:
    return [[torch.linspace(-value, value, 77 * 16).view(1, 77, 16), options]]


def _sample(model: Any, noise: Tensor, positive: list[list[Any]] | None = None, sampler: str = "euler") -> Tensor:
    run = KSampler(model, 3, sampler, "normal")
    return run.sample(noise, positive or _text(1.0), _text(-2.0), 2.0, torch.zeros_like(noise), seed=1)


def _seamless(model: Any, tiling: str = "both", start: float = 0.0, end: float = 1.0, method: str = "auto") -> Any:
    return TesseraSeamlessModel.execute(model, tiling, start, end, method).args[0]


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("tiling", "shift"), [("both", (8, 16)), ("horizontal", (0, 8)), ("vertical", (8, 0)), ("both", (0, 8))]
)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_whole_run_commutes_with_rolling(
    model: ModelPatcher, tiling: str, shift: tuple[int, int], sampler: str
) -> None:
    seamless = _seamless(model, tiling)
    picture = _sample(seamless, _noise(), sampler=sampler)
    assert (
        _distance(_sample(seamless, _noise().roll(shift, (2, 3)), sampler=sampler), picture.roll(shift, (2, 3))) < 1e-5
    )
    assert _distance(_sample(model, _noise().roll(shift, (2, 3)), sampler=sampler), picture.roll(shift, (2, 3))) > 0.01


def test_branches_of_a_graph_do_not_touch_each_other(model: ModelPatcher) -> None:
    plain = _sample(model, _noise())
    seamless, frieze = _seamless(model), _seamless(model, "horizontal")
    first = _sample(seamless, _noise())
    assert torch.equal(_sample(model, _noise()), plain)
    assert not torch.equal(_sample(frieze, _noise()), first)
    assert torch.equal(_sample(seamless, _noise()), first)
    assert torch.equal(_sample(model, _noise()), plain)


def test_nothing_is_left_on_the_model(model: ModelPatcher) -> None:
    before = {name: set(layer.__dict__) for name, layer in model.model.named_modules()}
    seamless = _seamless(model)
    options = repr(seamless.model_options)
    _sample(seamless, _noise())
    assert {name: set(layer.__dict__) for name, layer in model.model.named_modules()} == before
    assert repr(seamless.model_options) == options
    assert not model.wrappers


def _interrupt(_: nn.Module, __: Any, ___: Any) -> None:
    interrupt_current_processing()


def _fail(_: nn.Module, __: Any, ___: Any) -> None:
    raise RuntimeError("broken layer")


@pytest.mark.parametrize(
    ("stop", "error"), [(_interrupt, InterruptProcessingException), (_fail, RuntimeError)], ids=["interrupt", "error"]
)
def test_a_run_that_stops_leaves_nothing_either(
    model: ModelPatcher, stop: Callable[..., None], error: type[Exception]
) -> None:
    plain = _sample(model, _noise())
    hook = model.model.diffusion_model.mid_block.register_forward_hook(stop)
    try:
        with pytest.raises(error):
            _sample(_seamless(model), _noise())
    finally:
        hook.remove()
        interrupt_current_processing(False)
    assert not any("_conv_forward" in layer.__dict__ for layer in model.model.modules())
    assert torch.equal(_sample(model, _noise()), plain)


def test_percentages_bound_the_range(model: ModelPatcher) -> None:
    plain, whole = _sample(model, _noise()), _sample(_seamless(model), _noise())
    early = _sample(_seamless(model, end=0.5), _noise())
    late = _sample(_seamless(model, start=0.5), _noise())
    for part in (early, late):
        assert not torch.equal(part, plain)
        assert not torch.equal(part, whole)
    between = _seamless(model, start=0.6, end=0.7)  # the three steps are at 0, 0.5 and 1
    assert torch.equal(_sample(between, _noise()), plain)


def test_off_is_the_model_itself_or_undoes_the_node(model: ModelPatcher) -> None:
    assert _seamless(model, "off", method="torus_rope") is model
    undone = _seamless(_seamless(model), "off")
    assert torch.equal(_sample(undone, _noise()), _sample(model, _noise()))
    assert not any(undone.wrappers.values())


def test_the_last_of_two_nodes_counts(model: ModelPatcher) -> None:
    twice = _seamless(_seamless(model, "vertical"), "horizontal")
    assert torch.equal(_sample(twice, _noise()), _sample(_seamless(model, "horizontal"), _noise()))


def test_sizes_that_break_the_torus_are_refused_before_the_first_step(model: ModelPatcher) -> None:
    calls = []
    hook = model.model.diffusion_model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match="width.*160 px; set the width to 128 or 192 px"):
            _sample(_seamless(model), _noise((1, 4, 16, 20)))
    finally:
        hook.remove()
    assert not calls
    assert _sample(_seamless(model, "vertical"), _noise((1, 4, 16, 20))).shape == (1, 4, 16, 20)


def test_batches_equal_single_runs(model: ModelPatcher) -> None:
    noise = _noise((3, *SHAPE[1:]))
    together = _sample(_seamless(model), noise)
    alone = torch.cat([_sample(_seamless(model), single[None]) for single in noise])
    assert _distance(together, alone) < 1e-5


def test_a_region_smaller_than_the_picture_keeps_its_own_edges(model: ModelPatcher) -> None:
    """Area conditioning hands the UNet a crop; wrapping it would join edges that are not neighbours."""
    half = _text(1.0, area=(16, 8, 0, 0), strength=1.0) + _text(0.5)
    seamless = _seamless(model, "horizontal")
    seen = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(
            (inputs[0].shape[-1], "_conv_forward" in module.__dict__ and module.__dict__["_conv_forward"].args[1])
        )

    hook = model.model.diffusion_model.conv_in.register_forward_hook(look)
    _sample(seamless, _noise(), half)
    hook.remove()
    assert {width: bool(axes and axes.horizontal) for width, axes in seen} == {8: False, 24: True}


def test_control_networks_are_named_in_the_log(model: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    class Depth:
        previous_controlnet = None

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

    with caplog.at_level(logging.WARNING):
        _sample(_seamless(model), _noise(), _text(1.0, control=Depth()))
    assert "Depth is not made periodic" in caplog.text


@pytest.mark.parametrize("method", ["torus_rope", "rolling"])
def test_methods_that_are_not_there_are_refused(model: ModelPatcher, method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} is not available yet; choose one of: auto, circular"):
        _seamless(model, method=method)


def test_other_bad_input(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match="start_percent 0.8 lies after end_percent 0.2"):
        _seamless(model, start=0.8, end=0.2)
    transformer = ModelPatcher(SD15(nn.Linear(1, 1)), "cpu", "cpu")
    with pytest.raises(ValueError, match="Linear"):
        _seamless(transformer)


def test_report_says_what_was_done(model: ModelPatcher) -> None:
    report = TesseraSeamlessModel.execute(model, "horizontal", 0.0, 0.8, "auto").args[1]
    for words in ("UNet2DConditionModel", "left-right edges", "0% to 80%", "64 px", "Control networks"):
        assert words in report
    assert "Off" in TesseraSeamlessModel.execute(model, "off", 0.0, 1.0, "auto").args[1]


def test_seam_check_and_offset() -> None:
    ramp = torch.linspace(0, 1, 32)[None, None, :, None].expand(2, 32, 32, 3)
    tiled, heat, ratio, report = TesseraSeamCheck.execute(ramp, 3, 2).args
    assert tiled.shape == (2, 64, 96, 3)
    assert heat.shape == ramp.shape
    assert ratio > 20
    assert "left and right meet: a seam shows" in report
    (moved,) = TesseraOffsetImage.execute(ramp, 0.5, 0.0).args
    assert torch.equal(moved.roll(16, 2), ramp)


def test_seamless_vae_off_is_the_vae() -> None:
    vae = type("VAE", (), {"first_stage_model": nn.Conv2d(1, 1, 3)})()
    assert TesseraSeamlessVAE.execute(vae, "off").args == (vae,)


@pytest.mark.parametrize("node", NODES)
def test_defaults_of_the_schema_are_accepted_by_execute(node: Any) -> None:
    names = [entry.id for entry in node.define_schema().inputs]
    code = node.execute.__func__.__code__
    assert list(code.co_varnames[1 : code.co_argcount]) == names
