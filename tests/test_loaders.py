"""Models from files and folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from naming import naming
from safetensors.torch import load_file, save_file
from tessera.host.layouts.ldm_layout import convert_flux, flux_sources
from tessera.host.layouts.ldm_unet import convert_unet, unet_sources
from tessera.host.layouts.ldm_vae import convert_vae
from tessera.host.models.architectures import flux_config, unet_config, vae_config
from tessera.host.models.loaders import load_checkpoint, load_clip, load_clip_vision, load_diffusion_model, load_vae
from tessera.host.models.model_base import SD15, SDXL, Flux, ModelType
from tessera.ip_adapter.encoders import shape_of
from tessera.weights.files import shapes

Checkpoints = dict[str, tuple[Path, Path]]
FAMILIES = {"sd15": SD15, "sdxl": SDXL, "flux": Flux}


def states(loaded: tuple[Any, Any, Any]) -> list[dict[str, torch.Tensor]]:
    """The weights of MODEL, CLIP and VAE."""
    model, clip, vae = loaded
    return [m.state_dict() for m in (model.model, clip.cond_stage_model, vae.first_stage_model)]


@pytest.mark.parametrize("family", FAMILIES)
def test_file_and_folder_are_the_same(checkpoints: Checkpoints, family: str) -> None:
    loaded = [load_checkpoint(path) for path in checkpoints[family]]
    assert all(type(model.model) is FAMILIES[family] for model, _, _ in loaded)
    for ours, theirs in zip(*map(states, loaded), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    prompt = "a (red:1.2) brick"
    conds = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0] for _, clip, _ in loaded]
    assert torch.equal(conds[0][0], conds[1][0]) and torch.equal(
        conds[0][1]["pooled_output"], conds[1][1]["pooled_output"]
    )
    images = [vae.decode(torch.ones(1, 4, 2, 2)) for _, _, vae in loaded]
    assert torch.equal(*images)


@pytest.mark.parametrize("family", FAMILIES)
def test_file_and_folder_compute_the_same(checkpoints: Checkpoints, family: str) -> None:
    outputs = []
    for path in checkpoints[family]:
        model, clip, _ = load_checkpoint(path)
        [[cond, values]] = clip.encode_from_tokens_scheduled(clip.tokenize("brick"))
        noise = torch.randn(1, 16 if family == "flux" else 4, 8, 8, generator=torch.Generator().manual_seed(1))
        conds = model.model.extra_conds(cross_attn=cond, noise=noise, device="cpu", width=64, height=64, **values)
        arguments = {name: value.cond for name, value in conds.items()}
        with torch.no_grad():
            outputs.append(model.model.apply_model(noise, torch.tensor([0.7]), **arguments))
    # Not equal: weights that lie elsewhere in memory are multiplied in another order.
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)
    assert outputs[0].std() > 0.1


def test_unet_is_diffusers_own(checkpoints: Checkpoints) -> None:
    folder = checkpoints["sd15"][0] / "unet"
    reference: Any = UNet2DConditionModel.from_pretrained(folder).eval()
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([7.0]), torch.randn(1, 77, tiny.WIDTH)
    with torch.no_grad():
        ours = load_diffusion_model(folder).model.diffusion_model(*inputs).sample
        assert torch.equal(ours, reference(*inputs).sample)


@pytest.mark.parametrize("config", [tiny.UNET, tiny.SDXL_UNET], ids=["sd15", "sdxl"])
def test_unet_config_follows_from_shapes(config: dict[str, Any]) -> None:
    found = UNet2DConditionModel.from_config(unet_config(tiny.unet_weights(config)))
    wanted = UNet2DConditionModel.from_config(config)
    assert isinstance(found, UNet2DConditionModel) and isinstance(wanted, UNet2DConditionModel)
    with torch.no_grad():
        found.load_state_dict(wanted.state_dict())
        added = {"text_embeds": torch.ones(1, 128), "time_ids": torch.ones(1, 6)}
        inputs = torch.ones(1, 4, 8, 8), 3, torch.ones(1, 5, config["cross_attention_dim"])
        torch.testing.assert_close(found(*inputs, added_cond_kwargs=added), wanted(*inputs, added_cond_kwargs=added))


def test_vae_and_flux_configs_follow_from_shapes() -> None:
    of_flux = tiny.VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    for config in (tiny.VAE, of_flux):
        assert vae_config(tiny.vae_weights(config)).items() >= config.items()
    assert flux_config(tiny.flux_weights()).items() >= tiny.FLUX.items()


@pytest.mark.parametrize("config", [tiny.UNET, tiny.SDXL_UNET], ids=["sd15", "sdxl"])
def test_original_unet_names_are_the_inverse_of_diffusers(config: dict[str, Any]) -> None:
    names = {key: source.key for key, source in unet_sources(tiny.unet_weights(config)).items()}
    originals: Any = {f"model.diffusion_model.{name}": name for name in names.values()}
    settings = {"layers_per_block": 1, "addition_embed_type": "text_time" if "addition_embed_type" in config else None}
    assert convert_ldm_unet_checkpoint(originals, settings) == names


def test_names_of_a_full_unet_are_those_of_diffusers() -> None:
    with torch.device("meta"):
        module = UNet2DConditionModel()
    original: Any = {source.key: key for key, source in unet_sources(module.state_dict()).items()}
    assert convert_unet(original) == {key: key for key in module.state_dict()}
    prefixed = {f"model.diffusion_model.{name}": key for name, key in original.items()}
    assert convert_ldm_unet_checkpoint(prefixed, {"layers_per_block": 2}) == convert_unet(original)


def test_unet_layout_is_diffusers_own() -> None:
    for config in (tiny.UNET, tiny.SDXL_UNET):
        original = tiny.original_unet(tiny.unet_weights(config))
        prefixed = tiny.with_prefix("model.diffusion_model.", original)
        added = "text_time" if "addition_embed_type" in config else None
        wanted = convert_ldm_unet_checkpoint(prefixed, {"layers_per_block": 1, "addition_embed_type": added})
        torch.testing.assert_close(convert_unet(original), wanted, rtol=0, atol=0)


def test_vae_layout_is_diffusers_own() -> None:
    original = tiny.original_vae(tiny.vae_weights())
    levels = [""] * len(tiny.VAE["block_out_channels"])
    config = {"down_block_types": levels, "up_block_types": levels}
    wanted = convert_ldm_vae_checkpoint(tiny.with_prefix("first_stage_model.", original), config)
    torch.testing.assert_close(convert_vae(original), wanted, rtol=0, atol=0)


def test_flux_layout_is_diffusers_own() -> None:
    """Their converter knows the full width alone; tensors of one column keep it small."""
    rows = {"mod.lin": 6, "modulation.lin": 3, "qkv": 3, "linear1": 7, "adaLN_modulation.1": 2}
    state = {}
    for index, key in enumerate(sorted({source.key for source in flux_sources(2, 1, guidance=True).values()})):
        times = next((times for name, times in rows.items() if name in key), 1)
        state[key] = torch.arange(3072.0 * times)[:, None] + index * 1e6
    wanted = convert_flux_transformer_checkpoint_to_diffusers(dict(state))
    torch.testing.assert_close(convert_flux(state), wanted, rtol=0, atol=0)


# What a model predicts


def test_prediction_of_a_folder(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["sd15"][0], folder)
    assert load_checkpoint(folder)[0].model.model_type == ModelType.EPS
    scheduler = {"prediction_type": "v_prediction", "beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.01}
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(scheduler | {"rescale_betas_zero_snr": True})
    )
    vae = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(vae | {"scaling_factor": 0.5}))
    model = load_checkpoint(folder)[0].model
    assert model.model_type == ModelType.V_PREDICTION and model.latent_format.scale_factor == 0.5
    assert model.model_sampling.zsnr and model.model_config.sampling_settings["beta_schedule"] == "sqrt_linear"
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "squaredcos_cap_v2"}))
    with pytest.raises(ValueError, match=naming("scheduler_config.json", "epsilon", "squaredcos_cap_v2")):
        load_checkpoint(folder)


@pytest.mark.parametrize("markers", [[], ["v_pred"], ["v_pred", "ztsnr"]])
def test_prediction_of_a_file(checkpoints: Checkpoints, tmp_path: Path, markers: list[str]) -> None:
    weights = load_file(checkpoints["sdxl"][1]) | {name: torch.zeros(1) for name in markers}
    model = load_checkpoint(tiny.save(tmp_path / "x.safetensors", weights))[0].model
    assert model.model_type == (ModelType.V_PREDICTION if markers else ModelType.EPS)
    assert model.model_sampling.zsnr == ("ztsnr" in markers)


def test_flux_without_guidance_is_schnell(tmp_path: Path) -> None:
    weights = {k: t for k, t in tiny.original_flux(tiny.flux_weights()).items() if "guidance" not in k}
    model = load_diffusion_model(tiny.save(tmp_path / "schnell.safetensors", weights)).model
    assert model.model_type == ModelType.FLOW and model.model_config.sampling_settings["shift"] == 1.0


# Single parts


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_denoiser_alone(checkpoints: Checkpoints, tmp_path: Path, prefix: str) -> None:
    wanted = load_checkpoint(checkpoints["sd15"][0])[0].model.state_dict()
    weights = tiny.unet_weights(tiny.UNET)
    for name, layout in {"diffusers": weights, "original": tiny.original_unet(weights)}.items():
        path = tiny.save(tmp_path / f"{name}.safetensors", tiny.with_prefix(prefix, layout))
        torch.testing.assert_close(load_diffusion_model(path).model.state_dict(), wanted)
        model, clip, vae = load_checkpoint(path)
        assert clip is None and vae is None and type(model.model) is SD15


@pytest.mark.parametrize("layout", ["original", "diffusers", "old diffusers", "in a checkpoint", "folder"])
def test_vae_alone(checkpoints: Checkpoints, tmp_path: Path, layout: str) -> None:
    weights = tiny.vae_weights()
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = dict(weights)
    for new, name in renamed.items():
        old = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in old.items()}
    files = {"original": tiny.original_vae(weights), "diffusers": weights, "old diffusers": old}
    path = tiny.save(tmp_path / "vae.safetensors", files[layout]) if layout in files else checkpoints["sd15"][1]
    path = checkpoints["sd15"][0] / "vae" if layout == "folder" else path
    torch.testing.assert_close(load_vae(path).first_stage_model.state_dict(), weights, rtol=0, atol=0)


def test_text_encoders_in_any_order(checkpoints: Checkpoints) -> None:
    for family, parts in (("sdxl", ["text_encoder", "text_encoder_2"]), ("sd15", ["text_encoder"])):
        folder = checkpoints[family][0]
        wanted = load_checkpoint(folder)[1]
        assert wanted is not None
        kind = {"sd15": "stable_diffusion"}.get(family, family)
        for order in (parts, parts[::-1]):
            clip = load_clip([folder / part for part in order], kind)
            assert torch.equal(clip.encode("a brick"), wanted.encode("a brick"))


def test_flux_text_encoders(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints["flux"][0]
    wanted = load_checkpoint(folder)[1]
    assert wanted is not None
    files = [
        tiny.save(tmp_path / f"{part}.safetensors", load_file(folder / part / "model.safetensors"))
        for part in ("text_encoder", "text_encoder_2")
    ]
    with pytest.raises(FileNotFoundError, match=f"T5's tokenizer is missing: put tokenizer.json.* in {tmp_path}"):
        load_clip(files, "flux")
    tiny.save_t5_tokenizer(tmp_path)
    assert torch.equal(load_clip(files[::-1], "flux").encode("a brick"), wanted.encode("a brick"))
    with pytest.raises(ValueError, match=naming("sdxl", "CLIP-L", "CLIP-G", 64, "T5")):
        load_clip(files, "sdxl")
    with pytest.raises(ValueError, match=naming("hidream", "stable_diffusion", "sdxl", "sd3", "flux")):
        load_clip(files, "hidream")


def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    from tessera.host.text.clip_tokens import load_t5_tokenizer

    words = iter(["red brick wall with moss", "blue tiles and grid", "wood rings"] * 20)
    options = {"vocab_size": 50, "hard_vocab_limit": False, "minloglevel": 9, "pad_id": 0, "eos_id": 1, "unk_id": 2}
    prefix = str(tmp_path / "spiece")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=words, model_prefix=prefix, bos_id=-1, **options)
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    tokens = load_t5_tokenizer(tmp_path)("red moss")
    assert tokens == processor.encode("red moss") and processor.decode(tokens) == "red moss"


def vision_weights() -> dict[str, torch.Tensor]:
    """Of a small image encoder of CLIP."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, image_size=32, patch_size=8,
        projection_dim=24,
    )  # fmt: skip
    return tiny.random_weights(CLIPVisionModelWithProjection(config), 6)


def test_image_encoder_is_transformers(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    weights = vision_weights()
    encoder = load_clip_vision(tiny.save(tmp_path / "vision.safetensors", weights))
    assert encoder.image_size == 32
    image = torch.rand(2, 40, 60, 3)
    out = encoder.encode_image(image)
    reference = CLIPVisionModelWithProjection(CLIPVisionConfig(**encoder.model.config.to_dict())).eval()
    reference.load_state_dict(weights, strict=False)
    from tessera.host.models.clip_vision import clip_preprocess

    with torch.no_grad():
        wanted = reference(clip_preprocess(image, 32), output_hidden_states=True)
    torch.testing.assert_close(out.image_embeds, wanted.image_embeds)
    torch.testing.assert_close(out["penultimate_hidden_states"], wanted.hidden_states[-2])


def test_siglip_is_transformers(tmp_path: Path) -> None:
    """Its own mean colour and no crop token; the pooling head is left out, as in ComfyUI."""
    from tessera.host.models.clip_vision import HALVES, clip_preprocess
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=1, image_size=32, patch_size=8
    )
    reference = SiglipVisionModel(config).eval()
    weights = tiny.random_weights(reference, 6)
    reference.load_state_dict(weights)
    prefix = "" if any(key.startswith("vision_model.") for key in weights) else "vision_model."
    file = tiny.save(tmp_path / "siglip.safetensors", {prefix + key: tensor for key, tensor in weights.items()})
    encoder = load_clip_vision(file)
    assert (encoder.image_size, encoder.image_mean, encoder.image_std) == (32, HALVES, HALVES)
    image = torch.rand(2, 40, 60, 3)
    out = encoder.encode_image(image)
    with torch.no_grad():
        wanted: Any = reference(clip_preprocess(image, 32, True, HALVES, HALVES), output_hidden_states=True)
    torch.testing.assert_close(out.last_hidden_state, wanted.last_hidden_state)
    torch.testing.assert_close(out.image_embeds, wanted.last_hidden_state)
    torch.testing.assert_close(out.penultimate_hidden_states, wanted.hidden_states[-2])
    loaded = {key: tensor.shape for key, tensor in encoder.model.state_dict().items()}
    assert shape_of(shapes(file)) == shape_of(loaded)
    assert shape_of(loaded)[:2] == (0, 64)


def test_openclip_image_encoder(tmp_path: Path) -> None:
    weights = vision_weights()
    names = {
        "vision_model.embeddings.patch_embedding": "conv1",
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.pre_layrnorm": "ln_pre",
        "vision_model.post_layernorm": "ln_post",
        "vision_model.encoder.layers.": "transformer.resblocks.",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    original = {"visual.proj": weights["visual_projection.weight"].T}
    for key, tensor in weights.items():
        for new, old in names.items():
            key = key.replace(new, old)
        original[f"visual.{key}"] = tensor
    for layer in range(3):
        for kind in ("weight", "bias"):
            prefix = f"visual.transformer.resblocks.{layer}."
            qkv = [original.pop(f"{prefix}self_attn.{part}_proj.{kind}") for part in "qkv"]
            original[f"{prefix}attn.in_proj_{kind}"] = torch.cat(qkv)
    original.pop("visual.visual_projection.weight")
    encoder = load_clip_vision(tiny.save(tmp_path / "openclip.safetensors", original))
    torch.testing.assert_close(
        {k: t for k, t in encoder.model.state_dict().items() if "position_ids" not in k}, weights
    )


def test_sharded_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    shutil.copytree(checkpoints["sd15"][0] / "unet", folder)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    names = {key: f"shard-{index % 2}.safetensors" for index, key in enumerate(weights)}
    for name in set(names.values()):
        save_file({key: t for key, t in weights.items() if names[key] == name}, folder / name)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    wanted = load_diffusion_model(checkpoints["sd15"][0] / "unet").model.state_dict()
    torch.testing.assert_close(load_diffusion_model(folder).model.state_dict(), wanted, rtol=0, atol=0)
    (folder / "shard-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=naming("shard-1.safetensors")):
        load_diffusion_model(folder)
