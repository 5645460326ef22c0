"""Prompts about images: Qwen2.5-VL as transformers has it, in a single file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from naming import naming
from tessera.host.models.loaders import load_clip
from tessera.host.nodes.edit_prompts import encode_one, encode_several
from tessera.host.text.clip import CLIP
from tessera.host.text.vision import patches, positions, shown_size

IMAGE_TOKEN = 151655


class FakeVae:
    """A VAE that notes the sizes that it gets."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(pixels.shape))
        return torch.zeros(1, 16, *(side // 8 for side in pixels.shape[1:3]))


@pytest.fixture(scope="module")
def model() -> Any:
    """Transformers' whole model."""
    modeling = pytest.importorskip("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl")
    from transformers import Qwen2_5_VLConfig

    text = {"vocab_size": IMAGE_TOKEN + 1, "hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 1, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}  # fmt: skip
    vision = {"depth": 9, "hidden_size": 128, "intermediate_size": 32, "out_hidden_size": 128, "num_heads": 16}
    whole = modeling.Qwen2_5_VLModel(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()
    whole.load_state_dict(tiny.random_weights(whole, 4))
    return whole


@pytest.fixture(scope="module")
def clip(model: Any, tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    folder = tmp_path_factory.mktemp("qwen")
    weights = {key.replace("language_model.", "model."): tensor for key, tensor in model.state_dict().items()}
    tiny.save_t5_tokenizer(folder)
    return load_clip([tiny.save(folder / "qwen.safetensors", weights)], "qwen_image")


def test_images_are_seen_as_in_transformers(model: Any, clip: CLIP) -> None:
    images = [torch.rand(1, *size, 3) for size in ((70, 140), (30, 20))]
    entries: list[Any] = [3, 4, *images, 5]
    chunk = [({"data": each} if isinstance(each, torch.Tensor) else each, 1.0) for each in entries]
    found = clip.cond_stage_model.qwen25_7b.encode_tokens([chunk])
    seen = [patches(image[0]) for image in images]
    counts = [rows * columns // 4 for _, rows, columns in seen]
    ids = torch.tensor([[3, 4, *[IMAGE_TOKEN] * sum(counts), 5]])
    grid = torch.tensor([[1, rows, columns] for _, rows, columns in seen])
    runs = [2, *((rows // 2, columns // 2) for _, rows, columns in seen), 1]
    with torch.no_grad():
        wanted = model(
            input_ids=ids,
            pixel_values=torch.cat([pixels for pixels, _, _ in seen]),
            image_grid_thw=grid,
            position_ids=positions(runs)[:, None],
        ).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_text_goes_on_behind_the_longer_side_of_an_image() -> None:
    places = positions([2, (2, 3), 2])
    assert places[0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 5, 6]
    assert places[1].tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6]
    assert places[2].tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [(1, 1), (20, 3000), (384, 384), (9000, 9000), (14, 28)])
def test_images_are_seen_in_whole_tokens(size: tuple[int, int]) -> None:
    rows, columns = shown_size(*size)
    assert rows % 28 == columns % 28 == 0 and 3136 <= rows * columns <= 12845056


def test_images_stand_where_the_template_has_them(clip: CLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = clip.tokenizer.tokenizers["qwen25_7b"]
    asked = []
    monkeypatch.setattr(tokenizer, "encode", lambda text: asked.append(text) or [7, IMAGE_TOKEN, IMAGE_TOKEN, 8])
    image = torch.rand(1, 30, 40, 3)
    (chunk,) = clip.tokenize("make it blue", images=[image])["qwen25_7b"]
    assert chunk[1][0]["data"] is image and [entry[0] for entry in chunk[2:]] == [IMAGE_TOKEN, 8]
    assert "key features of the input image" in asked[0] and "make it blue" in asked[0]
    clip.tokenize("<|im_start|>user\nmoss", images=[image])
    assert asked[1] == "<|im_start|>user\nmoss"


def test_nodes_let_the_model_and_the_text_encoder_see() -> None:
    class Recorder:
        def tokenize(self, text: str, **options: Any) -> Any:
            return text, options

        def encode_from_tokens_scheduled(self, tokens: Any) -> Any:
            return [[torch.zeros(1), {"tokens": tokens}]]

    clip: Any = Recorder()
    vae, image = FakeVae(), torch.rand(1, 300, 600, 4)
    ((_, values),) = encode_one(clip, "moss", vae, image)
    assert vae.sizes == [(1, 724, 1448, 3)] and len(values["reference_latents"]) == 1
    ((_, values),) = encode_several(clip, "moss", vae, None, image, image)
    text, options = values["tokens"]
    assert text.startswith("Picture 2: ") and "Picture 3: " in text and text.endswith("moss")
    assert [tuple(each.shape) for each in options["images"]] == [(1, 272, 543, 3)] * 2
    assert vae.sizes[1:] == [(1, 728, 1448, 3)] * 2 and len(values["reference_latents"]) == 2
    assert "reference_latents" not in encode_one(clip, "moss", None, image)[0][1]


def test_text_encoders_that_see_nothing_say_so(tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "t5.safetensors", tiny.t5_weights())
    tiny.save_t5_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=naming("images", "Qwen2.5-VL")):
        encode_one(load_clip([path], "chroma"), "moss", None, torch.rand(1, 30, 40, 3))
