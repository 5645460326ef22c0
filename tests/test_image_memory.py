"""What image prompts keep while sampling, and what they compute again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter import known
from tessera.ip_adapter.apply import Host, apply_prompts
from tessera.ip_adapter.attend import COMBINES
from tessera.ip_adapter.faces import Face
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.hooks import KEY, RUN, ImageAttention
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.ip_adapter.run import RunMemory
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.patching.wrappers import installed
from tiny_adapters import TOKENS, Encoder, plain_image, random_adapter
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

TEXT = [[torch.linspace(-1, 1, 77 * 16).view(1, 77, 16), {"pooled_output": torch.ones(1, 16)}]]


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


@pytest.fixture
def loaded(sd15_unet: Any) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_adapter(sd15_unet, "plus"), "plus"), Encoder())


def _prompts(count: int, **more: Any) -> tuple[ImagePrompt, ...]:
    ranges = more.pop("ranges", [(0.0, 1.0)] * count)
    colours = torch.linspace(0.1, 0.9, count).tolist()
    return tuple(
        ImagePrompt(plain_image(colour), 0.7, "full", start, end, **more)
        for colour, (start, end) in zip(colours, ranges, strict=True)
    )


def _apply(model: Any, loaded: Any, prompts: Sequence[ImagePrompt], combine: str = "sum", **more: Any) -> Any:
    return TesseraApplyImagePrompts.execute(model, tuple(prompts), combine, loaded, **more).args[0]


def _memories(applied: Any, batch: int, size: tuple[int, int] = (16, 24), steps: int = 3) -> RunMemory:
    """The memory of a run at its end."""
    found, watched = [], applied.clone()

    def watch(executor: Any, *arguments: Any, **named: Any) -> Tensor:
        found.append(arguments[5][RUN])
        return executor(*arguments, **named)

    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watch", watch)
    noise = torch.randn(batch, 4, *size)
    KSampler(watched, steps, "euler", "normal").sample(noise, TEXT, TEXT, 2.0, torch.zeros_like(noise), seed=1)
    return found[-1]


STAGGERED = [(0.0, 0.3), (0.2, 0.6), (0.5, 0.9), (0.6, 1.0)]


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("more", [{}, {"ranges": STAGGERED}, {"mask": torch.ones(16, 24)}])
def test_kept_bytes_are_those_of_the_images(model: Any, loaded: Any, batch: int, more: dict[str, Any]) -> None:
    """Two rows of keys and values at every layer, whatever the batch, the ranges and the masks."""
    memory = _memories(_apply(model, loaded, _prompts(4, **more)), batch)
    width = sum(keys.shape[0] for keys, _ in loaded.adapter.layers.values())
    expected = 4 * TOKENS["plus"] * width * 2 * 2 * 4
    assert memory.held() == expected
    stack = memory.kept.stack
    assert sum(each.nbytes for each in stack.parameters()) == expected
    # On the device where they are already, they are not there twice.
    placed = {
        group.joined.keys.data_ptr() for groups in memory._groups.values() for g in groups.values() for group in g
    }
    assert placed <= {each.data_ptr() for each in stack.parameters()}


def test_a_host_is_told_of_the_module_that_it_has_to_load(model: Any, loaded: Any) -> None:
    managed = []

    def manage(module: nn.Module) -> Any:
        managed.append(module)
        return module

    host = Host(lambda q, *_, **__: q, lambda *_: None, manage)
    first, _ = apply_prompts(model, loaded, _prompts(2), "sum", host)
    both, _ = apply_prompts(first, loaded, _prompts(1), "sum", host)
    for applied, images in ((first, 2), (both, 3)):
        patches = [each for named in applied.model_options["transformer_options"]["patches"].values() for each in named]
        found = [each for patch in patches for each in patch.models()]
        assert len(found) == 1
        assert {each.to("cpu") for each in patches} == {each.to(torch.float16) for each in patches} == set(patches)
        keys = next(each for name, each in found[0].named_parameters() if name.startswith("keys"))
        assert keys.shape[2] == images * TOKENS["plus"]
        assert found[0].get_dtype() == torch.float32
    assert "patches" not in model.model_options["transformer_options"]


class CountingOps(TorchDispatchMode):
    """Counts what a device would run: views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _operations(applied: Any, batch: int, memory: RunMemory | None = None) -> int:
    """Of one call that is not the first of its run."""
    to = {**applied.model_options["transformer_options"], "wrappers": applied.wrappers, "cond_or_uncond": [1, 0]}
    to |= {} if memory is None else {RUN: memory}
    x, text, sigma = torch.randn(2 * batch, 4, 8, 8), torch.randn(2 * batch, 7, 16), torch.full((2 * batch,), 3.0)
    with torch.no_grad(), CountingOps() as counted:
        applied.model.apply_model(x, sigma, c_crossattn=text, transformer_options=to)
    return counted.count


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["plus", "portrait"])
def test_ten_images_cost_as_many_operations_as_one_on_a_gpu(
    model: Any, combine: str, masked: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits of other devices, which this CPU takes as well; of few tokens and of many."""
    from tessera.ip_adapter import attend, steps

    monkeypatch.setattr(attend, "LARGEST", attend.LARGEST_ELSEWHERE)
    monkeypatch.setattr(attend, "UNFUSED", "none")
    monkeypatch.setattr(steps, "AREAS", "none")
    adapter = parse_adapter(random_adapter(model.model.diffusion_model, kind), kind)
    face = Face(torch.randn(512)) if kind == "portrait" else None
    loaded = LoadedAdapter(adapter, Encoder())
    more: dict[str, Any] = {"mask": torch.rand(8, 8) if masked else None, "face": face}
    hooked = model.clone()
    for layer in find_layers(model.model.diffusion_model):
        hooked.set_model_attn2_replace(_attention, *layer.key)
    for batch in (1, 16):
        plain = _operations(hooked, batch)
        stacks = [_apply(model, loaded, _prompts(n, **more), combine) for n in (1, 10)]
        one, ten = (_operations(each, batch, _memories(each, batch, (8, 8), 1)) - plain for each in stacks)
        assert 0 < ten <= 1.05 * one


def _attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
    from tessera.host.models.attention_hooks import optimized_attention

    return optimized_attention(q, k, v, extra["n_heads"])


def _products(applied: Any, memory: RunMemory) -> int:
    """Floating point operations of the matrix products of one call, with those in place, which torch does not count."""

    def product(_: Any, a: tuple[int, ...], b: tuple[int, ...], **__: Any) -> int:
        return 2 * a[0] * a[1] * a[2] * b[2]

    to = {**applied.model_options["transformer_options"], "wrappers": applied.wrappers, "cond_or_uncond": [1, 0]}
    x, text, sigma = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16), torch.full((2,), 3.0)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: product})
    # Fused attention of a CPU is not counted either.
    with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
        applied.model.apply_model(x, sigma, c_crossattn=text, transformer_options={**to, RUN: memory})
    return counter.get_total_flops()


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("path", ["cpu", "none"])
def test_products_grow_with_the_tokens_and_nothing_else(
    model: Any, combine: str, masked: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two products, of queries with keys and of weights with values, for every token, pixel and channel."""
    from tessera.ip_adapter import attend, steps

    monkeypatch.setattr(attend, "UNFUSED", path)
    monkeypatch.setattr(steps, "AREAS", "none")
    sizes: dict[tuple[int, int], list[int]] = {}
    for layer in find_layers(model.model.diffusion_model):
        sizes.setdefault(layer.grid((8, 8)), []).append(layer.channels)
    token = sum(2 * 2 * 2 * height * width * sum(channels) for (height, width), channels in sizes.items())
    mask = torch.rand(8, 8) if masked else None
    for kind in ("base", "plus"):
        adapter = parse_adapter(random_adapter(model.model.diffusion_model, kind), kind)
        loaded = LoadedAdapter(adapter, Encoder())
        stacks = {n: _apply(model, loaded, _prompts(n, mask=mask), combine) for n in (1, 2, 10)}
        found = {n: _products(each, _memories(each, 1, (8, 8), 1)) for n, each in stacks.items()}
        assert found[2] - found[1] == TOKENS[kind] * token
        assert found[10] - found[1] == 9 * TOKENS[kind] * token


# What is computed


def test_a_stack_is_encoded_in_one_batch(model: Any, loaded: Any) -> None:
    """All images in one call of the encoder, and the one image of the mean colour in another."""
    sizes = []
    encode = loaded.encoder.encode_image

    def counted(image: Tensor, crop: bool = True) -> Any:
        sizes.append(len(image))
        return encode(image, crop)

    loaded.encoder.encode_image = counted
    _apply(model, loaded, _prompts(10))
    assert sorted(sizes) == [1, 10]


def test_a_change_of_scale_computes_nothing(model: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from tessera.ip_adapter import reference

    calls = []
    project = reference._project
    monkeypatch.setattr(reference, "_project", lambda *a: calls.append(1) or project(*a))
    _apply(model, loaded, _prompts(3))
    first, encoded = len(calls), loaded.encoder.calls
    assert first == 2 * len(loaded.adapter.layers)
    again = [replace(each, scale=0.2, type="style", start=0.4, source=each.source.clone()) for each in _prompts(3)]
    _apply(model, loaded, again, "share")
    assert (len(calls), loaded.encoder.calls) == (first, encoded)
    _apply(model, loaded, [*again, *_prompts(1, fit="stretch")])
    assert loaded.encoder.calls == encoded + 2


def test_what_an_adapter_remembers_is_bounded(model: Any, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _apply(model, loaded, _prompts(1))
    (each,) = loaded.known.found.values()
    monkeypatch.setattr(known, "LARGEST", 3 * each.size)
    for colour in (0.2, 0.3, 0.4, 0.5, 0.6):
        _apply(model, loaded, (ImagePrompt(plain_image(colour), 0.7, "full"),))
    assert len(loaded.known.found) == 3
    calls = loaded.encoder.calls
    _apply(model, loaded, (ImagePrompt(plain_image(0.6), 0.1, "full"),))
    assert loaded.encoder.calls == calls


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_compiles_as_one_graph_and_once(
    model: Any, loaded: Any, combine: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step writes it writes before the network runs; a new step is the same graph."""
    from tessera.ip_adapter import steps

    monkeypatch.setattr(steps, "AREAS", "none")
    prompts = _prompts(3, mask=torch.rand(16, 24) if masked else None)
    memory = RunMemory.begin(installed(_apply(model, loaded, prompts, combine), KEY).kept, (16, 24))
    layer = memory.kept.layers[0]
    ids = [(1, None), (0, None)]

    def step() -> Any:
        return memory.step(ids, [0, 1, 2], (16, 24), torch.device("cpu"))

    def add(out: Tensor, q: Tensor, step: Any) -> Tensor:
        patch = ImageAttention(layer, step, lambda *_, **__: out.clone(), None)
        return patch(q, q, q, {"n_heads": layer.heads, "activations_shape": [2, layer.channels, 16, 24]})

    torch._dynamo.reset()
    compiled = torch.compile(add, fullgraph=True, backend="eager")
    with torch.no_grad():
        for seed in range(3):
            out, q = torch.randn(2, 2, 16 * 24, layer.channels, generator=torch.Generator().manual_seed(seed))
            with torch._dynamo.config.patch(error_on_recompile=seed > 0):
                torch.testing.assert_close(compiled(out, q, step()), add(out, q, step()))
