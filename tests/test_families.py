"""The registry of families: each known by its keys, its configuration read from shapes, its text encoders by width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from naming import naming
from tessera.host.models.architectures import unet_config
from tessera.host.models.families import FAMILIES, of_file_name, recognise
from tessera.host.models.families.qwen_image import instruction_length
from tessera.host.models.image_conds import NoiseAugmentor, edit_channels, flux_channels, inpainting_channels
from tessera.host.models.loaders import load_clip, load_diffusion_model, load_vae
from tessera.host.models.model_base import ModelType
from tessera.host.text.tekken import tekken_tokenizer
from tiny_tekken import SPECIAL, WORDS, tekken

SIZED = tiny.SDXL_UNET | {"transformer_layers_per_block": [1, 2]}
THREE = SIZED | {
    "block_out_channels": [64, 64, 64],
    "attention_head_dim": 1,
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, [2, 2], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 3], [2, 1, 1], 1],
}
UNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "inpainting": ("Stable Diffusion 1.5", tiny.UNET | {"in_channels": 9}),
    "editing": ("Stable Diffusion 1.5", tiny.UNET | {"in_channels": 8}),
    "linear": ("Stable Diffusion 2", tiny.UNET | {"use_linear_projection": True, "attention_head_dim": [1, 1],
                                                  "block_out_channels": [64, 64]}),
    "pruned": ("SDXL", THREE | {"mid_block_type": "UNetMidBlock2D"}),
    "without a middle": ("SDXL", THREE | {"mid_block_type": None}),
    "uneven": ("SDXL", THREE),
    "refiner": ("SDXL refiner", THREE | {"projection_class_embeddings_input_dim": 3 * tiny.WIDTH + 5 * 256}),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNETS)
def test_unets_are_read_from_their_keys(kind: str) -> None:
    name, config = UNETS[kind]
    weights = tiny.unet_weights(config)
    family, converted = recognise(tiny.original_unet(weights))
    assert family.name == name
    torch.testing.assert_close(converted, weights, rtol=0, atol=0)
    wanted: Any = UNet2DConditionModel.from_config(config)
    found: Any = UNet2DConditionModel.from_config(unet_config(weights))
    for module in (wanted, found):
        module.load_state_dict(weights)
    sizes = config.get("projection_class_embeddings_input_dim", 0) - (5 if name.endswith("refiner") else 6) * 256
    added = {"text_embeds": torch.ones(1, max(sizes, 1)), "time_ids": torch.ones(1, 5 + (name == "SDXL"))}
    inputs = torch.randn(1, config["in_channels"], 8, 8), 3, torch.randn(1, 5, config["cross_attention_dim"])
    with torch.no_grad():
        torch.testing.assert_close(found(*inputs, added_cond_kwargs=added), wanted(*inputs, added_cond_kwargs=added))


def test_families_have_pages_of_their_own() -> None:
    assert len({family.name for family in FAMILIES}) == len({family.model for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    ("name", "family"),
    [("v1-5-pruned-emaonly-fp16.safetensors", "Stable Diffusion 1.5"), ("sd_xl_base_1.0.safetensors", "SDXL"),
     ("sd_xl_refiner_1.0.safetensors", "SDXL refiner"), ("flux1-dev-fp8.safetensors", "Flux.1"),
     ("Chroma1-HD-fp8mixed.safetensors", "Chroma"), ("chroma-radiance-x0.safetensors", None),
     ("v2-1_768-ema-pruned.safetensors", "Stable Diffusion 2"), ("wan2.1_t2v_14B_fp16.safetensors", None)],
)  # fmt: skip
def test_usual_file_names(name: str, family: str | None) -> None:
    found = of_file_name(name)
    assert (found and found.name) == family


@pytest.mark.parametrize(("deviation", "kind"), [(0.05, ModelType.EPS), (0.2, ModelType.V_PREDICTION)])
def test_prediction_of_stable_diffusion_2(deviation: float, kind: ModelType, tmp_path: Path) -> None:
    deep = {"block_out_channels": [64] * 4, "attention_head_dim": 1, "layers_per_block": 2,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "use_linear_projection": True}  # fmt: skip
    weights = tiny.unet_weights(tiny.UNET | deep)
    probe = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
    weights[probe] = deviation * (weights[probe] - weights[probe].mean()) / weights[probe].std(unbiased=False)
    path = tiny.save(tmp_path / "sd2.safetensors", tiny.original_unet(weights))
    assert load_diffusion_model(path).model.model_type == kind


def test_text_encoders_go_by_their_width(tmp_path: Path) -> None:
    keys = {64: "l", 1024: "h", 1280: "g"}
    for width, key in keys.items():
        config = tiny.text_config(width, "gelu", width) | {"num_hidden_layers": 1, "vocab_size": tiny.VOCABULARY}
        path = tiny.save(tmp_path / f"{key}.safetensors", tiny.text_weights(config))
        clip = load_clip([path], "stable_diffusion")
        assert list(clip.tokenize("moss")) == [key]
        assert clip.encode("moss").shape == (1, 77, width)
    with pytest.raises(ValueError, match=naming("CLIP of width 1280", "sdxl")):
        load_clip([tmp_path / "g.safetensors"], "sdxl")


def test_channels_beside_the_latents() -> None:
    noise, image = torch.randn(2, 4, 6, 8), torch.randn(1, 4, 6, 8)
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., 32:] = 1
    seen = inpainting_channels(lambda x: 2 * x, noise, "cpu", concat_latent_image=image, concat_mask=mask)
    assert torch.equal(seen[:, :1], torch.cat([torch.zeros(2, 1, 6, 4), torch.ones(2, 1, 6, 4)], -1))
    assert torch.equal(seen[:, 1:], 2 * image.expand(2, -1, -1, -1))
    blank = inpainting_channels(lambda x: 2 * x, noise, "cpu", latent_image=image)
    assert torch.equal(blank[:, 0], torch.ones(2, 6, 8)) and blank[:, 1:].std((2, 3)).max() == 0
    assert torch.equal(edit_channels(noise, "cpu", concat_latent_image=image), image.expand(2, -1, -1, -1))
    assert not edit_channels(noise, "cpu").any()
    seen = flux_channels(lambda x: 2 * x, 72, noise, "cpu", concat_latent_image=image, concat_mask=mask)
    assert torch.equal(seen[:, :4], 2 * image.expand(2, -1, -1, -1))
    assert torch.equal(seen[:, 4:].amin(1), seen[:, 4:].amax(1))
    assert torch.equal(seen[:, 4], torch.cat([torch.zeros(2, 6, 4), torch.ones(2, 6, 4)], -1))
    assert flux_channels(lambda x: 2 * x, 8, noise, "cpu", concat_latent_image=image).shape == noise.shape


def test_noise_of_image_embeddings_rises_from_none() -> None:
    augmentor = NoiseAugmentor(torch.zeros(1, 8), torch.ones(1, 8))
    embedding = torch.ones(1, 8)
    clear, half, full = (augmentor(embedding, part, 3)[:, :8] for part in (0.0, 0.5, 1.0))
    assert (clear - embedding).abs().max() < 0.05
    assert (clear - embedding).norm() < (half - embedding).norm()
    assert torch.allclose(full, torch.randn(1, 8, generator=torch.Generator().manual_seed(3)), atol=0.05)


def test_language_model_reads_a_prompt_in_its_template(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-6, rope_theta=1000000.0,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    reference: Any = Qwen3Model(config).eval()
    weights = tiny.random_weights(reference, 6)
    reference.load_state_dict(weights)
    path = tiny.save(tmp_path / "qwen.safetensors", tiny.with_prefix("model.", weights))
    with pytest.raises(FileNotFoundError, match=naming("tokenizer.json", "Qwen3")):
        load_clip([path], "lumina2")
    tiny.save_t5_tokenizer(tmp_path)
    clip = load_clip([path], "lumina2")
    tokens = clip.tokenize("(moss:1.2)")
    ids = torch.tensor([[token for token, _ in tokens["qwen3_4b"][0]]])
    assert all(weight == 1.0 for _, weight in tokens["qwen3_4b"][0])
    with torch.no_grad():
        wanted = reference(input_ids=ids, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(clip.encode("(moss:1.2)"), wanted)
    with pytest.raises(ValueError, match=naming("flux", "CLIP-L", "T5", "Qwen3 of width 32")):
        load_clip([path], "flux")


def test_vae_of_flux_2_is_that_of_diffusers(tmp_path: Path) -> None:
    kl_flux2 = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_flux2")
    levels = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    config = tiny.VAE | {"latent_channels": 8, "block_out_channels": [32, 32], **levels}
    reference: Any = kl_flux2.AutoencoderKLFlux2.from_config(config).eval()
    weights = tiny.random_weights(reference, 3)
    weights |= {"bn.running_var": weights["bn.running_var"].abs() + 0.5, "bn.num_batches_tracked": torch.tensor(0)}
    reference.load_state_dict(weights)
    vae = load_vae(tiny.save(tmp_path / "flux2.safetensors", weights))
    assert (vae.latent_channels, vae.downscale_ratio) == (32, 4)
    image = torch.rand(1, 16, 24, 3)
    latents = vae.encode(image)
    mean, deviation = (weights[f"bn.running_{name}"][:, None, None] for name in ("mean", "var"))
    deviation = (deviation + 1e-4).sqrt()
    with torch.no_grad():
        wanted = reference.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        packed = (torch.nn.functional.pixel_unshuffle(wanted, 2) - mean) / deviation
        torch.testing.assert_close(latents, packed)
        drawn = reference.decode(torch.nn.functional.pixel_shuffle(latents * deviation + mean, 2)).sample
    torch.testing.assert_close(vae.decode(latents), ((drawn + 1) / 2).clamp(0, 1).movedim(1, -1))
    with pytest.raises(ValueError, match=naming(16, "32")):
        vae.decode(torch.zeros(1, 16, 4, 4))


def test_klein_reads_three_layers_and_hides_padding(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=151644, hidden_size=16, intermediate_size=16, num_hidden_layers=28, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-6, rope_theta=1000000.0,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    reference: Any = Qwen3Model(config).eval()
    weights = tiny.random_weights(reference, 6)
    reference.load_state_dict(weights)
    path = tiny.save(tmp_path / "qwen.safetensors", tiny.with_prefix("model.", weights))
    tiny.save_t5_tokenizer(tmp_path)
    clip = load_clip([path], "flux2")
    ids = [token for token, _ in clip.tokenize("moss")["qwen3_4b"][0]]
    assert len(ids) == 512 and ids[-1] == 151643
    count = ids.index(151643)
    with torch.no_grad():
        states = reference(input_ids=torch.tensor([ids[:count]]), output_hidden_states=True).hidden_states
    wanted = torch.cat([states[layer] for layer in (9, 18, 27)], -1)
    torch.testing.assert_close(clip.encode("moss")[:, :count], wanted, atol=1e-4, rtol=1e-4)


def mistral_weights() -> tuple[Any, tiny.StateDict]:
    """Transformers' model with random weights."""
    from transformers import MistralConfig, MistralModel

    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=16, num_hidden_layers=31, num_attention_heads=1, head_dim=128,
        num_key_value_heads=1, rms_norm_eps=1e-5, rope_theta=1e9, sliding_window=None,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    reference: Any = MistralModel(config).eval()
    weights = tiny.random_weights(reference, 6)
    reference.load_state_dict(weights)
    return reference, weights


def test_flux_2_dev_reads_three_layers_of_mistral(tmp_path: Path) -> None:
    reference, weights = mistral_weights()
    named = tiny.with_prefix("model.", weights) | {"tekken_model": tekken()}
    clip = load_clip([tiny.save(tmp_path / "mistral.safetensors", named)], "flux2")
    ids = [token for token, _ in clip.tokenize("moss on 12 stones")["mistral3_24b"][0]]
    assert ids[:2] == [1, 5] and ids[-1] == 4
    with torch.no_grad():
        states = reference(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    wanted = torch.cat([states[layer] for layer in (10, 20, 30)], -1)
    torch.testing.assert_close(clip.encode("moss on 12 stones"), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=naming("sdxl", "Mistral of width 32")):
        load_clip([tmp_path / "mistral.safetensors"], "sdxl")
    t5 = tiny.save(tmp_path / "t5.safetensors", tiny.t5_weights())
    with pytest.raises(ValueError, match=naming("flux2", "any of", "Mistral Small 3", "Qwen3 4B", "T5")):
        load_clip([t5], "flux2")


def test_a_damaged_tokenizer_among_weights_is_named(tmp_path: Path) -> None:
    named = mistral_weights()[1] | {"tekken_model": tekken()[:100]}
    path = tiny.save(tmp_path / "mistral.safetensors", named)
    with pytest.raises(ValueError, match=naming("tekken_model")):
        load_clip([path], "flux2")


@pytest.mark.parametrize("text", ["moss", "the mossing\n\n 1234's  \u6c34\u00e4", "[INST] \U0001f33f"])
def test_mistrals_pieces_are_the_text(text: str) -> None:
    tokenizer = tekken_tokenizer(tekken())
    found = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(found.ids, skip_special_tokens=False) == text
    assert max(found.ids) < 256 + len(SPECIAL) + sum(len(word.encode()) for word in WORDS)


def test_chroma_reads_t5_without_padding(tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "t5.safetensors", tiny.t5_weights())
    tiny.save_t5_tokenizer(tmp_path)
    clip = load_clip([path], "chroma")
    ids = [token for token, _ in clip.tokenize("moss")["t5xxl"][0]]
    plain = clip.encode("moss")
    assert plain.shape[1] == len(ids) < 10 and ids[-1] == 1
    # Weights count from padding alone, and tokens of weight 1 stay.
    weighted = clip.encode("(moss:1.5)")
    assert weighted.shape == plain.shape
    torch.testing.assert_close(weighted[:, -1], plain[:, -1])
    assert not torch.allclose(weighted[:, 0], plain[:, 0])


def test_chroma_of_pixels_is_named() -> None:
    keys = ("distilled_guidance_layer.layers.0.in_layer.weight", "nerf_blocks.0.norm.scale")
    with pytest.raises(ValueError, match=naming("Chroma Radiance", "ComfyUI")):
        recognise({key: torch.zeros(1) for key in keys})


@pytest.mark.parametrize(
    ("ids", "length"),
    [
        ([151644, 8, 198, 151645, 198, 151644, 872, 198, 5, 6, 151645], 8),
        ([151644, 8, 198, 151645, 198, 151644, 5, 6], 5),
        ([151644, 5, 6], 0),
    ],
)
def test_instruction_of_qwen_image_ends_where_the_prompt_begins(ids: list[int], length: int) -> None:
    assert instruction_length(ids) == length


def test_qwen_image_reads_the_last_layer_of_qwen2(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2Model

    config = Qwen2Config(
        vocab_size=40, hidden_size=128, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, rms_norm_eps=1e-6, rope_theta=1000000.0,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    reference: Any = Qwen2Model(config).eval()
    weights = tiny.random_weights(reference, 6)
    reference.load_state_dict(weights)
    head = {"lm_head.weight": torch.zeros(1)}
    path = tiny.save(tmp_path / "qwen.safetensors", tiny.with_prefix("model.", weights) | head)
    tiny.save_t5_tokenizer(tmp_path)
    clip = load_clip([path], "qwen_image")
    ids = torch.tensor([[token for token, _ in clip.tokenize("moss")["qwen25_7b"][0]]])
    with torch.no_grad():
        wanted = reference(input_ids=ids).last_hidden_state
    torch.testing.assert_close(clip.encode("moss"), wanted, atol=1e-4, rtol=1e-4)


def test_vae_of_videos_is_that_of_diffusers(tmp_path: Path) -> None:
    frames = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_qwenimage")
    reference: Any = frames.AutoencoderKLQwenImage(base_dim=8, z_dim=4, num_res_blocks=2).eval()
    weights = tiny.random_weights(reference, 3)
    reference.load_state_dict(weights)
    vae = load_vae(tiny.save(tmp_path / "frames.safetensors", weights))
    assert (vae.latent_channels, vae.downscale_ratio) == (4, 8)
    image = torch.rand(1, 16, 24, 3)
    latents = vae.encode(image)
    with torch.no_grad():
        wanted = reference.encode(image.movedim(-1, 1)[:, :, None] * 2 - 1).latent_dist.mode()
        drawn = reference.decode(wanted).sample[:, :, 0]
    torch.testing.assert_close(latents, wanted[:, :, 0])
    torch.testing.assert_close(vae.decode(latents), ((drawn + 1) / 2).clamp(0, 1).movedim(1, -1))
