"""Image prompts on models of the embedded host, against diffusers' own IP-Adapter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from double_precision import double_precision
from margins import within
from naming import naming
from tessera.host.models.model_base import SD15, SDXL
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.run import RunMemory
from tessera.ip_adapter.stack import KeptImages
from tessera.nodes.image_prompts import TesseraApplyImagePrompts, TesseraImagePrompt, TesseraLoadIPAdapter
from tessera.nodes.seamless import TesseraSeamlessModel
from tiny_adapters import TOKENS, Encoder, plain_image, random_adapter
from torch import Tensor
from torch.nn import functional as F

SHAPE = (1, 4, 16, 24)
KINDS = ["base", "plus", "full"]
ROLES = [1, 0]


@pytest.fixture(params=["sd15", "sdxl"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    unet = request.getfixturevalue(f"{request.param}_unet")
    return ModelPatcher((SD15 if request.param == "sd15" else SDXL)(unet), "cpu", "cpu")


@pytest.fixture
def sd15(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _load(model: ModelPatcher, kind: str = "base", seed: int = 0) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(model.model.diffusion_model, kind, seed), kind), Encoder())


def _prompts(*colours: float, scale: float = 0.7, kind: str = "full", **more: Any) -> tuple[ImagePrompt, ...]:
    return tuple(ImagePrompt(plain_image(colour), scale, kind, **more) for colour in colours)


def _apply(
    model: ModelPatcher, loaded: LoadedAdapter | None, prompts: Sequence[ImagePrompt], combine: str = "sum"
) -> Any:
    return TesseraApplyImagePrompts.execute(model, tuple(prompts), combine, loaded).args[0]


def _inputs(model: ModelPatcher, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """Two rows: the negative prompt and the positive one."""
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, *shape[1:], generator=generator), torch.randn(2, 7, 16, generator=generator)
    conds = {"y": torch.ones(2, 16), "time_ids": torch.ones(2, 6)} if isinstance(model.model, SDXL) else {}
    return {"x": x, "t": torch.tensor([3.0, 3.0]), "c_crossattn": text, **conds}


def _predict(model: Any, inputs: dict[str, Any], roles: list[int] | None = None, **options: Any) -> Tensor:
    """One call as a sampler makes it, without a run around it."""
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, **options}
    return model.model.apply_model(**inputs, transformer_options={**to, "cond_or_uncond": roles or ROLES})


def _text(value: float, **options: Any) -> list[list[Any]]:
    return [[torch.linspace(-value, value, 77 * 16).view(1, 77, 16), {"pooled_output": torch.ones(1, 16), **options}]]


def _sample(model: Any, noise: Tensor | None = None, positive: list[list[Any]] | None = None, steps: int = 3) -> Tensor:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)) if noise is None else noise
    run = KSampler(model, steps, "euler", "normal")
    return run.sample(noise, positive or _text(1.0), _text(-2.0), 2.0, torch.zeros_like(noise), seed=1)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# Against diffusers


def _reference(model: ModelPatcher, adapters: list[dict[str, Any]], scales: list[float]) -> Any:
    """The same UNet with diffusers' own processors."""
    unet: Any = UNet2DConditionModel.from_config(model.model.diffusion_model.config)
    unet.load_state_dict(model.model.diffusion_model.state_dict())
    unet._load_ip_adapter_weights(adapters, low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = scales
    return unet.eval().requires_grad_(False)


def _seen(kind: str, colours: Sequence[float]) -> Tensor:
    """What diffusers' pipelines hand to the UNet: (2, images, ...), the unconditional ones first."""
    encoder = Encoder()
    outputs = [encoder.encode_image(plain_image(colour)) for colour in colours]
    if kind == "base":
        found = torch.stack([output.image_embeds[0] for output in outputs])
        return torch.stack([torch.zeros_like(found), found])
    blank = encoder.encode_image(torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 8, 8, 3))
    found = torch.stack([output.penultimate_hidden_states[0] for output in outputs])
    return torch.stack([blank.penultimate_hidden_states[0].expand_as(found), found])


def _diffusers(model: ModelPatcher, unet: Any, seen: list[Tensor], inputs: dict[str, Any], **kwargs: Any) -> Tensor:
    base = model.model
    scaled = base.model_sampling.calculate_input(inputs["t"], inputs["x"])
    added = {"image_embeds": seen}
    if "y" in inputs:
        added |= {"text_embeds": inputs["y"], "time_ids": inputs["time_ids"]}
    out = unet(
        scaled,
        base.model_sampling.timestep(inputs["t"]).float(),
        inputs["c_crossattn"],
        added_cond_kwargs=added,
        cross_attention_kwargs=kwargs or None,
    ).sample
    return base.model_sampling.calculate_denoised(inputs["t"], out, inputs["x"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_equals_diffusers(model: ModelPatcher, kind: str) -> None:
    adapter, inputs = random_adapter(model.model.diffusion_model, kind), _inputs(model)
    unet = _reference(model, [adapter], [0.7])
    ours = _predict(_apply(model, _load(model, kind), _prompts(0.3)), inputs)
    assert within(_distance(ours, _diffusers(model, unet, [_seen(kind, [0.3])], inputs)), 1e-5)
    assert _distance(ours, _predict(model, inputs)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_equals_several_adapters_and_concat_several_images_in_diffusers(model: ModelPatcher, kind: str) -> None:
    adapter, inputs, colours = random_adapter(model.model.diffusion_model, kind), _inputs(model), [0.1, 0.5, 0.9]
    stack = [each for colour, s in zip(colours, (0.9, 0.5, 0.2), strict=True) for each in _prompts(colour, scale=s)]
    unet = _reference(model, [adapter] * 3, [0.9, 0.5, 0.2])
    expected = _diffusers(model, unet, [_seen(kind, [colour]) for colour in colours], inputs)
    assert within(_distance(_predict(_apply(model, _load(model, kind), stack), inputs), expected), 1e-5)
    unet = _reference(model, [adapter], [0.7])
    expected = _diffusers(model, unet, [_seen(kind, colours)], inputs)
    ours = _predict(_apply(model, _load(model, kind), _prompts(*colours), "concat"), inputs)
    assert within(_distance(ours, expected), 1e-5)


def _halves(size: tuple[int, int]) -> list[Tensor]:
    left = torch.zeros(size)
    left[:, : size[1] // 2] = 1
    return [left, 1 - left]


def _soft(size: tuple[int, int]) -> list[Tensor]:
    return list(torch.rand(3, *size, generator=torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("make", [_halves, _soft])
def test_masks_equal_diffusers(model: ModelPatcher, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processors get the masks in each attention's grid as ours do: averaged, not resampled with a cubic."""
    (height, width), scales, colours = SHAPE[-2:], [0.9, 0.4, 0.6], [0.1, 0.9, 0.4]
    grids = []

    def averaged(mask: Tensor, batch: int, pixels: int, channels: int) -> Tensor:
        grids.append((round((pixels * height / width) ** 0.5), round((pixels * width / height) ** 0.5)))
        return F.adaptive_avg_pool2d(mask, grids[-1]).reshape(1, pixels, 1).expand(batch, -1, channels)

    masks = make((8 * height, 8 * width))
    n = len(masks)
    adapter, inputs = random_adapter(model.model.diffusion_model), _inputs(model)
    stack = [
        each
        for colour, scale, mask in zip(colours[:n], scales[:n], masks, strict=True)
        for each in _prompts(colour, scale=scale, mask=mask)
    ]
    monkeypatch.setattr(IPAdapterMaskProcessor, "downsample", staticmethod(averaged))
    unet = _reference(model, [adapter] * n, scales[:n])
    seen = [_seen("base", [colour]) for colour in colours[:n]]
    given = [mask[None, None] for mask in masks]
    expected = _diffusers(model, unet, seen, inputs, ip_adapter_masks=given)
    ours = _predict(_apply(model, _load(model), stack), inputs)
    assert within(_distance(ours, expected), 1e-5)
    assert len(set(grids)) > 1
    monkeypatch.undo()
    sampled = _distance(ours, _diffusers(model, unet, seen, inputs, ip_adapter_masks=given))
    # A cubic looks at a few points of a cell: at the halves of an image it sees what the average does.
    assert within(sampled, 1e-5) if make is _halves else 1e-3 < sampled < 0.1


# Off is off


@pytest.mark.parametrize("combine", ["sum", "share", "concat"])
def test_scale_zero_and_inactive_steps_are_as_if_the_image_were_absent(sd15: ModelPatcher, combine: str) -> None:
    loaded, plain = _load(sd15), _sample(sd15)
    assert torch.equal(_sample(_apply(sd15, loaded, _prompts(0.3, scale=0.0), combine)), plain)
    late = _prompts(0.3, start=0.6, end=0.7)  # the three steps are at 0, 0.5 and 1
    assert torch.equal(_sample(_apply(sd15, loaded, late, combine)), plain)
    one = _sample(_apply(sd15, loaded, _prompts(0.8), combine))
    for absent in (_prompts(0.3, scale=0.0), late):
        assert torch.equal(_sample(_apply(sd15, loaded, [*absent, *_prompts(0.8)], combine)), one)


def test_a_range_bounds_the_steps(sd15: ModelPatcher) -> None:
    loaded, plain = _load(sd15), _sample(sd15)
    early, late = (_sample(_apply(sd15, loaded, _prompts(0.3, start=a, end=b))) for a, b in ((0.0, 0.4), (0.6, 1.0)))
    whole = _sample(_apply(sd15, loaded, _prompts(0.3)))
    found = [plain, early, late, whole]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[i + 1 :])


def test_share_with_one_image_equals_the_sum(model: ModelPatcher) -> None:
    with double_precision():
        exact = ModelPatcher(copy.deepcopy(model.model).double(), "cpu", "cpu")
        loaded, inputs = _load(exact, "plus"), _inputs(exact)
        mask = torch.rand(16, 24)
        for prompts in (_prompts(0.3), _prompts(0.3, mask=mask)):
            share, total = (_predict(_apply(exact, loaded, prompts, c), inputs) for c in ("share", "sum"))
            assert share.dtype == torch.float64
            torch.testing.assert_close(share, total, atol=1e-9, rtol=1e-9)


def test_share_does_not_grow_with_copies(sd15: ModelPatcher) -> None:
    loaded, inputs = _load(sd15), _inputs(sd15)
    one, five = (_predict(_apply(sd15, loaded, _prompts(*[0.3] * n), "share"), inputs) for n in (1, 5))
    assert within(_distance(five, one), 1e-5)
    assert _distance(_predict(_apply(sd15, loaded, _prompts(*[0.3] * 5)), inputs), one) > 1e-3


# Nothing leaks, nothing stacks


def test_applying_again_gives_the_same(sd15: ModelPatcher) -> None:
    loaded, plain = _load(sd15), _sample(sd15)
    models = [_apply(sd15, loaded, _prompts(0.3, 0.6)) for _ in range(3)]
    first = _sample(models[0])
    for each in (*models, models[0].clone(), models[0].clone().clone()):
        assert torch.equal(_sample(each), first)
    assert torch.equal(_sample(sd15), plain)
    assert not sd15.wrappers
    assert not sd15.model_options["transformer_options"]


@pytest.mark.parametrize("combine", ["sum", "share", "concat"])
def test_two_nodes_in_a_row_equal_one_with_both_stacks(sd15: ModelPatcher, combine: str) -> None:
    loaded, a, b = _load(sd15), _prompts(0.1, 0.4), _prompts(0.9, scale=0.3, kind="style")
    once = _apply(sd15, loaded, [*a, *b], combine)
    half = _apply(sd15, loaded, a, combine)
    before = _sample(half)
    twice = _apply(half, loaded, b, combine)
    assert torch.equal(_sample(twice), _sample(once))
    assert torch.equal(_sample(half), before)


def test_adapters_with_other_token_counts_act_together(sd15: ModelPatcher) -> None:
    inputs, plain = _inputs(sd15), None
    assert TOKENS["base"] != TOKENS["plus"]
    base, plus = _load(sd15, "base"), _load(sd15, "plus", 1)
    plain = _predict(sd15, inputs)
    both = _predict(_apply(_apply(sd15, base, _prompts(0.1)), plus, _prompts(0.9)), inputs)
    unet = _reference(
        sd15,
        [random_adapter(sd15.model.diffusion_model, "base", 0), random_adapter(sd15.model.diffusion_model, "plus", 1)],
        [0.7, 0.7],
    )
    expected = _diffusers(sd15, unet, [_seen("base", [0.1]), _seen("plus", [0.9])], inputs)
    assert within(_distance(both, expected), 1e-5)
    assert _distance(both, plain) > 1e-3


# Rows of a batch


@pytest.mark.parametrize("roles", [[1, 0], [0, 1], [0], [2, 1, 0], [0, 0, 1]])
def test_rows_see_what_their_conditioning_is(sd15: ModelPatcher, roles: list[int]) -> None:
    """Without a run around it: the second conditioning is the negative one, any other sees the images."""
    applied, single = _apply(sd15, _load(sd15), _prompts(0.3)), _inputs(sd15)
    rows = {key: value[:1].repeat(2 * len(roles), *[1] * (value.ndim - 1)) for key, value in single.items()}
    out = _predict(applied, rows, roles)
    alone = {role: _predict(applied, {k: v[:1] for k, v in single.items()}, [role]) for role in (0, 1)}
    assert _distance(alone[0], alone[1]) > 1e-4
    expected = torch.cat([alone[int(role == 1)] for role in roles for _ in range(2)])
    assert within(_distance(out, expected), 1e-5)


def test_conditionings_are_known_by_their_names() -> None:
    """PerpNeg's third and DualCFG's order: a guider's names decide, not the numbers."""
    names = {"a": "negative", "b": "middle", "c": "positive", "d": "empty_negative_prompt"}
    memory = RunMemory(KeptImages((), (), torch.float32), (16, 16), (), names)
    ids = [(2, "c"), (1, "b"), (0, "a"), (3, "d")]
    assert [memory.role(*each) for each in ids] == [0, 0, 1, 1]


def test_a_batch_equals_single_runs(sd15: ModelPatcher) -> None:
    applied = _apply(sd15, _load(sd15), _prompts(0.3, 0.8))
    noise = torch.randn(3, *SHAPE[1:])
    together = _sample(applied, noise)
    assert within(_distance(together, torch.cat([_sample(applied, each[None]) for each in noise])), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(sd15_unet: Any, dtype: torch.dtype) -> None:
    unet: Any = UNet2DConditionModel.from_config(sd15_unet.config)
    unet.load_state_dict(sd15_unet.state_dict())
    model = ModelPatcher(SD15(unet.to(dtype)), "cpu", "cpu")
    full = ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    mask = torch.zeros(32, 48)
    mask[:, :24] = 1
    stack = [*_prompts(0.3, mask=mask), *_prompts(0.8)]
    ours, expected = (_predict(_apply(m, _load(full), stack), _inputs(full)) for m in (model, full))
    assert torch.isfinite(ours).all()
    assert _distance(ours, expected) < 0.05


@pytest.mark.parametrize("size", [(15, 23), (9, 31), (16, 17)])
def test_odd_sizes_with_masks(sd15: ModelPatcher, size: tuple[int, int]) -> None:
    """The UNet rounds odd sizes up at each level; masks follow the grid that is there."""
    mask = torch.zeros(8 * size[0], 8 * size[1])
    mask[:, : 4 * size[1]] = 1
    noise = torch.randn(1, 4, *size)
    left = _sample(_apply(sd15, _load(sd15), _prompts(0.3, mask=mask)), noise)
    assert left.shape == noise.shape
    assert not torch.equal(left, _sample(sd15, noise))


@pytest.mark.parametrize("uncut", [(129, 127), (135, 100), (128, 121)])
def test_the_mask_of_an_uncut_photo(sd15: ModelPatcher, uncut: tuple[int, int]) -> None:
    """The image acts as with a mask of what encoding leaves of the photo."""
    mask = torch.zeros(uncut)
    mask[20:70, :] = 1
    mask[:, 55:61] = 0
    height, width = (side // 8 for side in uncut)
    top, left = (side % 8 // 2 for side in uncut)
    cut = mask[top : top + 8 * height, left : left + 8 * width]
    noise = torch.randn(1, 4, height, width)
    drawn = [_sample(_apply(sd15, _load(sd15), _prompts(0.3, mask=each)), noise) for each in (mask, cut)]
    assert torch.equal(*drawn)
    shifted = mask.roll(1, 0)[top : top + 8 * height, left : left + 8 * width]
    assert not torch.equal(drawn[0], _sample(_apply(sd15, _load(sd15), _prompts(0.3, mask=shifted)), noise))


def test_together_with_a_seamless_model(sd15: ModelPatcher) -> None:
    """The image still rolls with its noise, whichever node comes first."""
    loaded, noise = _load(sd15), torch.randn(SHAPE)
    first = _apply(TesseraSeamlessModel.execute(sd15, "both", 0.0, 1.0, "auto").args[0], loaded, _prompts(0.3))
    second = TesseraSeamlessModel.execute(_apply(sd15, loaded, _prompts(0.3)), "both", 0.0, 1.0, "auto").args[0]
    drawn = _sample(first, noise)
    assert torch.equal(_sample(second, noise), drawn)
    assert within(_distance(_sample(first, noise.roll((8, 8), (2, 3))), drawn.roll((8, 8), (2, 3))), 1e-5)


# Wrong input


def _prompt(image: Tensor, **more: Any) -> Any:
    values = {"scale": 0.9, "type": "style", "start_percent": 0.0, "end_percent": 1.0, **more}
    return TesseraImagePrompt.execute(image, **values).args[0]


def test_grey_and_rgba_images_are_taken_and_batches_are_many_images() -> None:
    grey, rgba = torch.rand(1, 16, 16, 1), torch.rand(3, 16, 16, 4)
    stack = _prompt(rgba, previous=_prompt(grey))
    assert [each.source.shape for each in stack] == [(1, 16, 16, 3)] * 4
    assert torch.equal(stack[0].source[..., 0], grey[..., 0])


@pytest.mark.parametrize(
    ("image", "more", "words"),
    [
        (torch.rand(1, 1, 1, 3), {}, naming("1 x 1", 8)),
        (torch.rand(0, 16, 16, 3), {}, "shape .0, 16, 16, 3."),
        (torch.rand(1, 16, 16, 2), {}, "grey, RGB or RGBA"),
        (torch.full((1, 16, 16, 3), torch.nan), {}, "not finite"),
        (torch.rand(101, 16, 16, 3), {}, naming("image prompts", 101, 1, 100)),
        (
            torch.rand(1, 16, 16, 3),
            {"start_percent": 0.8, "end_percent": 0.2},
            naming("start_percent", 0.8, "end_percent", 0.2),
        ),
        (torch.rand(1, 16, 16, 3), {"mask": torch.zeros(1, 64, 64)}, "black everywhere"),
    ],
)
def test_images_that_cannot_be_used_are_refused(image: Tensor, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        _prompt(image, **more)
    assert "\n" not in str(refused.value)


def test_what_does_not_go_together_is_refused(sd15: ModelPatcher, sdxl_unet: Any) -> None:
    sdxl = ModelPatcher(SDXL(sdxl_unet), "cpu", "cpu")
    for model, loaded, prompts, words in (
        (sd15, _load(sdxl), _prompts(0.3), naming("cross-attention layers", 11, 10)),
        (sd15, _load(sd15), (), "0 image prompts"),
        (sd15, None, _prompts(0.3), "needs ip_adapter"),
        (sd15, _load(sd15), _prompts(0.3, blocks="up=1"), 'no block is called "up"'),
    ):
        with pytest.raises(ValueError, match=words):
            _apply(model, loaded, prompts)


def test_embeddings_that_are_no_numbers_are_refused(sd15: ModelPatcher) -> None:
    loaded = _load(sd15)
    loaded.encoder.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        _apply(sd15, loaded, _prompts(0.3))


def test_a_mask_of_another_shape_is_refused_before_the_first_step(sd15: ModelPatcher) -> None:
    calls = []
    applied = _apply(sd15, _load(sd15), _prompts(0.3, mask=torch.ones(64, 64)))
    hook = sd15.model.diffusion_model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match=naming("64 x 64", "24 x 16")):
            _sample(applied)
    finally:
        hook.remove()
    assert not calls


def test_the_wrong_encoder_is_named_when_it_is_loaded(sd15: ModelPatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from tessera.nodes import image_prompts

    adapter = parse_adapter(random_adapter(sd15.model.diffusion_model, "plus"), "moss.safetensors")
    monkeypatch.setattr(image_prompts, "read_adapter", lambda _: adapter)
    for encoder, words in ((Encoder(24, 64), "moss.safetensors needs.*128.*patches of width 64"), (None, "no files")):
        with pytest.raises(ValueError, match=words):
            monkeypatch.setattr(image_prompts, "_adapter_path", lambda _: image_prompts.DEMO_ADAPTER / "x" / "y")
            TesseraLoadIPAdapter.execute("moss.safetensors", "auto", encoder)
