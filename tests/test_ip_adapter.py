"""The IP-Adapter library: files, projectors, attention layers, attention, masks, types."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_adapters
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from safetensors.torch import save_file
from tessera.host.models.vae import VAE
from tessera.ip_adapter import attend as attending
from tessera.ip_adapter import projectors
from tessera.ip_adapter.attend import COMBINES, attend, join_images
from tessera.ip_adapter.formats import parse_adapter, read_adapter
from tessera.ip_adapter.layers import find_layers
from tessera.ip_adapter.masks import TOLERANCE, fit, one_mask, pool
from tessera.ip_adapter.presets import TYPES, parse_block_weights, weight_at, weights_of_type
from torch import Tensor

SD15: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
}


def _unet(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


# Sites


@pytest.mark.parametrize(("config", "count", "channels"), [(SD15, 16, 12480), (SDXL, 70, 83200)])
def test_sites_are_numbered_as_diffusers_registers_processors(
    config: dict[str, Any], count: int, channels: int
) -> None:
    unet = _unet(config)
    layers = find_layers(unet)
    registered = [name.removesuffix(".attn2.processor") for name in unet.attn_processors]
    assert len(layers) == count
    assert sum(layer.channels for layer in layers) == channels
    assert [registered[layer.number] for layer in layers] == [layer.name for layer in layers]


def test_sites_have_comfyuis_keys() -> None:
    sd15, sdxl = find_layers(_unet(SD15)), find_layers(_unet(SDXL))
    assert [layer.key[:2] for layer in sd15] == [
        *(("input", n) for n in (1, 2, 4, 5, 7, 8)),
        *(("output", n) for n in range(3, 12)),
        ("middle", 0),
    ]
    blocks = dict.fromkeys(layer.key[:2] for layer in sdxl)
    assert list(blocks) == [*(("input", n) for n in (4, 5, 7, 8)), *(("output", n) for n in range(6)), ("middle", 0)]
    assert {layer.number: layer.key for layer in sdxl}[121] == ("middle", 0, 0)


def test_a_model_without_unet_is_named() -> None:
    with pytest.raises(ValueError, match="Linear"):
        find_layers(torch.nn.Linear(1, 1))


# Files


@pytest.mark.parametrize("kind", ["base", "plus", "full", "face", "face_plus", "face_raw"])
@pytest.mark.parametrize("layout", ["bin", "safetensors", "adapter_modules"])
def test_every_projector_and_layout_is_recognised(sd15_unet: Any, kind: str, layout: str, tmp_path: Path) -> None:
    weights = tiny_adapters.random_adapter(sd15_unet, kind)
    path = tmp_path / f"any name.{'bin' if layout == 'bin' else 'safetensors'}"
    if layout == "bin":
        torch.save(weights, path)
    else:
        names = ("ip_adapter", "image_proj") if layout == "safetensors" else ("adapter_modules", "image_proj_model")
        save_file(tiny_adapters.flat(weights, *names), path)
    adapter = read_adapter(path)
    assert (adapter.kind, adapter.width, len(adapter.layers)) == (kind, 16, 10)
    assert adapter.features == {"base": tiny_adapters.EMBEDDING, "face": 0, "face_raw": 0}.get(
        kind, tiny_adapters.PATCH
    )
    assert adapter.fingerprint == parse_adapter(weights, "x").fingerprint


def test_files_of_other_kinds_are_refused_in_a_line(sd15_unet: Any, tmp_path: Path) -> None:
    good = tiny_adapters.random_adapter(sd15_unet)
    gap = {key: tensor for key, tensor in good["ip_adapter"].items() if not key.startswith("5.")}
    for weights, words in (
        ({"redux_up.weight": torch.ones(1)}, "not an IP-Adapter.*redux_up.weight.*models/style_models"),
        ({"clip.weight": torch.ones(1)}, "not an IP-Adapter.*clip.weight.*models/ipadapter"),
        ({"lora_up.weight": torch.ones(1)}, "not an IP-Adapter.*lora_up.weight.*models/loras"),
        ({"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": torch.ones(1)}, "not an IP-Adapter"),
        (
            {"image_proj": {"latents": torch.ones(1, 1)}, "ip_adapter": {"0.to_k_ip.weight": torch.ones(1, 1)}},
            "transformer.*not known.*InstantX",
        ),
        ({**good, "ip_adapter": {"0.to_k_ip.weight": torch.ones(1, 1)}}, "incomplete"),
        ({**good, "ip_adapter": gap}, "incomplete"),
        ({**good, "image_proj": {"strange.weight": torch.ones(1)}}, "strange.weight.*base, plus, full"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            parse_adapter(weights, "file")
        assert "\n" not in str(refused.value)
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    torch.save({"image_proj": object()}, tmp_path / "code.bin")
    for name, words in (("broken.safetensors", "cannot be read; download it again"), ("code.bin", "more than tensors")):
        with pytest.raises(ValueError, match=words):
            read_adapter(tmp_path / name)


# Projectors


@pytest.mark.parametrize("kind", ["base", "plus", "full", "face", "face_plus"])
def test_projectors_equal_diffusers(sd15_unet: Any, kind: str) -> None:
    weights = tiny_adapters.random_adapter(_wide(sd15_unet, kind), kind)["image_proj"]
    unet: Any = UNet2DConditionModel.from_config(sd15_unet.config)
    theirs: Any = unet._convert_ip_adapter_image_proj_to_diffusers(dict(weights), low_cpu_mem_usage=False)
    faces, hidden = torch.randn(2, 512), torch.randn(2, tiny_adapters.PATCHES, tiny_adapters.PATCH)
    if kind == "face_plus":
        theirs.clip_embeds = hidden[:, None]
        for structure, shortcut in ((None, False), (1.0, True)):
            theirs.shortcut = shortcut
            ours = projectors.face_plus(weights, faces, hidden, structure)
            torch.testing.assert_close(ours, theirs(faces).reshape(ours.shape), atol=1e-5, rtol=1e-5)
        return
    seen = {"base": torch.randn(2, tiny_adapters.EMBEDDING), "face": faces}.get(kind, hidden)
    ours = getattr(projectors, kind)(weights, seen)
    torch.testing.assert_close(ours, theirs(seen).reshape(ours.shape), atol=1e-5, rtol=1e-5)


def _wide(unet: Any, kind: str) -> Any:
    """FaceID plus has heads of 64 in its tokens, so its text must be so wide."""
    return _unet({**unet.config, "cross_attention_dim": 64}) if kind == "face_plus" else unet


# Attention


def _slow(q: Tensor, keys: list[Tensor], values: list[Tensor], weights: Tensor, heads: int, combine: str) -> Tensor:
    """The formulas of the module's docstring, image by image and pixel by pixel in float64. weights: (n, L)."""
    b, length, channels = q.shape
    out = torch.zeros(b, length, channels, dtype=torch.float64)
    size = channels // heads
    for row in range(b):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for pixel in range(length):
                query = q[row, pixel, part].double()
                exps = [(k[row, :, part].double() @ query / math.sqrt(size)).exp() for k in keys]
                sums = torch.stack([e.sum() for e in exps])
                means = torch.stack([e @ v[row, :, part].double() / e.sum() for e, v in zip(exps, values, strict=True)])
                w = weights[:, pixel].double()
                if combine == "concat":
                    w = w * sums / sums.sum()
                if combine == "share" and w.any():
                    w = w.max() * w * sums / (w * sums).sum()
                out[row, pixel, part] = w @ means
    return out


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("masked", [False, True])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_attention_equals_the_formulas_in_float64(combine: str, masked: bool, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9999)))
    tokens = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    scales = [data.draw(st.floats(0.01, 1.0)) for _ in tokens]
    heads, channels, length = 2, 6, 5

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q = 2 * rand(2, length, channels)
    keys, values = ([rand(2, t, channels) for t in tokens] for _ in range(2))
    mask = (rand(len(tokens), length) * 0.5 + 0.5).clamp(0, 1) if masked else None
    weights = torch.tensor(scales, dtype=torch.float64)[:, None] * (torch.ones(1, length) if mask is None else mask)
    rows = [
        sum(
            (
                attend(q[row : row + 1], joined, None if mask is None else mask[group], row)
                for joined, group in join_images(keys, values, scales, heads, combine)
            ),
            torch.zeros(()),
        )
        for row in (0, 1)
    ]
    out = torch.cat(rows)
    torch.testing.assert_close(out, _slow(q, keys, values, weights, heads, combine), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("largest", [2 * 6 * 7, 2 * 6 * 50 * 2])
def test_large_images_and_batches_are_computed_in_parts(
    combine: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, keys = torch.randn(3, 50, 8), [torch.randn(2, 3, 8) for _ in range(2)]
    ((joined, _),) = join_images(keys, keys, [0.5, 0.9], 2, combine)
    mask = torch.rand(2, 50)
    whole = attend(q, joined, mask), attend(q, joined)
    monkeypatch.setattr(attending, "LARGEST", largest)
    torch.testing.assert_close((attend(q, joined, mask), attend(q, joined)), whole)


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("lengths", [(9, 9), (9, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_as_a_gpu_takes_it_is_the_same(
    combine: str, lengths: tuple[int, ...], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of more tokens than a head has channels."""
    q, keys = torch.randn(3, 50, 8), [torch.randn(2, t, 8) for t in lengths]
    mask = torch.rand(2, 50) if masked else None

    def run() -> list[Tensor]:
        joined = join_images(keys, keys, [0.5, 0.9], 2, combine)
        return [attend(q, each, None if mask is None else mask[group], 1) for each, group in joined]

    own, calls, fused = run(), [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attending, "UNFUSED", "none")
    monkeypatch.setattr(attending.F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    torch.testing.assert_close(run(), own)
    assert bool(calls) is (not masked or combine == "sum")


@pytest.mark.parametrize("combine", COMBINES)
def test_some_of_the_images_are_as_if_they_were_alone(combine: str) -> None:
    q, keys = torch.randn(1, 50, 8), [torch.randn(2, 3, 8) for _ in range(5)]
    scales = [0.5, 0.9, 0.2, 0.7, 0.1]
    ((joined, _),) = join_images(keys, keys, scales, 2, combine)
    for images in ([0], [1, 2], [0, 2, 3], [1, 3]):
        ((alone, _),) = join_images(
            [keys[i] for i in images], [keys[i] for i in images], [scales[i] for i in images], 2, combine
        )
        torch.testing.assert_close(attend(q, joined.select(images)), attend(q, alone))
    assert joined.select([1, 2]).keys.data_ptr() == joined.keys[:, :, 3:].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("combine", COMBINES)
def test_half_precision_stays_close_and_finite(dtype: torch.dtype, combine: str) -> None:
    q, keys, values = 3 * torch.randn(1, 64, 32), *([torch.randn(2, 4, 32) for _ in range(3)] for _ in range(2))
    mask = torch.zeros(3, 64)
    mask[0, :32], mask[1, 16:48] = 1.0, 0.5

    def run(dtype: torch.dtype) -> Tensor:
        parts = join_images([k.to(dtype) for k in keys], [v.to(dtype) for v in values], [0.9, 0.5, 0.3], 4, combine)
        return sum((attend(q.to(dtype), joined, mask[group].to(dtype)) for joined, group in parts), torch.zeros(1))

    half = run(dtype)
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half.float(), run(torch.float32), atol=0.06, rtol=0.06)
    assert half[:, 48:].abs().max() == 0


# Masks


def test_masks_are_averaged_over_the_grid() -> None:
    mask = torch.zeros(64, 96)
    mask[:, :48] = 1.0
    pooled = pool([mask, None], (3, 5))
    assert pooled is not None
    torch.testing.assert_close(
        pooled[0].view(3, 5), torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]).expand(3, 5), atol=0.05, rtol=0
    )
    assert torch.equal(pooled[1], torch.ones(15))
    assert pool([None, None], (3, 5)) is None


def test_masks_that_cannot_be_meant_are_refused() -> None:
    assert one_mask(torch.ones(1, 4, 4)).shape == (4, 4)
    for mask, words in (
        (torch.zeros(1, 64, 64), "black everywhere"),
        (torch.ones(2, 4, 4), "batch of 2"),
        (torch.full((4, 4), torch.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            one_mask(mask)
    mask = torch.rand(512, 768)
    assert fit(mask, (16, 24)) is mask
    for shape in ((32, 64), (1, 1), (7, 300)):
        with pytest.raises(ValueError, match=naming(f"{shape[1]} x {shape[0]}", "192 x 128")):
            fit(torch.ones(shape), (16, 24))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(height=st.integers(16, 200), width=st.integers(16, 200), ratio=st.sampled_from([8, 16]))
def test_masks_of_an_uncut_photo_are_cut_as_the_photo(height: int, width: int, ratio: int) -> None:
    """Whatever encoding leaves of an image, its mask shows the same pixels."""
    vae: Any = SimpleNamespace(downscale_ratio=ratio, output_channels=3)
    mask = torch.arange(float(height * width)).view(height, width)
    cut = VAE.vae_encode_crop_pixels(vae, mask[None, :, :, None].expand(-1, -1, -1, 3))[0, :, :, 0]
    rows, columns = height // ratio, width // ratio
    for scale in (1, 2):
        found = fit(mask, (scale * rows, scale * columns), ratio)
        near = abs(height * columns - width * rows) <= TOLERANCE * width * rows
        assert torch.equal(found, mask if scale == 2 and near else cut)


# Types


def test_types_are_the_published_blocks() -> None:
    sdxl, sd15 = find_layers(_unet(SDXL)), find_layers(_unet(SD15))

    def blocks(layers: list[Any], kind: str) -> set[tuple[Any, ...]]:
        return {(*layer.key[:2], gain) for layer in layers if (gain := weight_at(weights_of_type(kind, layers), layer))}

    assert blocks(sdxl, "style") == {("output", 1, 1.0)}
    assert blocks(sdxl, "composition") == {("input", 8, 1.0)}
    assert blocks(sd15, "style") == {("output", n, 1.0) for n in (3, 4, 5)}
    assert blocks(sd15, "composition") == {("input", 7, 1.0), ("input", 8, 1.0), ("middle", 0, 1.0)}
    assert blocks(sd15, "composition_narrow") == {("input", 7, 0.25), ("input", 8, 1.0)}
    assert len([layer for layer in sd15 if weight_at(weights_of_type("style_broad", sd15), layer)]) == 14
    single = [layer for layer in sd15 if "attentions.1" not in layer.name]
    assert blocks(single, "composition_narrow") == {("input", 7, 1.0)}
    first = [layer for layer in sd15 if layer.name.startswith("down_blocks.0")]
    with pytest.raises(ValueError, match=naming("composition", "down_blocks.2", "mid_block", "full", "down_blocks.0")):
        weights_of_type("composition", first)
    for layers in (sd15, sdxl):
        assert all(weight_at(weights_of_type("full", layers), layer) == 1.0 for layer in layers)
        assert {weight_at(weights_of_type("character", layers), layer) for layer in layers} == {0.3, 1.0}
        assert all(any(weight_at(weights_of_type(kind, layers), layer) for layer in layers) for kind in TYPES)


def test_blocks_as_text() -> None:
    layers = find_layers(_unet(SD15))
    gains = parse_block_weights("all=0.2, up_blocks.1=1\nmid_block=0", layers)
    found = {layer.name.split(".transformer")[0]: weight_at(gains, layer) for layer in layers}
    assert found["up_blocks.1.attentions.2"] == 1.0
    assert found["mid_block.attentions.0"] == 0.0
    assert found["down_blocks.0.attentions.0"] == 0.2
    for text, words in (("up_block.1=1", 'no block is called "up_block.1"'), ("all=much", "not a name and a weight")):
        with pytest.raises(ValueError, match=words):
            parse_block_weights(text, layers)
