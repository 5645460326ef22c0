"""InstantX's adapter for Flux, and Kolors' FaceID: what is particular to them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from margins import within
from naming import naming
from safetensors.torch import save_file
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.faces import Face
from tessera.ip_adapter.formats import parse_adapter
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.pipeline import image_prompts, load_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter, make_references
from tessera.ip_adapter.saved import encode_reference, load_reference
from tessera.ip_adapter.siglip import PooledEncoder, check_head, pool, with_head
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from tiny_adapters import (
    Encoder,
    _face,
    _resampler,
    _spread,
    plain_image,
    random_adapter,
    random_instantx,
    random_xlabs,
)
from torch import Tensor

HEIGHT, WIDTH, LENGTH = 6, 10, 7


@pytest.fixture
def model(flux_transformer: Any) -> ModelPatcher:
    return ModelPatcher(Flux(flux_transformer), "cpu", "cpu")


def _load(model: ModelPatcher) -> LoadedAdapter:
    return LoadedAdapter(parse_adapter(random_instantx(model.model.diffusion_model), "instantx"), Encoder())


def _prompt(red: float = 0.3, scale: float = 0.7, **more: Any) -> ImagePrompt:
    return ImagePrompt(plain_image(red), scale, "full", **more)


def _apply(model: Any, loaded: LoadedAdapter | None, *prompts: ImagePrompt, combine: str = "sum") -> Any:
    return TesseraApplyImagePrompts.execute(model, prompts, combine, loaded).args[0]


def _predict(model: Any) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16, HEIGHT, WIDTH), "c_crossattn": (2, LENGTH, 16), "y": (2, 24)}
    given: dict[str, Any] = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    rest = {"t": torch.tensor([0.4, 0.4]), "guidance": torch.tensor([3.5, 3.5])}
    return model.model.apply_model(**given, **rest, transformer_options=to)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


# In Flux


def test_it_acts_in_every_block_and_the_report_says_so(model: ModelPatcher) -> None:
    loaded = _load(model)
    assert (loaded.adapter.kind, loaded.adapter.joint, list(loaded.adapter.layers)) == ("pooled", True, [0, 1, 2, 3])
    report = TesseraApplyImagePrompts.execute(model, (_prompt(),), "sum", loaded).args[1]
    assert "1 image in 4 of 4" in report
    found = [
        _predict(_apply(model, loaded, _prompt(blocks=f"{each}=1"))) for each in ("double_blocks", "single_blocks")
    ]
    whole, plain = _predict(_apply(model, loaded, _prompt())), _predict(model)
    for part in found:
        assert _distance(part, plain) > 1e-4
        assert _distance(part, whole) > 1e-4


@pytest.mark.parametrize("combine", ["sum", "share"])
def test_masks_that_complete_each_other_are_no_mask_for_pixels(model: ModelPatcher, combine: str) -> None:
    """In double blocks, where the text sees no images: an image for each half is the image."""
    loaded, left = _load(model), torch.zeros(48, 80)
    left[:, :48] = 1
    how: dict[str, Any] = {"blocks": "double_blocks=1"}
    halves = [_prompt(mask=mask, **how) for mask in (left, 1 - left)]
    everywhere = _predict(_apply(model, loaded, _prompt(**how), combine="sum"))
    found = _predict(_apply(model, loaded, *halves, combine=combine))
    assert within(_distance(found, everywhere), 1e-5)
    assert _distance(_predict(_apply(model, loaded, halves[0])), everywhere) > 1e-4


def test_the_text_sees_images_without_masks_alone(model: ModelPatcher) -> None:
    """A masked image beside another one changes nothing where it is masked away altogether but for a pixel."""
    loaded, corner = _load(model), torch.zeros(HEIGHT, WIDTH)
    corner[:2, :2] = 1e-6
    how: dict[str, Any] = {"blocks": "single_blocks=1"}
    both = _predict(_apply(model, loaded, _prompt(0.9, mask=corner, **how), _prompt(**how)))
    assert within(_distance(both, _predict(_apply(model, loaded, _prompt(**how)))), 1e-5)


def test_it_acts_beside_an_adapter_by_xlabs(model: ModelPatcher) -> None:
    xlabs = LoadedAdapter(parse_adapter(random_xlabs(model.model.diffusion_model), "xlabs"), Encoder())
    instantx, plain = _load(model), _predict(model)
    one, other = _apply(model, xlabs, _prompt(0.9)), _apply(model, instantx, _prompt())
    both = _predict(_apply(one, instantx, _prompt()))
    assert torch.equal(_predict(_apply(other, xlabs, _prompt(0.9))), both)
    for each in (plain, _predict(one), _predict(other)):
        assert _distance(both, each) > 1e-4


def test_a_pipeline_of_diffusers_gives_the_same(model: ModelPatcher, flux_transformer: Any) -> None:
    network: Any = copy.deepcopy(flux_transformer)
    network.set_attn_processor(FluxAttnProcessor())
    loaded, generator = _load(model), torch.Generator().manual_seed(1)
    shapes = {"hidden_states": (2, 15, 64), "encoder_hidden_states": (2, LENGTH, 16), "pooled_projections": (2, 24)}
    inputs: dict[str, Any] = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    inputs["img_ids"] = torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(5.0))
    inputs |= {"timestep": torch.full((2,), 0.4), "txt_ids": torch.zeros(LENGTH, 3), "guidance": torch.full((2,), 3.5)}
    with torch.no_grad():
        plain = network(**inputs).sample
        with image_prompts(network, loaded, [_prompt(), _prompt(0.9, 0.4)]):
            seen = network(**inputs).sample
        assert torch.equal(network(**inputs).sample, plain)
        applied = _apply(model, loaded, _prompt(), _prompt(0.9, 0.4))
        hosted = _as_hosted(applied, inputs)
    assert within(_distance(seen, hosted), 1e-5)
    assert _distance(seen, plain) > 1e-4


def _as_hosted(applied: Any, inputs: dict[str, Any]) -> Tensor:
    """The tokens that the embedded host's Flux gives for the same input, all rows positive."""
    from tessera.host.models.patches import patchify, unpatchify

    x = unpatchify(inputs["hidden_states"], HEIGHT, WIDTH)
    given = {"c_crossattn": inputs["encoder_hidden_states"], "y": inputs["pooled_projections"]}
    to = {**applied.model_options["transformer_options"], "wrappers": applied.wrappers, "cond_or_uncond": [0]}
    level = inputs["timestep"]
    denoised = applied.model.apply_model(x=x, t=level, guidance=inputs["guidance"], transformer_options=to, **given)
    return patchify((x - denoised) / level[:, None, None, None])[0]


def test_a_saved_reference_acts_as_the_image(model: ModelPatcher, tmp_path: Path) -> None:
    loaded = _load(model)
    (made,) = make_references([(_prompt(), list(loaded.adapter.layers))], loaded)
    (tmp_path / "a.reference.safetensors").write_bytes(encode_reference(made))
    again = load_reference(tmp_path / "a.reference.safetensors")
    assert again.joint
    found = _predict(_apply(model, None, ImagePrompt(again, 0.7, "full")))
    assert _distance(found, _predict(_apply(model, loaded, _prompt()))) < 1e-3
    assert _distance(found, _predict(model)) > 1e-3


# SigLIP's pooled output


def _siglip() -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 144, "intermediate_size": 96, "image_size": 32, "patch_size": 16}
    model: Any = SiglipVisionModel(SiglipVisionConfig(**sizes, num_hidden_layers=2, num_attention_heads=2)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    return model


def test_the_head_is_read_from_the_encoders_file(tmp_path: Path, model: ModelPatcher) -> None:
    siglip, adapter = _siglip(), _load(model).adapter
    weights = {f"vision_model.{k.removeprefix('vision_model.')}": t for k, t in siglip.state_dict().items()}
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / "siglip.safetensors")
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        out = siglip(pixel_values=pixels)
    encoder = SimpleNamespace(
        model=siglip,
        image_mean=(0.5, 0.5, 0.5),
        encode_image=lambda image, crop: SimpleNamespace(
            last_hidden_state=out.last_hidden_state, penultimate_hidden_states=None
        ),
    )
    headed = with_head(adapter, encoder, tmp_path / "siglip.safetensors")
    found = headed.encode_image(torch.zeros(3, 32, 32, 3)).image_embeds
    assert within(_distance(found, out.pooler_output), 2e-6)
    assert torch.equal(found, pool(headed.head, out.last_hidden_state))
    assert with_head(parse_adapter(random_xlabs(model.model.diffusion_model), "xlabs"), encoder, tmp_path) is encoder


def test_an_encoder_without_the_head_is_refused(tmp_path: Path, model: ModelPatcher) -> None:
    adapter, encoder = _load(model).adapter, SimpleNamespace(model=None, image_mean=())
    save_file({"vision_model.post_layernorm.weight": torch.ones(3)}, tmp_path / "bare.safetensors")
    with pytest.raises(
        ValueError,
        match=naming("instantx", "bare.safetensors", "pooling head", "sigclip_vision_patch14_384.safetensors", "bytes"),
    ):
        with_head(adapter, encoder, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=naming("instantx", "connected encoder", "clip_vision")) as refused:
        check_head(adapter, encoder)
    assert "\n" not in str(refused.value)
    check_head(adapter, PooledEncoder(encoder, {}))


def test_a_pipelines_encoder_gives_its_pooled_output(flux_transformer: Any, tmp_path: Path) -> None:
    from transformers import SiglipImageProcessor

    siglip = _siglip()
    processor: Any = SiglipImageProcessor(size={"height": 32, "width": 32})
    torch.save(random_instantx(flux_transformer, 144), tmp_path / "ip-adapter.bin")
    image = torch.randint(0, 256, (1, 32, 32, 3)) / 255
    loaded = load_adapter(str(tmp_path / "ip-adapter.bin"), siglip, processor)
    found = loaded.encoder.encode_image(image)
    with torch.no_grad():
        expected = siglip(pixel_values=2 * image.movedim(-1, 1) - 1).pooler_output
    assert within(_distance(found.image_embeds, expected), 1e-5)


# Kolors


def _kolors(unet: Any) -> tuple[Any, Any]:
    """A UNet that projects its text, and a FaceID plus adapter whose tokens are as wide as that text."""
    network = copy.deepcopy(unet)
    torch.manual_seed(3)
    network.encoder_hid_proj = torch.nn.Linear(128, 16)
    weights = random_adapter(network)
    inside = {f"perceiver_resampler.{key}": t for key, t in _spread(_resampler(128, 128, 4)).items()}
    return network, {"image_proj": _face(128, 6) | inside, "ip_adapter": weights["ip_adapter"]}


def test_tokens_of_kolors_faceid_go_through_its_own_layer(sd15_unet: Any) -> None:
    network, weights = _kolors(sd15_unet)
    adapter = parse_adapter(weights, "ipa-faceid-plus.bin")
    assert (adapter.kind, adapter.tokens, adapter.width, adapter.made) == ("face_plus", 6, 16, 128)
    face = Face(torch.randn(512, generator=torch.Generator().manual_seed(0)))
    loaded = LoadedAdapter(adapter, Encoder())
    models = [ModelPatcher(SD15(each), "cpu", "cpu") for each in (network, copy.deepcopy(network))]
    models[1].model.diffusion_model.encoder_hid_proj.weight.data.mul_(2)
    kept = [
        _apply(each, loaded, _prompt(face=face)).get_wrappers("outer_sample", "tessera_image_prompts")[0].owner.kept
        for each in models
    ]
    values = [each.references[0].keys_values for each in kept]
    number = find_layers(network)[0].number
    assert values[0][number][0].shape == (2, 6, adapter.layers[number][0].shape[0])
    assert not torch.allclose(values[0][number][0], values[1][number][0])


def test_a_model_without_that_layer_is_refused(sd15_unet: Any) -> None:
    network, weights = _kolors(sd15_unet)
    loaded = LoadedAdapter(parse_adapter(weights, "ipa-faceid-plus.bin"), Encoder())
    plain = ModelPatcher(SD15(sd15_unet), "cpu", "cpu")
    words = naming("ipa-faceid-plus.bin", 128, 16, "encoder_hid_proj", "Kolors")
    with pytest.raises(ValueError, match=words) as refused:
        _apply(plain, loaded, _prompt(face=Face(torch.randn(512))))
    assert "\n" not in str(refused.value)
