"""ComfyUI's own nodes for models, prompts, latents and images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from naming import naming
from PIL import Image
from safetensors.torch import load_file
from tessera.host import folder_paths
from tessera.host.images.loading import load_image
from tessera.host.images.scaling import UPSCALE_METHODS, resize
from tessera.host.models.model_base import SDXL, Flux
from tessera.host.nodes import conditioning_images, loaders, text, vae
from tessera.host.nodes import image as image_nodes
from torch import Tensor

Checkpoints = dict[str, tuple[Path, Path]]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Empty folders for models, inputs and outputs."""
    for name in ("models", "input", "output", "temp"):
        (tmp_path / name).mkdir()
    folder_paths.configure(*(str(tmp_path / name) for name in ("models", "input", "output", "temp")))
    yield tmp_path
    folder_paths.configure()


def put(folders: Path, kind: str, *sources: Path) -> None:
    """Copies models where loaders look for them."""
    for source in sources:
        target = folders / "models" / kind / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def values(output: Any) -> tuple[Any, ...]:
    """What a node gives."""
    return output.args


def options(node: type[Any], name: str) -> list[str]:
    """What a node offers for an input."""
    return next(each.options for each in node.define_schema().inputs if each.id == name)


def test_checkpoints_are_files_and_folders(folders: Path, checkpoints: Checkpoints) -> None:
    put(folders, "checkpoints", *checkpoints["sd15"])
    node = loaders.CheckpointLoaderSimple
    assert options(node, "ckpt_name") == ["sd15", "sd15.safetensors"]
    results = []
    for name in options(node, "ckpt_name"):
        _, clip, decoder = values(node.execute(name))
        [[cond, _]] = values(text.CLIPTextEncode.execute("a (red:1.2) brick", clip))[0]
        results += [(cond, *values(vae.VAEDecode.execute({"samples": torch.ones(1, 4, 2, 2)}, decoder)))]
    assert all(map(torch.equal, *results))


def test_single_parts(folders: Path, checkpoints: Checkpoints) -> None:
    folder = checkpoints["sdxl"][0]
    put(folders, "diffusion_models", tiny.save(folders / "flux.safetensors", tiny.original_flux(tiny.flux_weights())))
    put(folders, "diffusion_models", folder / "unet")
    put(folders, "text_encoders", folder / "text_encoder", folder / "text_encoder_2")
    put(folders, "vae", folder / "vae")
    kinds = {
        name: type(values(loaders.UNETLoader.execute(name, "default"))[0].model)
        for name in ("flux.safetensors", "unet")
    }
    assert kinds == {"flux.safetensors": Flux, "unet": SDXL}
    [clip] = values(loaders.DualCLIPLoader.execute("text_encoder_2", "text_encoder", "sdxl", "cpu"))
    assert clip.encode("brick").shape == (1, 77, 3 * tiny.WIDTH) and clip.patcher.load_device.type == "cpu"
    [decoder] = values(loaders.VAELoader.execute("vae"))
    assert decoder.decode(torch.zeros(1, 4, 2, 2)).shape == (1, 16, 16, 3)
    with pytest.raises(ValueError, match=naming("weight_dtype", "fp8_e5m2", "default")):
        loaders.UNETLoader.execute("unet", "fp8_e5m2")
    with pytest.raises(FileNotFoundError, match=naming("'nothing'", "vae")):
        loaders.VAELoader.execute("nothing")


def test_embeddings_are_found(folders: Path, checkpoints: Checkpoints) -> None:
    put(folders, "checkpoints", checkpoints["sd15"][1])
    tiny.save(folders / "models" / "embeddings" / "moss.safetensors", {"emb_params": torch.ones(2, tiny.WIDTH)})
    _, clip, _ = values(loaders.CheckpointLoaderSimple.execute("sd15.safetensors"))
    kinds = [type(token) for token, _ in clip.tokenize("a embedding:moss b")["l"][0]]
    assert kinds.count(Tensor) == 2


def test_checkpoint_without_text_encoder_and_vae(folders: Path) -> None:
    file = tiny.save(folders / "unet.safetensors", tiny.unet_weights(tiny.UNET))
    put(folders, "checkpoints", file)
    _, clip, decoder = values(loaders.CheckpointLoaderSimple.execute("unet.safetensors"))
    for node, arguments in (
        (text.CLIPTextEncode, ("x", clip)),
        (text.CLIPSetLastLayer, (clip, -1)),
        (text.CLIPTextEncodeFlux, (clip, "x", "x", 3.5)),
    ):
        with pytest.raises(ValueError, match=naming("text encoder", "DualCLIPLoader")):
            node.execute(*arguments)
    pixels, mask = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16)
    for encode in (
        lambda: vae.VAEDecode.execute({"samples": torch.zeros(1, 4, 1, 1)}, decoder),
        lambda: conditioning_images.inpaint([], [], pixels, decoder, mask),
        lambda: conditioning_images.edit([], [], pixels, decoder),
    ):
        with pytest.raises(ValueError, match=naming("VAE", "VAELoader")):
            encode()


def test_loras(folders: Path, checkpoints: Checkpoints) -> None:
    put(folders, "checkpoints", checkpoints["sd15"][0])
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    factors = {f"{name}.lora_up.weight": torch.ones(128, 1), f"{name}.lora_down.weight": torch.ones(1, 64)}
    put(folders, "loras", tiny.save(folders / "moss.safetensors", factors))
    model, clip, _ = values(loaders.CheckpointLoaderSimple.execute("sd15"))
    new_model, new_clip = values(loaders.LoraLoader.execute(model, clip, "moss.safetensors", 0.0, 1.0))
    assert new_model is not model and not torch.equal(new_clip.encode("x"), clip.encode("x"))
    assert values(loaders.LoraLoader.execute(model, clip, "moss.safetensors", 0.0, 0.0)) == (model, clip)
    assert values(loaders.LoraLoaderModelOnly.execute(model, "moss.safetensors", 0.0)) == (model,)
    with pytest.raises(ValueError, match=naming("moss.safetensors", "LoRA")):
        loaders.LoraLoaderModelOnly.execute(model, "moss.safetensors", 1.0)


def test_prompts_of_flux(checkpoints: Checkpoints) -> None:
    from tessera.host.models.loaders import load_checkpoint

    clip = load_checkpoint(checkpoints["flux"][0])[1]
    assert clip is not None
    [[[cond, extra]]] = values(text.CLIPTextEncodeFlux.execute(clip, "one", "two", 2.5))
    [[[wanted, _]]] = values(text.CLIPTextEncode.execute("two", clip))
    [[[_, other]]] = values(text.CLIPTextEncode.execute("one", clip))
    assert torch.equal(cond, wanted) and torch.equal(extra["pooled_output"], other["pooled_output"])
    assert extra["guidance"] == 2.5
    sd15 = load_checkpoint(checkpoints["sd15"][0])[1]
    with pytest.raises(ValueError, match=naming("Flux", "DualCLIPLoader", "flux")):
        text.CLIPTextEncodeFlux.execute(sd15, "one", "two", 2.5)


def test_clip_skip(checkpoints: Checkpoints) -> None:
    from tessera.host.models.loaders import load_checkpoint

    clip = load_checkpoint(checkpoints["sd15"][0])[1]
    assert clip is not None
    [skipped] = values(text.CLIPSetLastLayer.execute(clip, -2))
    [plain, found] = (values(text.CLIPTextEncode.execute("mossy bricks", each))[0][0][0] for each in (clip, skipped))
    # As if the last layer were not there.
    encoder = clip.cond_stage_model.clip_l.transformer.text_model.encoder
    encoder.layers = encoder.layers[:-1]
    [[[wanted, _]]] = values(text.CLIPTextEncode.execute("mossy bricks", clip))
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, plain, atol=1e-2)


# Latents


class Halving:
    """A VAE that averages blocks of 8 pixels."""

    def spacial_compression_encode(self) -> int:
        return 8

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        height, width = (side // 8 * 8 for side in pixels.shape[1:3])
        top, left = (side % 8 // 2 for side in pixels.shape[1:3])
        return pixels[:, top : top + height, left : left + width, :3]

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)


def test_inpainting_blanks_the_mask() -> None:
    pixels, mask = torch.rand(1, 35, 28, 3), torch.zeros(1, 35, 28)
    mask[:, 8:20, 8:20] = 1.0
    before = pixels.clone()
    [latent] = values(vae.VAEEncodeForInpaint.execute(pixels, Halving(), mask, 6))
    assert latent["samples"].shape == (1, 3, 4, 3) and latent["noise_mask"].shape == (1, 1, 32, 24)
    assert torch.equal(pixels, before)
    blanked = torch.where(mask[..., None] == 1, 0.5, pixels)[:, 1:33, 2:26]
    torch.testing.assert_close(latent["samples"], Halving().encode(blanked))
    kept = mask[:, 1:33, 2:26]
    assert latent["noise_mask"][0, 0][kept[0] == 1].min() == 1 and latent["noise_mask"].sum() > kept.sum()


@pytest.mark.parametrize("by", [1, 2, 5, 6, 64])
def test_masks_grow(by: int) -> None:
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 20, 20] = 1
    grown = vae.grow(mask, by)
    rows = grown[0, 0].amax(1).nonzero().flatten()
    assert set(grown.unique().tolist()) <= {0.0, 1.0} and len(rows) == min(by, len(grown[0, 0]))


def test_no_growth_keeps_the_mask() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:9, 2:5] = 1.0
    [latent] = values(vae.VAEEncodeForInpaint.execute(torch.rand(1, 16, 16, 3), Halving(), mask, 0))
    assert torch.equal(latent["noise_mask"][:, 0], mask)


# Images


def image(folders: Path, name: str, pixels: Any, mode: str | None = None, **kwargs: Any) -> str:
    """An image file in the input folder."""
    made = Image.fromarray(np.asarray(pixels, dtype=np.uint8)) if not isinstance(pixels, Image.Image) else pixels
    (made if mode is None else made.convert(mode)).save(folders / "input" / name, **kwargs)
    return name


RGB = (np.arange(4 * 6 * 3).reshape(4, 6, 3) * 3).astype(np.uint8)


def test_png_and_its_transparency(folders: Path) -> None:
    alpha = np.arange(24, dtype=np.uint8).reshape(4, 6, 1) * 10
    name = image(folders, "a.png", np.concatenate([RGB, alpha], axis=-1))
    rgb, mask = values(image_nodes.LoadImage.execute(name))
    assert torch.equal(rgb, torch.from_numpy(RGB)[None].float() / 255)
    assert torch.equal(mask, 1.0 - torch.from_numpy(alpha)[None, ..., 0].float() / 255)
    for index, channel in enumerate(["red", "green", "blue"]):
        assert torch.equal(values(image_nodes.LoadImageMask.execute(name, channel))[0], rgb[..., index])
    assert torch.equal(values(image_nodes.LoadImageMask.execute(name, "alpha"))[0], mask)


def test_opaque_images_have_an_empty_mask(folders: Path) -> None:
    rgb, mask = values(image_nodes.LoadImage.execute(image(folders, "a.png", RGB)))
    assert rgb.shape == (1, 4, 6, 3) and torch.equal(mask, torch.zeros(1, 64, 64))
    grey, _ = values(image_nodes.LoadImage.execute(image(folders, "g.png", RGB[..., 0])))
    assert torch.equal(grey, torch.from_numpy(RGB[..., :1])[None].float().expand(-1, -1, -1, 3) / 255)


def test_a_colour_may_be_the_transparent_one(folders: Path) -> None:
    plain = np.full((3, 4, 3), 7, dtype=np.uint8)
    plain[1, 2] = 1, 2, 3
    grey = plain[..., 0] * 9
    for name, pixels, transparent in (("rgb.png", plain, (1, 2, 3)), ("grey.png", grey, int(grey[1, 2]))):
        rgb, mask = values(image_nodes.LoadImage.execute(image(folders, name, pixels, transparency=transparent)))
        assert mask.nonzero().tolist() == [[0, 1, 2]]
        assert torch.equal(rgb[0, 1, 2] * 255, torch.tensor(pixels[1, 2] * np.ones(3)).float().round())


def test_pages_need_not_all_be_transparent(folders: Path) -> None:
    clear = Image.fromarray(np.zeros((5, 6, 4), dtype=np.uint8))
    for name, first, second in (("a.tiff", clear.convert("RGB"), clear), ("b.tiff", clear, clear.convert("RGB"))):
        first.save(folders / "input" / name, save_all=True, append_images=[second])
        _, mask = values(image_nodes.LoadImage.execute(name))
        assert mask.shape == (2, 5, 6)
        assert mask.flatten(1).amax(1).tolist() == [float(each.mode == "RGBA") for each in (first, second)]


def test_palettes_keep_their_transparency(folders: Path) -> None:
    indexed = Image.fromarray(np.eye(4, dtype=np.uint8), mode="P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    rgb, mask = values(image_nodes.LoadImage.execute(image(folders, "p.png", indexed, transparency=0)))
    assert torch.equal(mask[0], 1.0 - torch.eye(4))
    assert torch.equal((rgb[0, 0, 0] * 255).round(), torch.tensor([40.0, 50.0, 60.0]))


def test_sixteen_bits(folders: Path) -> None:
    values16 = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(values16).save(folders / "input" / "deep.png")
    rgb, _ = values(image_nodes.LoadImage.execute("deep.png"))
    torch.testing.assert_close(rgb[0, 0, :, 0], torch.tensor([0, 257, 32896, 65535]) / 65535)


def test_exif_turns(folders: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    name = image(folders, "turned.png", RGB, exif=exif)
    rgb, _ = values(image_nodes.LoadImage.execute(name))
    assert torch.equal(rgb[0], torch.rot90(torch.from_numpy(RGB).float() / 255, -1))


def test_animations_are_batches(folders: Path) -> None:
    frames = [Image.fromarray(np.full((5, 7, 3), value, dtype=np.uint8)) for value in (0, 100, 200)]
    name = image(folders, "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    rgb, mask = values(image_nodes.LoadImage.execute(name))
    assert rgb.shape == (3, 5, 7, 3) and mask.shape[0] == 3
    assert [round(float(frame.mean()) * 255) for frame in rgb] == [0, 100, 200]


def test_frames_of_other_sizes_are_left_out(folders: Path) -> None:
    frames = [Image.new("RGB", size) for size in ((5, 5), (6, 5), (5, 5))]
    frames[0].save(folders / "input" / "pages.tiff", save_all=True, append_images=frames[1:])
    assert load_image(folders / "input" / "pages.tiff")[0].shape == (2, 5, 5, 3)


def test_bad_images(folders: Path) -> None:
    (folders / "input" / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=naming("text.png", "PNG", "JPEG", "WebP")):
        image_nodes.LoadImage.execute("text.png")


def test_input_files(folders: Path) -> None:
    node = image_nodes.LoadImage
    image(folders, "b.png", RGB)
    image(folders, "a.JPG", Image.fromarray(RGB), format="JPEG")
    (folders / "input" / "notes.txt").write_text("")
    assert options(node, "image") == ["a.JPG", "b.png"]
    assert node.validate_inputs("b.png") is True
    assert "c.png is not in" in str(node.validate_inputs("c.png"))
    assert "is not in" in str(node.validate_inputs("../output/x.png"))
    with pytest.raises(ValueError, match="leads out of"):
        node.execute("../models/x.png")
    before = node.fingerprint_inputs("b.png")
    assert node.fingerprint_inputs("b.png") == before
    image(folders, "b.png", RGB[::-1])
    assert node.fingerprint_inputs("b.png") != before


@pytest.mark.parametrize("method", UPSCALE_METHODS)
def test_scaling_keeps_flat_colours_and_sizes(method: str) -> None:
    flat = torch.full((2, 30, 40, 3), 128 / 255)
    [scaled] = values(image_nodes.ImageScale.execute(flat, method, 25, 70, "disabled"))
    assert scaled.shape == (2, 70, 25, 3)
    torch.testing.assert_close(scaled, torch.full_like(scaled, 128 / 255))
    [same] = values(image_nodes.ImageScale.execute(flat, method, 0, 0, "disabled"))
    assert same is flat


def test_a_side_of_zero_keeps_proportions() -> None:
    image = torch.rand(1, 30, 40, 3)
    shapes = [
        values(image_nodes.ImageScale.execute(image, "area", *size, "disabled"))[0].shape for size in ((20, 0), (0, 60))
    ]
    assert [tuple(shape[1:3]) for shape in shapes] == [(15, 20), (60, 80)]


@pytest.mark.parametrize(("width", "height"), [(10, 10), (20, 5), (5, 20)])
def test_cropping_keeps_the_middle(width: int, height: int) -> None:
    image = torch.zeros(1, 40, 40, 1)
    image[:, 19:21, 19:21] = 1
    scaled = resize(image, width, height, "area", "center")
    assert scaled.shape == (1, height, width, 1)
    torch.testing.assert_close(scaled, scaled.flip(1))
    torch.testing.assert_close(scaled, scaled.flip(2))
    squeezed = resize(image, width, height, "area")
    assert (scaled.sum() > squeezed.sum()) == (width != height)


def test_batches_take_the_first_size() -> None:
    first, second = torch.rand(1, 8, 8, 3), torch.rand(2, 16, 4, 4)
    [batch] = values(image_nodes.ImageBatch.execute(first, second))
    assert batch.shape == (3, 8, 8, 4)
    assert torch.equal(batch[:1, ..., :3], first) and torch.equal(batch[0, ..., 3], torch.ones(8, 8))


def test_saving(folders: Path) -> None:
    pixels = torch.rand(2, 8, 8, 3)
    output = image_nodes.SaveImage.execute(pixels, "sub/moss_%width%")
    assert values(output)[0] is pixels
    names = [entry["filename"] for entry in output.ui.as_dict()["images"]]
    assert names == ["moss_8_00001_.png", "moss_8_00002_.png"]
    saved = load_image(folders / "output" / "sub" / names[1])[0]
    assert torch.equal(saved[0], (pixels[1] * 255).floor() / 255)
    preview = image_nodes.PreviewImage.execute(pixels)
    assert [entry["type"] for entry in preview.ui.as_dict()["images"]] == ["temp", "temp"]
    assert len(list((folders / "temp").iterdir())) == 2
    with pytest.raises(ValueError, match="names no file in"):
        image_nodes.SaveImage.execute(pixels, "../moss")


NODES = [*loaders.NODES, *text.NODES, *vae.NODES, *image_nodes.NODES]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_declarations(folders: Path, node: type[Any]) -> None:
    info = json.loads(json.dumps(node.GET_NODE_INFO_V1()))
    assert info["name"] == node.__name__ and info["description"]
    assert all(each.tooltip for each in (*node.define_schema().inputs, *node.define_schema().outputs))


def test_weights_are_not_changed_by_use(checkpoints: Checkpoints) -> None:
    """A file stays mapped in memory; nothing may write there."""
    from tessera.host.models.loaders import load_checkpoint

    path = checkpoints["sd15"][1]
    before = {key: tensor.clone() for key, tensor in load_file(path).items()}
    _, clip, decoder = load_checkpoint(path)
    assert clip is not None and decoder is not None
    clip.encode("(moss:1.3)")
    decoder.decode(torch.ones(1, 4, 2, 2))
    torch.testing.assert_close(load_file(path), before, rtol=0, atol=0)
