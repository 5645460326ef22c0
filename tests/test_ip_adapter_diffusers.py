"""Image prompts in plain diffusers networks, against diffusers' own IP-Adapter processors."""

from __future__ import annotations

import copy
import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest
import tessera.ip_adapter
import torch
from margins import within
from naming import naming
from safetensors.torch import save_file
from tessera.ip_adapter import ImagePrompt, LoadedAdapter, image_prompts, load_adapter, parse_adapter
from tiny_adapters import Encoder, flat, plain_image, random_adapter, random_xlabs
from torch import Tensor, nn

HEIGHT, WIDTH = 12, 20


def _unet_inputs(unet: Any, rows: int = 2, timestep: float = 500) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"sample": (rows, 4, HEIGHT, WIDTH), "encoder_hidden_states": (rows, 7, 16)}
    found: dict[str, Any] = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    if unet.config.addition_embed_type:
        found["added_cond_kwargs"] = {"text_embeds": torch.ones(rows, 16), "time_ids": torch.ones(rows, 6)}
    return {**found, "timestep": timestep}


def _flux_inputs(rows: int = 2, timestep: float = 0.4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"hidden_states": (rows, 15, 64), "encoder_hidden_states": (rows, 7, 16), "pooled_projections": (rows, 24)}
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(5.0))
    return {
        **{key: torch.randn(shape, generator=generator) for key, shape in shapes.items()},
        "timestep": torch.full((rows,), timestep),
        "img_ids": ids,
        "txt_ids": torch.zeros(7, 3),
        "guidance": torch.full((rows,), 3.5),
    }


@pytest.fixture
def flux_transformer(flux_transformer: Any) -> Any:
    """A Flux as diffusers makes it; in other tests the embedded host has put its own attention into the shared one."""
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

    own = copy.deepcopy(flux_transformer)
    own.set_attn_processor(FluxAttnProcessor())
    return own


@pytest.fixture(params=["sd15_unet", "sdxl_unet"])
def unet(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def _loaded(network: nn.Module, kind: str = "base") -> LoadedAdapter:
    weights = random_xlabs(network) if hasattr(network, "transformer_blocks") else random_adapter(network, kind)
    return LoadedAdapter(parse_adapter(weights, kind), Encoder())


def _prompt(red: float = 0.3, scale: float = 0.7, **more: Any) -> ImagePrompt:
    return ImagePrompt(plain_image(red), scale, "full", **more)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _call(network: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return network(**inputs).sample


def _with(network: Any, inputs: dict[str, Any], *prompts: ImagePrompt, **settings: Any) -> Tensor:
    with image_prompts(network, _loaded(network), prompts, **settings):
        return _call(network, inputs)


def _hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def _as_diffusers(network: Any, adapter: dict[str, Any], scale: float) -> Any:
    copied = copy.deepcopy(network)
    copied._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
    for processor in copied.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    return copied.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["base", "plus", "full"])
def test_one_image_equals_diffusers_in_unets(unet: Any, kind: str) -> None:
    inputs, encoder = _unet_inputs(unet), Encoder()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 8, 8, 3)
    found, blank = encoder.encode_image(plain_image(0.3)), encoder.encode_image(mean)
    if kind == "base":
        seen = torch.stack([torch.zeros_like(found.image_embeds), found.image_embeds])
    else:
        seen = torch.stack([blank.penultimate_hidden_states, found.penultimate_hidden_states])
    theirs = _as_diffusers(unet, random_adapter(unet, kind), 0.7)
    added = {**inputs.get("added_cond_kwargs", {}), "image_embeds": [seen]}
    expected = _call(theirs, {**inputs, "added_cond_kwargs": added})
    plain = _call(unet, inputs)
    with image_prompts(unet, _loaded(unet, kind), [_prompt()]):
        ours = _call(unet, inputs)
    assert within(_distance(ours, expected), 1e-5)
    assert _distance(ours, plain) > 1e-3
    assert torch.equal(_call(unet, inputs), plain)


def test_one_image_equals_diffusers_in_flux(flux_transformer: Any) -> None:
    inputs = _flux_inputs()
    nested: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in random_xlabs(flux_transformer).items():
        if key.startswith("ip_adapter_proj_model."):
            nested["image_proj"][key.removeprefix("ip_adapter_proj_model.")] = tensor
        else:
            part = key.split("double_stream_")[1].replace("_proj", "_ip")
            nested["ip_adapter"][f"{key.split('.')[1]}.to_{part}"] = tensor
    seen = Encoder().encode_image(plain_image(0.3)).image_embeds[None].expand(2, -1, -1)
    theirs = _as_diffusers(flux_transformer, nested, 0.7)
    expected = _call(theirs, {**inputs, "joint_attention_kwargs": {"ip_adapter_image_embeds": [seen]}})
    plain, ours = _call(flux_transformer, inputs), _with(flux_transformer, inputs, _prompt())
    assert within(_distance(ours, expected), 1e-5)
    assert _distance(ours, plain) > 1e-3
    assert torch.equal(_call(flux_transformer, inputs), plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_one_image_equals_diffusers_in_a_pipeline(sd15_unet: Any, autoencoder: Any, scale: float) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    found = Encoder().encode_image(plain_image(0.3)).image_embeds[None]
    seen = torch.cat([torch.zeros_like(found), found]) if scale > 1 else found
    generator = torch.Generator().manual_seed(2)
    given = {name: torch.randn(1, 7, 16, generator=generator) for name in ("prompt_embeds", "negative_prompt_embeds")}
    given["latents"] = torch.randn(1, 4, HEIGHT, WIDTH, generator=generator)
    settings = {"height": 8 * HEIGHT, "width": 8 * WIDTH, "num_inference_steps": 3, "output_type": "latent"}

    def run(unet: Any, **more: Any) -> Tensor:
        parts: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        parts |= {"unet": unet, "scheduler": DDIMScheduler()}
        pipe: Any = StableDiffusionPipeline(autoencoder, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe(**given, **settings, guidance_scale=scale, **more).images

    theirs = _as_diffusers(sd15_unet, random_adapter(sd15_unet), 0.7)
    expected, plain = run(theirs, ip_adapter_image_embeds=[seen]), run(sd15_unet)
    with image_prompts(sd15_unet, _loaded(sd15_unet), [_prompt()], guidance=scale > 1):
        ours = run(sd15_unet)
    assert within(_distance(ours, expected), 1e-5)
    assert _distance(ours, plain) > 1e-3


def test_any_attention_processor_does(unet: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    other = copy.deepcopy(unet)
    other.set_attn_processor(AttnProcessor())
    inputs = _unet_inputs(unet)
    assert within(_distance(_with(other, inputs, _prompt()), _with(unet, inputs, _prompt())), 1e-5)


def test_without_guidance_every_row_sees_the_image(unet: Any) -> None:
    inputs = _unet_inputs(unet)
    guided, all_rows = (_with(unet, inputs, _prompt(), guidance=each) for each in (True, False))
    assert within(_distance(guided[1:], all_rows[1:]), 1e-5)
    assert _distance(guided[:1], all_rows[:1]) > 1e-3
    with pytest.raises(ValueError, match="guidance=False"):
        _with(unet, _unet_inputs(unet, rows=3), _prompt())


@pytest.mark.parametrize("network", ["sd15_unet", "flux_transformer"])
def test_ranges_bound_the_timesteps(network: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(network)
    inputs, whole = (_flux_inputs, 1.0) if "flux" in network else (lambda **kw: _unet_inputs(module, **kw), 999.0)
    early, late = inputs(timestep=0.9 * whole), inputs(timestep=0.1 * whole)
    for given, acts in ((early, False), (late, True)):
        plain, ours = _call(module, given), _with(module, given, _prompt(start=0.5))
        assert torch.equal(plain, ours) is not acts
        assert torch.equal(_with(module, given, _prompt(start=0.5, end=1.0), _prompt(scale=0.0)), ours)


@pytest.mark.parametrize("network", ["sd15_unet", "sdxl_unet", "flux_transformer"])
def test_masks_divide_the_image(network: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(network)
    inputs, size = (_flux_inputs(), (6, 10)) if "flux" in network else (_unet_inputs(module), (HEIGHT, WIDTH))
    mask = torch.zeros(size)
    mask[:, : size[1] // 2] = 1
    halves = _with(module, inputs, _prompt(mask=mask), _prompt(mask=1 - mask))
    assert within(_distance(halves, _with(module, inputs, _prompt())), 1e-5)
    with pytest.raises(ValueError, match=naming("mask of image prompt 2", "64 x 8", f"{8 * size[1]} x {8 * size[0]}")):
        _with(module, inputs, _prompt(), _prompt(mask=torch.ones(8, 64)))


def test_blocks_nest_and_leave_nothing_behind_after_errors(unet: Any) -> None:
    inputs, loaded, before = _unet_inputs(unet), _loaded(unet), _hooks(unet)
    with image_prompts(unet, loaded, [_prompt(0.1)]), image_prompts(unet, loaded, [_prompt(0.9, 0.4)]):
        nested = _call(unet, inputs)
    assert within(_distance(nested, _with(unet, inputs, _prompt(0.1), _prompt(0.9, 0.4))), 1e-5)
    with pytest.raises(RuntimeError, match="interrupted"), image_prompts(unet, loaded, [_prompt()]):
        raise RuntimeError("interrupted")
    assert _hooks(unet) == before


def test_wrong_settings_are_refused_before_the_block(unet: Any) -> None:
    for network, prompts, more, words in (
        (unet, [_prompt()], {"combine": "mean"}, "combine.*mean.*share"),
        (unet, [], {}, "0 image prompts"),
        (nn.Linear(1, 1), [_prompt()], {}, "Linear.*pipe.unet"),
        (unet, [_prompt(mask=torch.zeros(4, 4))], {}, "black everywhere"),
    ):
        with pytest.raises(ValueError, match=words), image_prompts(network, _loaded(unet), prompts, **more):
            pytest.fail("the block was entered")


def test_an_encoder_of_transformers_reads_images(sd15_unet: Any, tmp_path: Path) -> None:
    """The crop is the middle of the image, normalised; levels of 8 bits, as the processor may round to them."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 32, "projection_dim": 24, "image_size": 16}
    config = CLIPVisionConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
    model: Any = CLIPVisionModelWithProjection(config).eval()
    file = tmp_path / "adapter.safetensors"
    save_file(flat(random_adapter(sd15_unet)), file)
    encoder = load_adapter(str(file), model).encoder
    image = torch.randint(0, 256, (1, 16, 32, 3)) / 255
    cropped, stretched = (encoder.encode_image(image, crop) for crop in (True, False))
    assert cropped.image_embeds.shape == (1, 24)
    assert cropped.penultimate_hidden_states.shape == (1, 5, 128)
    mean = encoder.image_mean
    pixels = (image[:, :, 8:24] - torch.tensor(mean)) / torch.tensor(encoder.processor.image_std)
    expected = model(pixel_values=pixels.movedim(-1, 1)).image_embeds
    assert within(_distance(cropped.image_embeds, expected.detach()), 1e-5)
    assert _distance(stretched.image_embeds, cropped.image_embeds) > 1e-3
    config.projection_dim = 48
    with pytest.raises(ValueError, match="24.*48"):
        load_adapter(str(file), CLIPVisionModelWithProjection(config))


@pytest.mark.parametrize("name", ["ip_adapter", "ip_adapter.pipeline", "ip_adapter.network_hooks"])
def test_examples_of_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"tessera.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)


def test_public_names_are_there() -> None:
    package = tessera.ip_adapter
    assert [name for name in package.__all__ if not getattr(package, name).__doc__] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name
