"""The tiling nodes in a run: what they do to a sampled image, and that nothing of them is left elsewhere."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.host.models.architectures import build_flux
from tessera.host.models.model_base import SD15, Flux
from tessera.host.progress import InterruptProcessingException, interrupt_current_processing
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.host.sampling.ksampler import KSampler
from tessera.nodes import NODES
from tessera.nodes.offset import TesseraOffsetImage
from tessera.nodes.seam_check import TesseraSeamCheck
from tessera.nodes.seamless import KEY, TesseraSeamlessModel, TesseraSeamlessVAE
from tessera.patching.calls import WHOLE_TOKENS, DenoiserCall, SamplingRun
from tessera.tiling import dit
from tessera.tiling.axes import TILINGS, Axes
from tessera.tiling.dit import FEWEST_STEPS, PHASES
from tessera.tiling.roll import Shift
from tessera.tiling.rolling import Rolling, run_rolled
from tiny_models import FLUX, flux_weights
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
    image = _sample(seamless, _noise(), sampler=sampler)
    moved = _sample(seamless, _noise().roll(shift, (2, 3)), sampler=sampler)
    assert within(_distance(moved, image.roll(shift, (2, 3))), 1e-5)
    assert _distance(_sample(model, _noise().roll(shift, (2, 3)), sampler=sampler), image.roll(shift, (2, 3))) > 0.01


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
        with pytest.raises(ValueError, match=naming("width", 160, 128, 192)):
            _sample(_seamless(model), _noise((1, 4, 16, 20)))
    finally:
        hook.remove()
    assert not calls
    assert _sample(_seamless(model, "vertical"), _noise((1, 4, 16, 20))).shape == (1, 4, 16, 20)


def test_batches_equal_single_runs(model: ModelPatcher) -> None:
    noise = _noise((3, *SHAPE[1:]))
    together = _sample(_seamless(model), noise)
    alone = torch.cat([_sample(_seamless(model), single[None]) for single in noise])
    assert within(_distance(together, alone), 1e-5)


def test_a_region_smaller_than_the_image_keeps_its_own_edges(model: ModelPatcher) -> None:
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


class _Control:
    """Stands for ComfyUI's `ControlNet`: the part of it that hooks and samplers ask for."""

    previous_controlnet = None

    def __init__(self, network: Any) -> None:
        self.control_model = network

    def get_models(self) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def test_control_networks_wrap_while_conditionings_are_computed(model: ModelPatcher) -> None:
    """A host asks control networks before it calls the denoiser, in CALC_COND_BATCH; regions keep their edges."""
    whole, part = (nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False) for _ in range(2))
    seamless, wrapped = _seamless(model, "horizontal", end=0.6), []

    def look(executor: Any, *args: Any) -> Any:
        wrapped.append(["_conv_forward" in network.__dict__ for network in (whole, part)])
        return executor(*args)

    seamless.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "look", look)
    region = _text(0.5, area=(16, 8, 0, 0), strength=1.0, control=_Control(part))
    _sample(seamless, _noise(), _text(1.0, control=_Control(whole)) + region)
    assert wrapped == [[True, False], [True, False], [False, False]]  # the last of three steps lies past the end
    assert "_conv_forward" not in whole.__dict__


def test_control_networks_that_cannot_wrap_are_named_in_the_log(
    model: ModelPatcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Depth(_Control):
        previous_controlnet = _Control(nn.Conv2d(1, 1, 3, padding=1))

    with caplog.at_level(logging.WARNING):
        _sample(_seamless(model), _noise(), _text(1.0, control=Depth(nn.ConvTranspose2d(1, 1, 3))))
    assert caplog.text.count("Depth is not made periodic") == 1
    assert "_Control" not in caplog.text


@pytest.mark.parametrize(
    "network", [nn.Embedding(4, 4), nn.Sequential(type("EmbedND", (nn.Module,), {})())], ids=["table", "no token size"]
)
def test_control_networks_whose_positions_cannot_repeat_are_named(
    model: ModelPatcher, caplog: pytest.LogCaptureFixture, network: nn.Module
) -> None:
    with caplog.at_level(logging.WARNING):
        _sample(_seamless(model), _noise(), _text(1.0, control=_Control(network)))
    assert "_Control is not made periodic" in caplog.text


def test_control_networks_that_are_built_when_the_run_begins_are_not_named(
    model: ModelPatcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(_Control):
        def pre_run(self, *_: Any) -> None:
            self.control_model = nn.Conv2d(1, 1, 3, padding=1)

    with caplog.at_level(logging.WARNING):
        _sample(_seamless(model), _noise(), _text(1.0, control=Late(None)))
    assert not caplog.text


def test_a_range_without_a_step_is_named_in_the_log(model: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _sample(_seamless(model, start=0.5, end=1.0), _noise())
        assert not caplog.text
        _sample(_seamless(model, start=0.6, end=0.61), _noise())
    assert "no step of this run is between 60% and 61% of the schedule, so its edges do not meet" in caplog.text


def test_methods_that_do_not_suit_the_model_are_refused(model: ModelPatcher, transformer: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("torus_rope", "UNet2DConditionModel", "auto")):
        _seamless(model, method="torus_rope")
    with pytest.raises(ValueError, match=naming("circular", "FluxTransformer2DModel", "auto")):
        _seamless(transformer, method="circular")


def test_other_bad_input(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("start_percent", 0.8, "end_percent", 0.2)):
        _seamless(model, start=0.8, end=0.2)
    audio = SimpleNamespace(
        conds={},
        model_options={"transformer_options": {}},
        model_patcher=ModelPatcher(SD15(nn.Linear(1, 1)), "cpu", "cpu"),
    )
    run = SamplingRun(SimpleNamespace(class_obj=audio), {"noise": torch.zeros(1, 4, 16)})
    with pytest.raises(ValueError, match=naming("(1, 4, 16)")):
        Rolling(TILINGS["both"]).around_run(run)


def test_an_unknown_model_is_rolled_and_the_report_says_so() -> None:
    unknown = ModelPatcher(SD15(nn.Linear(1, 1)), "cpu", "cpu")
    seamless, report = TesseraSeamlessModel.execute(unknown, "both", 0.0, 1.0, "auto").args
    assert seamless is not unknown
    assert "Linear: the image is rolled at every step (rolling)" in report
    assert "not exact" in report


@pytest.fixture(scope="module")
def transformer() -> ModelPatcher:
    return ModelPatcher(Flux(build_flux(flux_weights(), torch.float32, FLUX)), "cpu", "cpu")


def _draw(model: Any, noise: Tensor, steps: int = 3, seed: int = 1, **options: Any) -> Tensor:
    """A run of a transformer, with text of width 32."""
    text = [[torch.linspace(-1, 1, 5 * 32).view(1, 5, 32), {"pooled_output": torch.ones(1, 64), **options}]]
    run = KSampler(model, steps, "euler", "simple")
    return run.sample(noise, text, text, 1.0, torch.zeros_like(noise), seed=seed)


def test_a_transformer_draws_on_a_torus(transformer: ModelPatcher) -> None:
    """Constant noise: what structure there is comes from positions, and is continuous over the border."""
    noise = torch.randn(1, 16, 1, 1, generator=torch.Generator().manual_seed(3)).expand(1, 16, 24, 24).contiguous()
    plain = _draw(transformer, noise)
    seamless, report = TesseraSeamlessModel.execute(transformer, "horizontal", 0.0, 1.0).args
    drawn = _draw(seamless, noise)
    assert "torus RoPE" in report
    assert "16 px" in report
    tokens = drawn[0].unflatten(1, (12, 2)).unflatten(3, (12, 2)).mean((2, 4))
    for dim, low, high in ((2, 0.2, 2.0), (1, 2.0, 99.0)):
        steps = (tokens - tokens.roll(1, dim)).abs().mean([i for i in range(3) if i != dim])
        assert low < steps[0] / steps[1:].mean() < high
    assert torch.equal(_draw(transformer, noise), plain)
    assert not any("forward" in layer.__dict__ for layer in transformer.model.modules())


@pytest.mark.parametrize("tiling", ["both", "horizontal", "vertical"])
def test_a_longer_run_evens_out_the_grid_of_tokens(transformer: ModelPatcher, tiling: str) -> None:
    """Constant noise: a token's latents differ as its neighbours' do, unless it lies elsewhere half of the time."""
    noise = torch.randn(1, 16, 1, 1, generator=torch.Generator().manual_seed(3)).expand(1, 16, 24, 24).contiguous()
    seamless, still = _seamless(transformer, tiling), _seamless(transformer, tiling)
    still.model_options["transformer_options"][WHOLE_TOKENS] = True
    moved, kept = (_draw(each, noise, steps=FEWEST_STEPS) for each in (seamless, still))
    for dim, wraps in ((2, TILINGS[tiling].vertical), (3, TILINGS[tiling].horizontal)):
        steps = [(each - each.roll(1, dim)).abs().mean([i for i in range(4) if i != dim]) for each in (moved, kept)]
        if wraps:
            assert steps[0].mean() < 0.5 * steps[1].mean()
            assert steps[0][0] / steps[0][1:].mean() == pytest.approx(1, abs=0.2)
        else:
            assert steps[0].mean() > 0.7 * steps[1].mean()


@pytest.mark.parametrize("with_reference", [False, True])
def test_all_conditionings_see_the_image_in_the_same_place(
    transformer: ModelPatcher, monkeypatch: pytest.MonkeyPatch, with_reference: bool
) -> None:
    """A reference image on the positive prompt alone keeps both where they are: their difference is guidance."""
    shifts = []

    def note(call: DenoiserCall, unit: int, shift: Shift, axes: Axes) -> Tensor:
        shifts.append(shift)
        return run_rolled(call, unit, shift, axes)

    monkeypatch.setattr(dit, "run_rolled", note)
    reference = {"reference_latents": [torch.zeros(1, 16, 24, 24)]} if with_reference else {}
    text = [[torch.linspace(-1, 1, 5 * 32).view(1, 5, 32), {"pooled_output": torch.ones(1, 64)}]]
    positive = [[text[0][0], text[0][1] | reference]]
    noise = _noise((1, 16, 24, 24))
    run = KSampler(_seamless(transformer), FEWEST_STEPS, "euler", "simple")
    run.sample(noise, positive, text, 2.0, torch.zeros_like(noise), seed=1)
    assert set(shifts) == ({(0, 0)} if with_reference else set(PHASES))


def test_sizes_of_a_transformer(transformer: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("width", 16, 120, 112, 128)):
        _draw(_seamless(transformer), torch.zeros(1, 16, 16, 15))
    assert _draw(_seamless(transformer, "vertical"), torch.zeros(1, 16, 16, 15), steps=1).shape[-1] == 15


def test_a_transformer_keeps_its_edges_outside_the_range(transformer: ModelPatcher) -> None:
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(_draw(_seamless(transformer, start=0.99), noise), _draw(transformer, noise))


def test_rolling_moves_what_has_the_size_of_the_image_and_nothing_else(transformer: ModelPatcher) -> None:
    """With a model that commutes with rolling nothing changes; the shift depends on seed and step alone."""
    seamless = _seamless(transformer, method="rolling")
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(_draw(seamless, noise), _draw(seamless, noise))
    assert not torch.equal(_draw(seamless, noise, seed=2), _draw(seamless, noise))
    assert _distance(_draw(seamless, noise), _draw(transformer, noise)) > 0.01


def test_rolling_a_model_that_commutes_with_it_changes_nothing(model: ModelPatcher) -> None:
    rolled = _seamless(model, method="rolling")
    for step in (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL):
        for wrapper in _seamless(model).get_wrappers(step, KEY):
            rolled.add_wrapper_with_key(step, "circular", wrapper)
    assert within(_distance(_sample(rolled, _noise()), _sample(_seamless(model), _noise())), 1e-5)


def test_report_says_what_was_done(model: ModelPatcher) -> None:
    report = TesseraSeamlessModel.execute(model, "horizontal", 0.0, 0.8, "auto").args[1]
    for words in ("UNet2DConditionModel", "left-right edges", "0% to 80%", "64 px", "Control networks"):
        assert words in report
    assert "64 px, the height of 128 px." in TesseraSeamlessModel.execute(model, "half_drop").args[1]
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
    inspect.signature(node.execute).bind(**dict.fromkeys(names))
