"""InstantX's adapter for Stable Diffusion 3.5: its tokens, keys and values change with the noise level."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import FusedJointAttnProcessor2_0
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from double_precision import double_precision
from margins import within
from naming import naming
from no_sync import NoSync
from tessera.host.models.families.sd3 import SD3
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.attend import COMBINES
from tessera.ip_adapter.encoders import needed
from tessera.ip_adapter.formats import parse_adapter, read_adapter
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.maps import RECORD, Record
from tessera.ip_adapter.pipeline import image_prompts
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter, make_references
from tessera.ip_adapter.saved import encode_reference
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import PATCHES, Encoder, plain_image, random_adapter, random_timed
from torch import Tensor

HEIGHT, WIDTH, LENGTH = 8, 12, 5
SIGMA = 0.4


@pytest.fixture(scope="module")
def transformer() -> Any:
    """A Stable Diffusion 3.5 of three blocks."""
    torch.manual_seed(0)
    network: Any = SD3Transformer2DModel.from_config(
        {
            "num_layers": 3,
            "num_attention_heads": 2,
            "attention_head_dim": 64,
            "joint_attention_dim": 16,
            "caption_projection_dim": 128,
            "pooled_projection_dim": 24,
            "pos_embed_max_size": 16,
            "qk_norm": "rms_norm",
        }
    )
    for name, parameter in network.named_parameters():
        torch.nn.init.normal_(parameter.data, std=0.1 if parameter.ndim > 1 else 0.2)
        parameter.data += ".norm_" in name and "linear" not in name
    return network.eval().requires_grad_(False)


@pytest.fixture
def model(transformer: Any) -> ModelPatcher:
    return ModelPatcher(SD3(copy.deepcopy(transformer), sampling_settings={"shift": 3.0}), "cpu", "cpu")


def _load(model: ModelPatcher, seed: int = 0) -> LoadedAdapter:
    weights = random_timed(model.model.diffusion_model, seed=seed)
    return LoadedAdapter(parse_adapter(weights, "ip-adapter.bin"), Encoder())


def _prompt(red: float = 0.3, scale: float = 0.7, **more: Any) -> ImagePrompt:
    return ImagePrompt(plain_image(red), scale, "full", **more)


def _apply(model: Any, loaded: LoadedAdapter, *prompts: ImagePrompt, combine: str = "sum") -> Any:
    return TesseraApplyImagePrompts.execute(model, prompts, combine, loaded).args[0]


def _inputs(dtype: torch.dtype = torch.float32, rows: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (rows, 16, HEIGHT, WIDTH), "c_crossattn": (rows, LENGTH, 16), "y": (rows, 24)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


@torch.no_grad()
def _predict(model: Any, sigma: float = SIGMA, dtype: torch.dtype = torch.float32, **options: Any) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    t = torch.full((2,), sigma, dtype=dtype)
    return model.model.apply_model(**_inputs(dtype), t=t, transformer_options=to | options)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# Against diffusers' own classes


@pytest.mark.parametrize("sigma", [1.0, 0.4, 0.02])
def test_one_image_is_that_of_diffusers(transformer: Any, sigma: float) -> None:
    network, weights = copy.deepcopy(transformer), random_timed(transformer)
    adapter = parse_adapter(weights, "ip-adapter.bin")
    assert (adapter.kind, adapter.tokens, list(adapter.layers)) == ("timed", 3, [0, 1, 2])
    with double_precision():
        encoder, scale = Encoder(), 0.7
        model = ModelPatcher(SD3(copy.deepcopy(network)).double(), "cpu", "cpu")
        applied = _apply(model, LoadedAdapter(adapter, encoder), ImagePrompt(plain_image(0.3).double(), scale, "full"))
        ours, plain = (_predict(each, sigma, torch.float64) for each in (applied, model))
        assert torch.equal(_predict(model, sigma, torch.float64), plain)
        network._load_ip_adapter_weights(weights, low_cpu_mem_usage=False)
        network.double()
        for processor in network.attn_processors.values():
            processor.scale = scale
        seen = encoder.encode_image(plain_image(0.3).double()).penultimate_hidden_states
        given, level = _inputs(torch.float64), torch.full((2,), sigma)
        both = torch.cat([torch.zeros_like(seen), seen])
        velocity = network(
            given["x"],
            given["c_crossattn"],
            given["y"],
            1000 * level,
            joint_attention_kwargs={"ip_adapter_image_embeds": both},
        ).sample
        theirs = (given["x"] - sigma * velocity).detach()
    assert ours.dtype == torch.float64
    assert within((ours - theirs).abs().max(), 1e-9 * float(theirs.abs().max()))
    assert (ours - plain).abs().max() > 1e-4 * ours.abs().max()


@torch.no_grad()
def test_a_pipeline_of_diffusers_gives_the_same(transformer: Any, model: ModelPatcher) -> None:
    network, loaded, given = copy.deepcopy(transformer), _load(model), _inputs()
    inputs = {"hidden_states": given["x"], "encoder_hidden_states": given["c_crossattn"]}
    inputs |= {"pooled_projections": given["y"], "timestep": torch.full((2,), 1000 * SIGMA)}
    mask = torch.ones(HEIGHT, WIDTH).tril()
    prompts = [_prompt(mask=mask), _prompt(0.9, 0.4, end=0.9), _prompt(0.5, start=0.85)]
    plain = network(**inputs).sample
    with image_prompts(network, loaded, prompts):
        seen = given["x"] - SIGMA * network(**inputs).sample
        late = network(**inputs | {"timestep": torch.full((2,), 5.0)}).sample
    assert torch.equal(network(**inputs).sample, plain)
    assert within(_distance(seen, _predict(_apply(model, loaded, *prompts))), 1e-5)
    assert _distance(seen, given["x"] - SIGMA * plain) > 1e-4
    with image_prompts(network, loaded, [prompts[0], prompts[2]]):
        assert torch.equal(network(**inputs | {"timestep": torch.full((2,), 5.0)}).sample, late)
    with image_prompts(network, loaded, [_prompt()], guidance=False):
        free = network(**inputs).sample
    assert _distance(free[1:], plain[1:]) > 1e-4


@torch.no_grad()
def test_a_call_that_fails_leaves_nothing_for_the_next(transformer: Any, model: ModelPatcher) -> None:
    network, loaded, given = copy.deepcopy(transformer), _load(model), _inputs()
    inputs = {"hidden_states": given["x"], "encoder_hidden_states": given["c_crossattn"]}
    inputs |= {"pooled_projections": given["y"], "timestep": torch.full((2,), 400.0)}
    with image_prompts(network, loaded, [_prompt()]):
        expected = network(**inputs).sample
        failing = network.transformer_blocks[1].attn.to_k.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            network(**inputs)
        failing.remove()
        assert torch.equal(network(**inputs).sample, expected)


@torch.no_grad()
def test_fused_projections_give_the_same(transformer: Any, model: ModelPatcher) -> None:
    network, loaded, given = copy.deepcopy(transformer), _load(model), _inputs()
    # diffusers' processor of fused projections leaves out the norms of queries and keys.
    block = network.transformer_blocks[1].attn
    block.norm_q = block.norm_k = block.norm_added_q = block.norm_added_k = None
    inputs = {"hidden_states": given["x"], "encoder_hidden_states": given["c_crossattn"]}
    inputs |= {"pooled_projections": given["y"], "timestep": torch.full((2,), 400.0)}
    with image_prompts(network, loaded, [_prompt()]):
        expected = network(**inputs).sample
    block.fuse_projections()
    block.set_processor(FusedJointAttnProcessor2_0())
    with image_prompts(network, loaded, [_prompt()]):
        assert within(_distance(network(**inputs).sample, expected), 1e-5)


def test_the_published_sizes_are_read(transformer: Any, tmp_path: Path) -> None:
    torch.save(random_timed(transformer, 1152, 64), tmp_path / "ip-adapter.bin")
    adapter = read_adapter(tmp_path / "ip-adapter.bin")
    assert (adapter.kind, adapter.features, adapter.tokens) == ("timed", 1152, 64)
    assert "SigLIP" in needed(adapter) and "sigclip_vision_patch14_384.safetensors" in needed(adapter)


# In a model


def test_the_report_says_what_it_takes(model: ModelPatcher) -> None:
    loaded = _load(model)
    report = TesseraApplyImagePrompts.execute(model, (_prompt(),), "sum", loaded).args[1]
    adapter = loaded.adapter
    layers = [each for pair in adapter.layers.values() for each in pair]
    size = sum(each.nbytes for each in [*adapter.image_proj.values(), *adapter.norms.values(), *layers])
    assert "1 image in 3 of 3 blocks" in report and f"{size / 2**20:.1f} MB" in report


@pytest.mark.parametrize("combine", COMBINES)
def test_halves_are_no_mask_with_one_image(model: ModelPatcher, combine: str) -> None:
    loaded, left = _load(model), torch.zeros(8 * HEIGHT, 8 * WIDTH)
    left[:, : 4 * WIDTH] = 1
    halves = [_prompt(mask=mask, blocks="joint_blocks.1=1") for mask in (left, 1 - left)]
    everywhere = _predict(_apply(model, loaded, _prompt(blocks="joint_blocks.1=1")))
    if combine == "share" or combine == "sum":
        assert within(_distance(_predict(_apply(model, loaded, *halves, combine=combine)), everywhere), 1e-5)
    assert _distance(_predict(_apply(model, loaded, halves[0])), everywhere) > 1e-4


def test_two_nodes_are_one_with_both_chains(model: ModelPatcher) -> None:
    loaded = _load(model)
    one = _apply(_apply(model, loaded, _prompt()), loaded, _prompt(0.9))
    assert within(_distance(_predict(one), _predict(_apply(model, loaded, _prompt(), _prompt(0.9)))), 1e-6)


def test_two_adapters_act_beside_each_other(model: ModelPatcher) -> None:
    first, second = _load(model), _load(model, seed=5)
    one, other = _apply(model, first, _prompt()), _apply(model, second, _prompt())
    both = _predict(_apply(one, second, _prompt()))
    assert within(_distance(_predict(_apply(other, first, _prompt())), both), 1e-6)
    assert min(_distance(both, _predict(each)) for each in (model, one, other)) > 1e-4


def test_a_range_and_blocks_and_a_limit(model: ModelPatcher) -> None:
    loaded, plain = _load(model), _predict(model)
    late = _apply(model, loaded, _prompt(start=0.9))
    assert torch.equal(_predict(late), plain) and not torch.equal(_predict(late, 0.01), _predict(model, 0.01))
    assert torch.equal(_predict(_apply(model, loaded, _prompt(limit=0.0))), plain)
    against = _predict(_apply(model, loaded, _prompt(limit=-1.0)))
    assert (against - plain).flatten() @ (_predict(_apply(model, loaded, _prompt())) - plain).flatten() < 0
    last = _predict(_apply(model, loaded, _prompt(blocks="joint_blocks.2=1")))
    assert 1e-6 < _distance(last, plain) < _distance(_predict(_apply(model, loaded, _prompt())), plain)


def test_tiles_and_a_negative_image(model: ModelPatcher) -> None:
    loaded = _load(model)
    wide = torch.rand(1, 16, 40, 3, generator=torch.Generator().manual_seed(0))
    tiled = ImagePrompt(wide, 0.7, "full", fit="tiles")
    assert len(make_references([(tiled, [])], loaded)[0].timed.patches) == 4  # pyright: ignore[reportOptionalMemberAccess]
    found = _predict(_apply(model, loaded, tiled, _prompt(), combine="share"))
    assert _distance(found, _predict(_apply(model, loaded, ImagePrompt(wide, 0.7, "full"), _prompt()))) > 1e-5
    away = _predict(_apply(model, loaded, _prompt(negative=plain_image(0.9))))
    plain = _predict(_apply(model, loaded, _prompt()))
    assert torch.equal(away[1], plain[1]) and not torch.equal(away[0], plain[0])


def test_it_is_recorded_where_images_act(model: ModelPatcher) -> None:
    left, record = torch.zeros(8 * HEIGHT, 8 * WIDTH), Record()
    left[:, : 4 * WIDTH] = 1
    applied = _apply(model, _load(model), _prompt(mask=left), _prompt(0.9))
    seen: Any = {RECORD: record}
    _predict(applied, cond_or_uncond=[0], **seen)
    assert sorted(record.maps) == [0, 1] and all(len(each) == 3 for each in record.maps.values())
    for each in record.maps[0]:
        assert (each[:, :3] > 0).all() and not each[:, 3:].any()


def test_the_weights_are_held_once(model: ModelPatcher) -> None:
    loaded = _load(model)
    applied = _apply(_apply(model, loaded, _prompt()), loaded, _prompt(0.9))
    kept = applied.get_wrappers("outer_sample", "tessera_image_prompts")[0].owner.kept
    adapters = {each.timed.adapter for each in kept.references}
    assert len(adapters) == 1
    managed = [type("Model", (), {"module": None})() for _ in range(3)]
    kept.manage = lambda module: managed.pop()
    assert len(kept.models) == 1 and len(managed) == 2


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
def test_no_step_makes_a_device_wait(model: ModelPatcher, combine: str, masked: bool) -> None:
    from tessera.ip_adapter.hooks import KEY, RUN
    from tessera.ip_adapter.run import RunMemory
    from tessera.patching.wrappers import installed

    mask = torch.rand(HEIGHT, WIDTH) if masked else None
    applied = _apply(model, _load(model), _prompt(mask=mask), _prompt(0.9, 0.4), combine=combine)
    memory = RunMemory.begin(installed(applied, KEY).kept, (HEIGHT, WIDTH), names={"a": "positive", "b": "negative"})
    model.model.to("meta")
    to = {**applied.model_options["transformer_options"], "wrappers": applied.wrappers, RUN: memory}
    to |= {"cond_or_uncond": [1, 0], "uuids": ["b", "a"]}
    given: dict[str, Any] = {name: tensor.to("meta") for name, tensor in _inputs().items()}
    given |= {"t": torch.ones(2, device="meta"), "transformer_options": to}
    model.model.apply_model(**given)
    with torch.no_grad(), NoSync():
        model.model.apply_model(**given)


def test_ten_images_add_as_many_operations_as_two(model: ModelPatcher) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.number += not func.is_view
            return func(*args, **(kwargs or {}))

    loaded, found = _load(model), {}
    for count in (2, 10):
        applied = _apply(model, loaded, *(_prompt(0.09 * i) for i in range(count)))
        with Count() as counted:
            _predict(applied)
        found[count] = counted.number
    assert found[10] == found[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(model: ModelPatcher, dtype: torch.dtype) -> None:
    mask = torch.ones(HEIGHT, WIDTH).tril()
    prompts = [_prompt(), _prompt(0.9, 0.4, mask=mask)]
    loaded, plain = _load(model), _predict(model)
    whole = _predict(_apply(model, loaded, *prompts))
    model.model.to(dtype)
    half = _predict(_apply(model, loaded, *prompts))
    rough = 20 * torch.finfo(dtype).eps
    assert torch.isfinite(half).all() and _distance(half, whole) < rough < _distance(plain, whole)
    assert [each.dtype for each in loaded.timed.values()] == [torch.float32, dtype]


# What is refused


def test_what_does_not_fit_is_refused(model: ModelPatcher, sd15_unet: Any, tmp_path: Path) -> None:
    loaded, unet = _load(model), ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    with pytest.raises(ValueError, match=naming("ip-adapter.bin", "Stable Diffusion 3.5", "a UNet")):
        _apply(unet, loaded, _prompt())
    other = LoadedAdapter(parse_adapter(random_adapter(sd15_unet), "base"), Encoder())
    with pytest.raises(ValueError, match=naming("base", "Stable Diffusion 3")):
        _apply(model, other, _prompt())
    with pytest.raises(ValueError, match=naming("style", "Stable Diffusion 3", "full", "joint_blocks.0")):
        _apply(model, loaded, ImagePrompt(plain_image(0.3), 0.7, "style"))
    with pytest.raises(ValueError, match=naming("joint_blocks.0", "joint_blocks.2")):
        _apply(model, loaded, _prompt(blocks="up_blocks.1=1"))
    with pytest.raises(ValueError, match=naming("keep_apart")):
        TesseraApplyImagePrompts.execute(model, (_prompt(),), "sum", loaded, keep_apart=True)
    (made,) = make_references([(_prompt(), [0])], loaded)
    with pytest.raises(ValueError, match=naming("ip-adapter.bin", "every step", "Image Prompt")) as refused:
        encode_reference(made)
    assert "\n" not in str(refused.value)


def test_incomplete_files_and_other_sizes_are_refused(model: ModelPatcher, transformer: Any, tmp_path: Path) -> None:
    weights = random_timed(transformer)
    del weights["ip_adapter"]["1.norm_k.weight"]
    torch.save(weights, tmp_path / "ip-adapter.bin")
    with pytest.raises(ValueError, match=naming("ip-adapter.bin", 14, 15, "norm_ip_k")):
        read_adapter(tmp_path / "ip-adapter.bin")
    config = {**transformer.config, "num_layers": 2}
    network: Any = SD3Transformer2DModel.from_config(config)
    smaller = LoadedAdapter(parse_adapter(random_timed(network), "smaller"), Encoder())
    with pytest.raises(ValueError, match=naming("smaller", 2, 3)):
        _apply(model, smaller, _prompt())


def test_an_image_that_is_not_finite_is_refused(model: ModelPatcher) -> None:
    loaded = _load(model)
    spoilt = SimpleNamespace(penultimate_hidden_states=torch.full((1, PATCHES, 128), float("nan")))
    loaded.encoder.encode_image = lambda *_, **__: spoilt
    with pytest.raises(ValueError, match="not finite"):
        _apply(model, loaded, _prompt())


def test_it_finds_the_blocks(transformer: Any) -> None:
    layers = find_layers(transformer)
    assert [layer.name for layer in layers] == ["joint_blocks.0", "joint_blocks.1", "joint_blocks.2"]
    assert {(layer.channels, layer.width, layer.heads) for layer in layers} == {(128, 128, 2)}
    assert layers[0].grid((7, 12)) == (4, 6)
