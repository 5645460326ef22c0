"""FaceID: faces from files, projectors and LoRA, against diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from margins import within
from naming import naming
from safetensors.torch import save_file
from tessera.host import folder_paths
from tessera.host.models.model_base import SD15
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.faces import Face, find_embeddings, read_embedding
from tessera.ip_adapter.formats import Adapter, parse_adapter
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter, tokens_of
from tessera.ip_adapter.reference import Place
from tessera.nodes.image_prompts import TesseraApplyImagePrompts, TesseraImagePrompt
from tiny_adapters import Encoder, plain_image, random_adapter, random_lora
from torch import Tensor

HOW: dict[str, Any] = {"scale": 0.7, "type": "full", "start_percent": 0.0, "end_percent": 1.0}


@pytest.fixture
def model(sd15_unet: Any) -> ModelPatcher:
    return ModelPatcher(SD15(sd15_unet), "cpu", "cpu")


def _face(seed: int = 0) -> Tensor:
    return 3 * torch.randn(512, generator=torch.Generator().manual_seed(seed))


def _wide(unet: Any) -> Any:
    """FaceID plus has heads of 64 in its tokens, so its text must be so wide."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config({**unet.config, "cross_attention_dim": 64})


def _projection(unet: Any, weights: dict[str, Any]) -> Any:
    return unet._convert_ip_adapter_image_proj_to_diffusers(dict(weights["image_proj"]), low_cpu_mem_usage=False)


# Files


def test_a_face_is_read_from_each_kind_of_file(tmp_path: Path) -> None:
    face = _face()
    np.save(tmp_path / "a.npy", face[None].numpy())
    save_file({"embedding": face}, tmp_path / "b.safetensors")
    (tmp_path / "c.txt").write_text("[" + ", ".join(map(repr, face.tolist())) + "]\n")
    assert find_embeddings(tmp_path) == ["a.npy", "b.safetensors", "c.txt"]
    for name in find_embeddings(tmp_path):
        assert torch.equal(read_embedding(tmp_path / name), face)


def test_files_that_hold_no_face_are_refused_in_a_line(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros((2, 512)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "zero.npy", np.zeros(512))
    np.save(tmp_path / "big.npy", np.zeros(2**20))
    (tmp_path / "nan.txt").write_text("nan " * 512)
    (tmp_path / "words.txt").write_text("a red brick wall")
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    save_file({"a": torch.ones(512), "b": torch.ones(512)}, tmp_path / "two.safetensors")
    for name, words in {
        "few.npy": "1024 numbers in the shape .2, 512.*512 of one face",
        "objects.npy": "cannot be read; download it again, or save it with numpy.save",
        "zero.npy": "zeros",
        "big.npy": "bytes",
        "nan.txt": "no numbers",
        "words.txt": "more than numbers",
        "cut.safetensors": "cannot be read; download it again",
        "two.safetensors": "2 tensors",
    }.items():
        with pytest.raises(ValueError, match=words) as refused:
            read_embedding(tmp_path / name)
        assert "\n" not in str(refused.value)


# Against diffusers


def _encode(adapter: Adapter, encoder: Any, face: Face) -> Tensor:
    prompt = ImagePrompt(plain_image(0.3), face=face)
    return tokens_of([prompt], LoadedAdapter(adapter, encoder), Place())[0]


@pytest.mark.parametrize(("kind", "tokens"), [("face", 4), ("portrait", 16), ("face_raw", 3)])
def test_faces_become_the_tokens_of_diffusers(sd15_unet: Any, kind: str, tokens: int) -> None:
    weights = random_adapter(sd15_unet, kind)
    adapter = parse_adapter(weights, kind)
    assert (adapter.tokens, adapter.features) == (tokens, 0)
    found, blank = _encode(adapter, None, Face(_face()))
    seen = _face() if kind == "face_raw" else _face() / _face().norm()
    for ours, given in ((found, seen), (blank, 0 * seen)):
        given = given[None, None] if kind == "face_raw" else given[None]
        theirs = _projection(sd15_unet, weights)(given)
        torch.testing.assert_close(ours, theirs.reshape(ours.shape), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "version", "shortcut"),
    [
        ("ip-adapter-faceid-plus_sd15.bin", "auto", False),
        ("ip-adapter-faceid-plusv2_sd15.bin", "auto", True),
        ("renamed.bin", "plus v2", True),
        ("ip-adapter-faceid-plusv2_sd15.bin", "plus", False),
    ],
)
def test_face_and_image_become_the_tokens_of_diffusers(sd15_unet: Any, name: str, version: str, shortcut: bool) -> None:
    wide, encoder = _wide(sd15_unet), Encoder()
    weights = random_adapter(wide, "face_plus")
    found, blank = _encode(parse_adapter(weights, name), encoder, Face(_face(), version, 0.6))
    theirs = _projection(wide, weights)
    theirs.shortcut, theirs.shortcut_scale = shortcut, 0.6
    grey = torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 8, 8, 3)
    for ours, image, face in ((found, plain_image(0.3), _face() / _face().norm()), (blank, grey, torch.zeros(512))):
        theirs.clip_embeds = encoder.encode_image(image).penultimate_hidden_states[None]
        torch.testing.assert_close(ours, theirs(face[None]).reshape(ours.shape), atol=1e-5, rtol=1e-5)


def _predict(model: Any, text: Tensor) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    x = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    model.patch_model()
    try:
        return model.model.apply_model(x, torch.tensor([3.0, 3.0]), c_crossattn=text, transformer_options=to)
    finally:
        model.unpatch_model()


def test_a_faceid_file_acts_as_in_diffusers(model: ModelPatcher, tmp_path: Path, monkeypatch: Any) -> None:
    """Adapter and LoRA from one file; a second node with the same adapter does not add the LoRA again."""
    network = model.model.diffusion_model
    weights = random_adapter(network, "face")
    weights["ip_adapter"] |= random_lora(network)
    monkeypatch.setattr(folder_paths, "_input", str(tmp_path))
    np.save(tmp_path / "me.npy", _face().numpy())
    prompts = TesseraImagePrompt.execute(plain_image(0.3), **HOW, face_embedding="me.npy").args[0]
    loaded = LoadedAdapter(parse_adapter(weights, "face"), None)
    applied = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]

    unet: Any = UNet2DConditionModel.from_config(network.config)
    unet.load_state_dict(network.state_dict())
    unet._load_ip_adapter_weights([weights], low_cpu_mem_usage=False)
    unet.load_lora_adapter(unet._load_ip_adapter_loras([weights])[0], prefix="unet", network_alphas=None)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.7]
    text, face = torch.randn(2, 7, 16), (_face() / _face().norm())[None]
    seen = torch.stack([torch.zeros_like(face), face])
    sampling, sigma = model.model.model_sampling, torch.tensor([3.0, 3.0])
    x = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    scaled, t = sampling.calculate_input(sigma, x), sampling.timestep(sigma).float()
    out = unet.eval()(scaled, t, text, added_cond_kwargs={"image_embeds": [seen]}).sample
    expected = sampling.calculate_denoised(sigma, out, x)

    ours = _predict(applied, text)
    assert within((ours - expected).norm(), 1e-5 * expected.norm())
    plain = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded, 0.0).args[0]
    assert (_predict(plain, text) - expected).norm() > 1e-3 * expected.norm()
    half = TesseraApplyImagePrompts.execute(model, prompts, "sum", loaded).args[0]
    twice = TesseraApplyImagePrompts.execute(half, prompts, "sum", loaded).args[0]
    once = TesseraApplyImagePrompts.execute(model, prompts * 2, "sum", loaded).args[0]
    assert torch.equal(_predict(twice, text), _predict(once, text))
    assert not model.patches


# What does not go together


def test_faces_and_images_are_told_apart(model: ModelPatcher) -> None:
    network = model.model.diffusion_model
    base = LoadedAdapter(parse_adapter(random_adapter(network), "base.bin"), Encoder())
    face = LoadedAdapter(parse_adapter(random_adapter(network, "face"), "face.bin"), None)
    for loaded, who, words in (
        (base, Face(_face()), naming("base.bin", "FaceID", "none", "face_embedding")),
        (face, None, naming("face.bin", "FaceID")),
    ):
        with pytest.raises(ValueError, match=words):
            TesseraApplyImagePrompts.execute(model, (ImagePrompt(plain_image(0.3), 0.9, face=who),), "sum", loaded)


def test_an_adapter_for_raw_embeddings_refuses_others(sd15_unet: Any) -> None:
    adapter = parse_adapter(random_adapter(sd15_unet, "face_raw"), "unnorm.bin")
    with pytest.raises(ValueError, match="unnorm.bin.*normalised.*normed_embedding"):
        _encode(adapter, None, Face(_face() / _face().norm()))
