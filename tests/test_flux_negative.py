"""The negative prompt for Flux in a run: what it does, what it costs, what it leaves."""

from __future__ import annotations

import copy
import logging
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from double_precision import double_precision
from margins import within
from naming import naming
from tessera.guidance.flux_negative import METHODS
from tessera.guidance.formulas import nag
from tessera.host.models.attention_hooks import optimized_attention
from tessera.host.models.model_base import SD15, Flux
from tessera.host.progress import InterruptProcessingException, interrupt_current_processing
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.host.sampling.guiders import CFGGuider
from tessera.host.sampling.ksampler import KSampler
from tessera.host.sampling.samplers import sampler_object
from tessera.nodes.flux_negative import TesseraFluxNegative
from tessera.tiling.axes import Axes
from tessera.tiling.torus import torus
from torch import Tensor

SHAPE = (1, 16, 8, 12)
STEPS = 4


@pytest.fixture
def model(flux_transformer: Any) -> ModelPatcher:
    return ModelPatcher(Flux(flux_transformer), "cpu", "cpu")


def _noise(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _text(seed: int, length: int = 5, **values: Any) -> list[list[Any]]:
    text = torch.randn(1, length, 16, generator=torch.Generator().manual_seed(seed))
    return [[text, {"pooled_output": torch.ones(1, 24), **values}]]


POSITIVE, NEGATIVE = _text(1), _text(2, 3)


def _sample(model: Any, noise: Tensor | None = None, cfg: float = 1.0, positive: Any = None, **options: Any) -> Tensor:
    noise = _noise() if noise is None else noise
    run = KSampler(model, STEPS, "euler", "simple")
    empty = torch.zeros_like(noise)
    return run.sample(noise, positive or POSITIVE, _text(3), cfg, empty, seed=1, disable_pbar=True, **options)


def _steered(
    model: Any, strength: float, method: str = "auto", start: float = 0.0, end: float = 1.0, negative: Any = None
) -> Any:
    negative = NEGATIVE if negative is None else negative
    return TesseraFluxNegative.execute(model, negative, strength, method, start, end).args[0]


def _counted(model: Any) -> tuple[Any, list[Tensor]]:
    """A clone that notes the text of every forward."""
    texts: list[Tensor] = []

    def count(executor: Any, x: Tensor, timestep: Tensor, context: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        texts.append(context)
        return executor(x, timestep, context, *args, **kwargs)

    counted = model.clone()
    counted.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
    return counted, texts


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_strength_zero_is_the_same_object_and_says_so(model: ModelPatcher, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert _steered(model, 0.0) is model
    assert "strength is 0" in caplog.text


@pytest.mark.parametrize(("strong", "nag"), [(1.0, 1.04), (2.5, 3.125), (4.0, 6.56), (5.0, 10.0)])
def test_nag_strong_is_nag_at_a_strength_that_grows_faster(model: ModelPatcher, strong: float, nag: float) -> None:
    assert torch.equal(_sample(_steered(model, strong, "nag_strong")), _sample(_steered(model, nag, "nag")))


def test_new_nodes_act_in_the_whole_schedule_and_old_prompts_as_they_did(model: ModelPatcher) -> None:
    new: dict[str, Any] = {each.id: each.default for each in TesseraFluxNegative.define_schema().inputs[3:]}  # pyright: ignore[reportAttributeAccessIssue]
    assert new == {"method": "nag_strong", "start_percent": 0.0, "end_percent": 1.0}
    found = _sample(TesseraFluxNegative.execute(model, NEGATIVE, 5.0, **new).args[0])
    without = _sample(TesseraFluxNegative.execute(model, NEGATIVE, 4.0).args[0])
    assert torch.equal(found, _sample(_steered(model, 10.0, "nag", 0.0, 1.0)))
    assert torch.equal(without, _sample(_steered(model, 4.0, "auto", 0.0, 0.5)))
    assert not torch.equal(found, without)


@pytest.mark.parametrize("method", ["nag", "nag_strong"])
@pytest.mark.parametrize("strength", [0.5, 4.0, 10.0])
def test_nag_makes_as_many_forwards_as_steps(model: ModelPatcher, strength: float, method: str) -> None:
    counted, texts = _counted(model)
    _sample(_steered(counted, strength, method, end=0.5))
    assert len(texts) == STEPS and {len(text) for text in texts} == {1}


@pytest.mark.parametrize("method", ["cfg", "cfg_soft"])
def test_second_passes_are_made_within_the_interval_alone(model: ModelPatcher, method: str) -> None:
    counted, texts = _counted(model)
    _sample(_steered(counted, 2.0, method, start=0.0, end=0.5))
    guided = sum(text.shape[1] == 3 for text in texts)
    sigmas = KSampler(model, STEPS, "euler", "simple").sigmas[:-1]
    sampling = model.get_model_object("model_sampling")
    assert guided == int((sigmas >= sampling.percent_to_sigma(0.5)).sum()) and 0 < guided < STEPS
    assert len(texts) == STEPS + guided


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_equal_to_the_positive_changes_nothing(model: ModelPatcher, method: str) -> None:
    assert within((_sample(_steered(model, 5.0, method, negative=POSITIVE)) - _sample(model)).abs().max(), 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_effect_grows_from_zero(model: ModelPatcher, method: str) -> None:
    plain = _sample(model)
    changes = [_rms(_sample(_steered(model, s, method)) - plain) for s in (0.01, 0.1, 0.5, 1.0, 2.0)]
    assert changes == sorted(changes) and changes[0] < 1e-4 * _rms(plain) and changes[-1] > 1e-3 * _rms(plain)
    assert changes[1] == pytest.approx(10 * changes[0], rel=0.1)


def test_nag_keeps_the_rms_at_every_strength(model: ModelPatcher) -> None:
    plain = _rms(_sample(model))
    for strength in (0.5, 1.0, 2.0, 4.0, 7.0, 10.0):
        assert _rms(_sample(_steered(model, strength))) == pytest.approx(plain, rel=0.02)


def _batched_reference(model: ModelPatcher, x: Tensor, t: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """NAG as it is published: two samples with a text each, whose images' attention outputs are both the mix."""

    def mix(output: Tensor, extra_options: dict[str, Any]) -> Tensor:
        first = extra_options["img_slice"][0]
        image = nag(output[:1, first:], output[1:, first:], 4.0)
        return torch.cat([output[:, :first], image.expand(2, -1, -1)], 1)

    options = {"patches": {"attn1_output_patch": [mix]}}
    texts, pooled = torch.cat([positive, negative]), torch.ones(2, 24)
    both = model.model.forward_transformer(
        x.expand(2, -1, -1, -1), t.expand(2), texts, pooled, torch.full((2,), 3.5), transformer_options=options
    )
    return both[:1]


@pytest.mark.parametrize("on_a_torus", [False, True])
def test_nag_is_the_batched_form(model: ModelPatcher, on_a_torus: bool) -> None:
    """Of texts with equal pooled vectors and equal length, which the batched form needs; with torus RoPE as well."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append((x, timestep, executor(x, timestep, *args, **kwargs)))
        return calls[-1][-1]

    negative, watched = _text(2, 5), model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "keep", keep)
    size = (SHAPE[2] // 2, SHAPE[3] // 2)
    with torus(model.model.diffusion_model, Axes(True, True), [size]) if on_a_torus else nullcontext():
        _sample(_steered(watched, 4.0, negative=negative))
        for x, t, found in calls:
            expected = _batched_reference(model, x, t, POSITIVE[0][0], negative[0][0])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strength", [0.5, 2.0, 6.0])
def test_cfg_is_diffusers_true_cfg_scale(model: ModelPatcher, flux_transformer: Any, strength: float) -> None:
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    none: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False)
    pipeline: Any = FluxPipeline(scheduler=scheduler, transformer=flux_transformer, **none)
    pipeline.set_progress_bar_config(disable=True)
    sigmas = KSampler(model, STEPS, "euler", "simple").sigmas
    height, width = SHAPE[2:]
    negative = _text(2, 5)
    # Its own schedule shifts nothing at shift 1, so that both take the same steps.
    expected = pipeline(
        prompt_embeds=POSITIVE[0][0],
        pooled_prompt_embeds=torch.ones(1, 24),
        negative_prompt_embeds=negative[0][0],
        negative_pooled_prompt_embeds=torch.ones(1, 24),
        true_cfg_scale=1 + strength,
        sigmas=sigmas[:-1].tolist(),
        height=8 * height,
        width=8 * width,
        latents=FluxPipeline._pack_latents(_noise(), 1, 16, height, width),
        output_type="latent",
    ).images
    found = _sample(_steered(model, strength, "cfg", negative=negative))
    found = model.model.process_latent_in(found)
    expected = FluxPipeline._unpack_latents(expected, 8 * height, 8 * width, 8)
    assert within((found - expected).abs().max(), 1e-4 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("method", METHODS)
def test_samples_of_a_batch_do_not_see_each_other(model: ModelPatcher, method: str) -> None:
    with double_precision():
        exact = ModelPatcher(copy.deepcopy(model.model).double(), "cpu", "cpu")
        noise = _noise((3, *SHAPE[1:]))
        together = _sample(_steered(exact, 3.0, method), noise)
        assert together.dtype == torch.float64
        for i in range(3):
            alone = _sample(_steered(exact, 3.0, method), noise[i : i + 1])
            torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 5, 11])
def test_texts_may_differ_in_length(model: ModelPatcher, length: int) -> None:
    counted, texts = _counted(_steered(model, 3.0, negative=_text(4, length)))
    assert _sample(counted).isfinite().all()
    assert [text.shape[1] for text in texts] == [5 + length] * STEPS


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("method", METHODS)
def test_each_sample_of_a_batch_may_have_a_negative_of_its_own(model: ModelPatcher, method: str, cfg: float) -> None:
    first, second = _text(4), _text(5)
    batch = [[torch.cat([first[0][0], second[0][0]]), {"pooled_output": torch.ones(2, 24)}]]
    with double_precision():
        exact = ModelPatcher(copy.deepcopy(model.model).double(), "cpu", "cpu")
        noise = _noise((2, *SHAPE[1:]))
        together = _sample(_steered(exact, 3.0, method, negative=batch), noise, cfg)
        for i, negative in enumerate((first, second)):
            alone = _sample(_steered(exact, 3.0, method, negative=negative), noise[i : i + 1], cfg)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


def test_parts_of_a_combined_negative_all_count(model: ModelPatcher) -> None:
    first, second = _text(4), _text(5)
    joined = [[torch.cat([first[0][0], second[0][0]], 1), first[0][1]]]
    found = _sample(_steered(model, 3.0, negative=first + second))
    torch.testing.assert_close(found, _sample(_steered(model, 3.0, negative=joined)))


def test_a_part_that_acts_for_a_time_does_nothing_outside_of_it(model: ModelPatcher) -> None:
    late = _text(4, start_percent=0.99, end_percent=1.0)
    for method in ("nag", "cfg"):
        assert torch.equal(_sample(_steered(model, 5.0, method, end=0.9, negative=late)), _sample(model))


def test_the_uncond_of_a_run_with_cfg_is_not_guided(model: ModelPatcher) -> None:
    """Its prediction is what a run on the negative alone makes; both prompts are in one batch here."""
    seen: list[Tensor] = []

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(executor(*args, **kwargs)[1])
        return [seen[-1]] * 2

    def uncond(model: Any) -> Tensor:
        watched = model.clone()
        watched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "watch", watch)
        return _sample(watched, cfg=3.0)

    torch.testing.assert_close(uncond(_steered(model, 5.0)), uncond(model))
    assert len(seen) == 2 * STEPS


def test_a_noise_mask_keeps_its_part(model: ModelPatcher) -> None:
    mask = torch.zeros(1, 1, *SHAPE[2:])
    mask[..., :6] = 1
    image = _noise()
    run = KSampler(_steered(model, 5.0), STEPS, "euler", "simple")
    found = run.sample(_noise(), POSITIVE, _text(3), 1.0, image, denoise_mask=mask, disable_pbar=True)
    torch.testing.assert_close(found[..., 6:], image[..., 6:])


def test_an_attention_mask_and_a_control_network_reach_the_positive_side(model: ModelPatcher) -> None:
    """The image's own tokens sit behind a text that is longer by the negative, and still get what is theirs."""
    tokens = SHAPE[2] * SHAPE[3] // 4
    mask = torch.rand(5 + tokens, 5 + tokens, generator=torch.Generator().manual_seed(3)) > 0.3
    mask.fill_diagonal_(True)
    added = torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(4))

    def feed(executor: Any, x: Tensor, t: Tensor, c: Any, text: Tensor, control: Any, options: Any, **kw: Any) -> Any:
        return executor(x, t, c, text, {"input": [added], "output": [added]}, options, attention_mask=mask, **kw)

    fed = model.clone()
    fed.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "feed", feed)
    assert not torch.allclose(_sample(fed), _sample(model), atol=1e-3)
    # With a strength of next to nothing only a mask or a control that slipped could make a difference.
    torch.testing.assert_close(_sample(_steered(fed, 1e-6)), _sample(fed), rtol=0, atol=1e-4)


def test_an_override_that_is_there_already_is_asked_for_every_attention(model: ModelPatcher) -> None:
    calls: list[int] = []

    def override(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs: Any) -> Tensor:
        calls.append(q.shape[2])
        return 0.5 * function(q, k, v, heads, **kwargs)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = override
    halved = _sample(other)
    assert len(calls) == 4 * STEPS
    found = _sample(_steered(other, 3.0))
    assert len(calls) == 12 * STEPS and _rms(found - halved) > 1e-3
    torch.testing.assert_close(_sample(_steered(other, 3.0, negative=POSITIVE)), halved, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["nag", "cfg"])
def test_an_interrupt_leaves_the_model_clean(model: ModelPatcher, method: str) -> None:
    plain, steered = _sample(model), _steered(model, 3.0, method)
    guided = _sample(steered)

    def stop(step: int, *_: Any) -> None:
        if step == 1:
            interrupt_current_processing()

    with pytest.raises(InterruptProcessingException):
        _sample(steered, callback=stop)
    assert torch.equal(_sample(model), plain) and torch.equal(_sample(steered), guided)


def test_branches_do_not_touch_each_other_and_the_last_node_counts(model: ModelPatcher) -> None:
    plain, options = _sample(model), repr(model.model_options)
    steered = _steered(model, 3.0)
    assert not torch.equal(_sample(steered), plain) and torch.equal(_sample(model), plain)
    assert torch.equal(_sample(_steered(_steered(model, 9.0, "cfg"), 3.0)), _sample(steered))
    assert repr(model.model_options) == options and not model.wrappers


@pytest.mark.parametrize("method", ["nag", "cfg"])
def test_it_works_with_any_guider_and_sampler(model: ModelPatcher, method: str) -> None:
    steered = _steered(model, 2.0, method)
    guider = CFGGuider(steered)
    guider.inner_set_conds({"positive": POSITIVE})  # as BasicGuider does
    sigmas = KSampler(model, STEPS, "euler", "simple").sigmas
    found = guider.sample(_noise(), torch.zeros(SHAPE), sampler_object("euler"), sigmas, disable_pbar=True, seed=1)
    assert torch.equal(found, _sample(steered))
    for name in ("dpmpp_2m", "heun", "uni_pc"):
        run = KSampler(steered, STEPS, name, "simple")
        assert run.sample(_noise(), POSITIVE, _text(3), 1.0, torch.zeros(SHAPE), seed=1).isfinite().all()


def test_blocks_that_another_pack_replaced_are_noticed(flux_transformer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Such a block calls attention without hooks, which would take negative text for positive."""
    model = ModelPatcher(Flux(flux_transformer), "cpu", "cpu")
    attn = flux_transformer.single_transformer_blocks[0].attn
    own = attn.forward

    def rewired(hidden_states: Tensor, transformer_options: Any = None, **kwargs: Any) -> Tensor:
        return own(hidden_states, **kwargs)

    attn.forward = rewired
    try:
        counted, texts = _counted(model)
        found = _sample(_steered(counted, 3.0))
        expected = _sample(_steered(model, 3.0, "cfg_soft"))
    finally:
        del attn.forward
    assert torch.equal(found, expected) and len(texts) == 2 * STEPS + 1
    assert caplog.text.count("replaced blocks") == 1 and "cfg_soft is used instead" in caplog.text


# Wrong input


@pytest.mark.parametrize("strength", [-0.1, 10.5, float("nan")])
def test_a_strength_out_of_range_is_refused(model: ModelPatcher, strength: float) -> None:
    with pytest.raises(ValueError, match=naming("strength", 0, 10)):
        _steered(model, strength)


def test_a_strength_without_a_negative_is_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("negative", "CONDITIONING")):
        _steered(model, 3.0, negative=[])


def test_a_negative_for_another_family_is_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("negative", 768, 16)):
        _steered(model, 3.0, negative=[[torch.zeros(1, 77, 768), {}]])


@pytest.mark.parametrize("name", ["area", "mask"])
def test_a_negative_for_a_part_of_the_image_is_refused(model: ModelPatcher, name: str) -> None:
    with pytest.raises(ValueError, match=naming("negative", name)):
        _steered(model, 3.0, negative=_text(2, 3, **{name: (4, 4, 0, 0)}))


def test_an_interval_that_ends_before_it_begins_is_refused(model: ModelPatcher) -> None:
    with pytest.raises(ValueError, match=naming("start_percent", 0.6, "end_percent", 0.5)):
        _steered(model, 3.0, start=0.6, end=0.5)


def test_other_models_get_cfg_or_a_hint(sd15_unet: Any) -> None:
    model = ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    for method in ("auto", "nag", "nag_strong"):
        with pytest.raises(ValueError, match=naming("UNet2DConditionModel", "KSampler", "cfg", "negative")):
            _steered(model, 3.0, method)
    with double_precision():
        exact = ModelPatcher(copy.deepcopy(model.model).double(), "cpu", "cpu")
        noise = _noise((1, 4, 8, 8))
        text, negative = ([[torch.full((1, 77, 16), value), {}]] for value in (1.0, -1.0))
        found = _sample(_steered(exact, 2.0, "cfg", negative=negative), noise, positive=text)
        run = KSampler(exact, STEPS, "euler", "simple")
        expected = run.sample(noise, text, negative, 3.0, torch.zeros_like(noise), seed=1, disable_pbar=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_attention_of_other_shapes_is_left_alone(model: ModelPatcher) -> None:
    """A pack may attend to something of its own through the same hook."""
    from tessera.guidance.flux_negative import JoinedAttention

    joined = JoinedAttention({}, 3, 4.0)
    options = joined.installed({})
    (after_input,) = options["patches"]["post_input"]
    after_input({"txt": torch.zeros(1, 8, 4), "img": torch.zeros(1, 6, 4), "txt_ids": torch.zeros(1, 8, 3)})
    q = torch.randn(1, 2, 9, 4)
    assert torch.equal(
        options["optimized_attention_override"](optimized_attention, q, q, q, 2, skip_reshape=True),
        optimized_attention(q, q, q, 2, skip_reshape=True),
    )
    assert joined.calls == 0


def test_both_texts_count_from_the_same_position() -> None:
    """Flux 2 numbers its text tokens; the positive text keeps its numbers behind the negative one."""
    from tessera.guidance.flux_negative import JoinedAttention

    (after_input,) = JoinedAttention({}, 3, 4.0).installed({})["patches"]["post_input"]
    ids = torch.zeros(1, 8, 4)
    ids[..., 3] = torch.arange(8)
    out = after_input({"txt": torch.zeros(1, 8, 4), "img": torch.zeros(1, 6, 4), "txt_ids": ids})
    assert out["txt_ids"][0, :, 3].tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
