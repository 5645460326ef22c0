"""Image prompts on Flux, against diffusers' own IP-Adapter for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from margins import within
from naming import naming
from tessera.host.models.model_base import Flux
from tessera.host.models.patches import patchify, unpatchify
from tessera.host.runtime.patcher import ModelPatcher
from tessera.host.runtime.patcher_extension import WrappersMP
from tessera.host.sampling.ksampler import KSampler
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tessera.nodes.references import TesseraReferenceMap
from tessera.patching.calls import WHOLE_TOKENS
from tiny_adapters import Encoder, plain_image, random_adapter, random_xlabs
from torch import Tensor

HEIGHT, WIDTH, LENGTH = 6, 10, 7
COLOURS, SCALES = [0.1, 0.9, 0.5], [0.9, 0.4, 0.6]


@pytest.fixture
def model(flux_transformer: Any) -> ModelPatcher:
    return ModelPatcher(Flux(flux_transformer), "cpu", "cpu")


def _load(model: ModelPatcher, seed: int = 0) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_xlabs(model.model.diffusion_model, seed), "xlabs"), Encoder())


def _prompts(*colours: float, scale: float = 0.7, kind: str = "full", **more: Any) -> tuple[ImagePrompt, ...]:
    return tuple(ImagePrompt(plain_image(colour), scale, kind, **more) for colour in colours)


def _apply(model: Any, loaded: LoadedAdapter | None, prompts: Sequence[ImagePrompt], combine: str = "sum") -> Any:
    return TesseraApplyImagePrompts.execute(model, tuple(prompts), combine, loaded).args[0]


def _inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16, HEIGHT, WIDTH), "c_crossattn": (2, LENGTH, 16), "y": (2, 24)}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**found, "t": torch.tensor([0.4, 0.4]), "guidance": torch.tensor([3.5, 3.5])}


def _predict(model: Any, roles: Sequence[int] = (1, 0)) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": list(roles)}
    return model.model.apply_model(**_inputs(), transformer_options=to)


def _diffusers(model: ModelPatcher, adapters: list[dict[str, Any]], colours: list[list[float]], scales: Any) -> Tensor:
    """The same transformer with diffusers' own processors; the first row gets the unconditional embedding."""
    transformer: Any = FluxTransformer2DModel.from_config(model.model.diffusion_model.config)
    transformer.load_state_dict(model.model.diffusion_model.state_dict())
    transformer._load_ip_adapter_weights([_nested(each) for each in adapters], low_cpu_mem_usage=False)
    for processor in transformer.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = scales
    seen = [torch.cat([Encoder().encode_image(plain_image(c)).image_embeds for c in each]) for each in colours]
    embeds = [torch.stack([torch.zeros_like(each), each]) for each in seen]
    inputs = _inputs()
    tokens, ids = patchify(inputs["x"])
    out = transformer.eval()(
        tokens,
        encoder_hidden_states=inputs["c_crossattn"],
        pooled_projections=inputs["y"],
        timestep=inputs["t"],
        img_ids=ids,
        txt_ids=ids.new_zeros(LENGTH, 3),
        guidance=inputs["guidance"],
        joint_attention_kwargs={"ip_adapter_image_embeds": embeds},
    ).sample
    sampling = model.model.model_sampling
    return sampling.calculate_denoised(inputs["t"], unpatchify(out, HEIGHT, WIDTH), inputs["x"])


def _nested(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What diffusers makes of XLabs' names."""
    found: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in weights.items():
        if key.startswith("ip_adapter_proj_model."):
            found["image_proj"][key.removeprefix("ip_adapter_proj_model.")] = tensor
        else:
            part = key.split("double_stream_")[1].replace("_proj", "_ip")
            found["ip_adapter"][f"{key.split('.')[1]}.to_{part}"] = tensor
    return found


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


# Against diffusers


@pytest.mark.parametrize("count", [1, 3])
def test_images_equal_diffusers(model: ModelPatcher, count: int) -> None:
    adapter = random_xlabs(model.model.diffusion_model)
    stack = [p for c, s in zip(COLOURS[:count], SCALES[:count], strict=True) for p in _prompts(c, scale=s)]
    expected = _diffusers(model, [adapter] * count, [[colour] for colour in COLOURS[:count]], SCALES[:count])
    ours = _predict(_apply(model, _load(model), stack))
    assert within(_distance(ours, expected), 1e-5)
    assert _distance(ours, _predict(model)) > 1e-3


def test_a_file_of_diffusers_names_is_the_same_adapter(model: ModelPatcher) -> None:
    weights = random_xlabs(model.model.diffusion_model)
    one, two = parse_adapter(weights, "a"), parse_adapter(_nested(weights), "b")
    assert one.fingerprint == two.fingerprint
    assert (one.kind, one.tokens, one.features) == ("base", 4, 24)
    assert list(one.layers) == list(one.biases) == [0, 1]


# Properties


def test_masks_that_complete_each_other_are_no_mask(model: ModelPatcher) -> None:
    loaded = _load(model)
    left = torch.zeros(48, 80)
    left[:, :37] = 1
    halves = [*_prompts(0.3, mask=left), *_prompts(0.3, mask=1 - left)]
    everywhere = _predict(_apply(model, loaded, _prompts(0.3)))
    assert within(_distance(_predict(_apply(model, loaded, halves)), everywhere), 1e-5)
    one = _predict(_apply(model, loaded, halves[:1]))
    assert _distance(one, _predict(_apply(model, loaded, _prompts(0.3)))) > 1e-3


def _sample(model: Any, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    noise = torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(7))
    text = [[torch.linspace(-1, 1, 7 * 16).view(1, 7, 16), {"pooled_output": torch.ones(1, 24)}]]
    return KSampler(model, 3, "euler", "simple").sample(noise, text, text, 1.0, torch.zeros_like(noise), seed=1)


def test_scale_zero_and_inactive_steps_are_as_if_the_image_were_absent(model: ModelPatcher) -> None:
    plain, loaded = _sample(model), _load(model)
    assert torch.equal(_sample(_apply(model, loaded, _prompts(0.3, scale=0.0))), plain)
    assert torch.equal(_sample(_apply(model, loaded, _prompts(0.3, start=0.0001, end=0.0002))), plain)
    assert not torch.equal(_sample(_apply(model, loaded, _prompts(0.3))), plain)


@pytest.mark.parametrize("combine", ["sum", "share", "concat"])
def test_two_nodes_in_a_row_equal_one_with_both_stacks(model: ModelPatcher, combine: str) -> None:
    loaded, a, b = _load(model), _prompts(0.1, 0.4), _prompts(0.9, scale=0.3)
    plain, half = _sample(model), _apply(model, loaded, a, combine)
    before = _sample(half)
    twice = _apply(half, loaded, b, combine)
    assert torch.equal(_sample(twice), _sample(_apply(model, loaded, [*a, *b], combine)))
    assert torch.equal(_sample(half), before)
    assert torch.equal(_sample(model), plain)


def test_odd_sizes_with_masks(model: ModelPatcher) -> None:
    mask = torch.zeros(40, 72)
    mask[:, :36] = 1
    drawn = _sample(_apply(model, _load(model), _prompts(0.3, mask=mask)), (5, 9))
    assert drawn.shape == (1, 16, 5, 9)
    assert not torch.equal(drawn, _sample(model, (5, 9)))


@pytest.mark.parametrize("first", [True, False])
def test_a_block_that_another_pack_replaces_is_called(model: ModelPatcher, first: bool) -> None:
    loaded, calls = _load(model), []

    def other(args: Any, extra: Any) -> Any:
        calls.append(args["img"].shape)
        out = extra["original_block"](args)
        return {**out, "img": 2 * out["img"]}

    def replaced(model: Any) -> Any:
        clone = model.clone()
        clone.set_model_patch_replace(other, "dit", "double_block", 1)
        return clone

    both = _apply(replaced(model), loaded, _prompts(0.3)) if first else replaced(_apply(model, loaded, _prompts(0.3)))
    found = _predict(both)
    assert len(calls) == 1
    assert _distance(found, _predict(replaced(model))) > 1e-3
    assert _distance(found, _predict(_apply(model, loaded, _prompts(0.3)))) > 1e-3


def test_a_map_shows_where_a_mask_lets_an_image_act(model: ModelPatcher) -> None:
    left = torch.zeros(96, 160)
    left[:, :80] = 1
    applied = _apply(model, _load(model), _prompts(0.3, mask=left))
    text = [[torch.ones(1, 7, 16), {"pooled_output": torch.ones(1, 24)}]]
    maps = TesseraReferenceMap.execute(applied, text, {"samples": torch.randn(1, 16, 12, 20)}, 0.5).args[0]
    assert maps[0, :, :64].mean() > 10 * maps[0, :, 96:].mean()


# Wrong input


def test_what_does_not_go_together_is_refused(model: ModelPatcher, sd15_unet: Any) -> None:
    unet = LoadedAdapter(parse_adapter(random_adapter(sd15_unet), "unet.bin"), Encoder())
    for loaded, prompts, words in (
        (unet, _prompts(0.3), naming("unet.bin", "cross-attention layers", 10, 4)),
        (_load(model), _prompts(0.3, kind="style"), naming("Flux", "full")),
        (_load(model), _prompts(0.3, blocks="mid_block=1"), naming("mid_block", "double_blocks.0")),
    ):
        with pytest.raises(ValueError, match=words):
            _apply(model, loaded, prompts)


def test_masks_keep_the_grid_of_tokens_where_it_is(model: ModelPatcher) -> None:
    """A seamless model moves the image by half a token from step to step, which masks could not follow."""
    loaded, noise = _load(model), torch.randn(1, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    text = [[torch.ones(1, LENGTH, 16), {"pooled_output": torch.ones(1, 24)}]]

    def kept(model: Any) -> set[bool]:
        seen, watched = set(), model.clone()

        def watch(executor: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
            seen.add(WHOLE_TOKENS in arguments[4])
            return executor(x, *arguments, **named)

        watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watch", watch)
        KSampler(watched, 1, "euler", "simple").sample(noise, text, text, 1.0, torch.zeros_like(noise), seed=0)
        return seen

    assert kept(model) == kept(_apply(model, loaded, _prompts(0.2))) == {False}
    assert kept(_apply(model, loaded, _prompts(0.2, mask=torch.ones(HEIGHT, WIDTH)))) == {True}
