"""Every layout of docs/formats.md: recognised, and equal to the formula in a small network."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_adapters as tiny
import torch
from diffusers.models import embeddings
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from double_precision import double_precision
from margins import within
from safetensors.torch import save_file
from tessera.host.models.model_base import SD15, Flux
from tessera.host.runtime.patcher import ModelPatcher
from tessera.ip_adapter.encoders import needed
from tessera.ip_adapter.faces import Face
from tessera.ip_adapter.formats import WHOLE, Adapter, read_adapter
from tessera.ip_adapter.layers import find_layers, layers_of
from tessera.ip_adapter.prompts import ImagePrompt, LoadedAdapter
from tessera.nodes.image_prompts import TesseraApplyImagePrompts
from torch import Tensor
from torch.nn import functional as F

DOCUMENT = Path(__file__).parents[1] / "docs" / "formats.md"
WIDTH, SCALE = 64, 0.8
INNER = {"SD 1.5": 768, "SDXL": 1280, "Kolors": 2048}
"""Widths of resamplers."""
MADE = 128
"""Width of tokens that Kolors projects, in place of 4096."""


def _table() -> Iterator[tuple[str, ...]]:
    published = DOCUMENT.read_text(encoding="utf-8").split("## Published files")[1].split("##")[0]
    for line in published.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if len(cells) == 6 and cells[3].isdigit():
            yield cells


ROWS = list(_table())
TESTED = [row for row in ROWS if row[2] != "timed"]
"""Whose keys and values do not change with the noise level; those that do are in test_ip_sd3.py."""


def _network(model: str, sd15_unet: Any, flux_transformer: Any) -> Any:
    if model == "Flux.1":
        return flux_transformer
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel.from_config({**sd15_unet.config, "cross_attention_dim": WIDTH})
    if model == "Kolors":
        unet.encoder_hid_proj = torch.nn.Linear(MADE, WIDTH)
    for name, parameter in unet.named_parameters():
        torch.nn.init.normal_(parameter.data, std=0.06 if parameter.ndim > 1 else 0.2)
        parameter.data += name.endswith("weight") and parameter.ndim == 1
    return unet.eval().requires_grad_(False)


def _projector(kind: str, reads: int, tokens: int, model: str, width: int) -> dict[str, Tensor]:
    if kind == "base":
        parts = torch.nn.ModuleDict({"proj": torch.nn.Linear(reads, tokens * width), "norm": torch.nn.LayerNorm(width)})
        return tiny._spread(parts)
    if kind in ("face", "face_plus"):
        found = tiny._face(width, tokens)
        inside = tiny._spread(tiny._resampler(width, width, 4, reads)) if kind == "face_plus" else {}
        return found | {f"perceiver_resampler.{key}": tensor for key, tensor in inside.items()}
    if kind == "full":
        layers = [torch.nn.Linear(reads, reads), torch.nn.GELU(), torch.nn.Linear(reads, width)]
        return tiny._spread(torch.nn.ModuleDict({"proj": torch.nn.Sequential(*layers, torch.nn.LayerNorm(width))}))
    inner = INNER[model]
    return {**tiny._spread(tiny._resampler(inner, width, 4, reads)), "latents": torch.randn(1, tokens, inner)}


def _write(row: tuple[str, ...], network: Any, folder: Path) -> Path:
    """A file with the names, and the shapes of the projector, that are published."""
    file, model, kind, reads, tokens, _ = row
    torch.manual_seed(1)
    path = folder / file
    if kind == "pooled":
        torch.save(tiny.random_instantx(network, int(reads), int(tokens)), path)
        return path
    layers = find_layers(network)
    width = MADE if (model, kind) == ("Kolors", "face_plus") else layers[0].width
    image_proj = _projector(kind, int(reads), int(tokens), model, width)
    if model == "Flux.1":
        weights = {key: t for key, t in tiny.random_xlabs(network).items() if not key.startswith("ip_adapter_proj")}
        save_file(weights | {f"ip_adapter_proj_model.{key}": t for key, t in image_proj.items()}, path)
        return path
    ip_adapter = tiny.random_adapter(network)["ip_adapter"]
    if "faceid" in file and "portrait" not in file and model != "Kolors":
        ip_adapter |= tiny.random_lora(network)
    nested = {"image_proj": image_proj, "ip_adapter": ip_adapter}
    if path.suffix == ".bin":
        torch.save(nested, path)
    else:
        names = ("adapter_modules", "image_proj_model") if "noob" in file else ("ip_adapter", "image_proj")
        save_file(tiny.flat(nested, *names), path)
    return path


@pytest.mark.parametrize("row", TESTED, ids=[row[0] for row in TESTED])
def test_a_published_layout_equals_the_formula(
    row: tuple[str, ...], sd15_unet: Any, flux_transformer: Any, tmp_path: Path
) -> None:
    file, model, kind, reads, tokens, encoder_name = row
    network = _network(model, sd15_unet, flux_transformer)
    adapter = read_adapter(_write(row, network, tmp_path))
    features = 0 if encoder_name == "none" else int(reads)
    assert (adapter.kind, adapter.features) == (kind, features)
    assert adapter.tokens == (0 if kind == "full" else int(tokens))
    if features:
        assert re.match(rf"{encoder_name}\b", needed(adapter))
    face = Face(torch.randn(512, generator=torch.Generator().manual_seed(2)) * 20) if "face" in kind else None
    with double_precision():
        encoder, image = tiny.Encoder(int(reads), int(reads)), tiny.plain_image(0.3)
        loaded, prompt = LoadedAdapter(adapter, encoder), ImagePrompt(image, SCALE, "full", face=face)
        base = (Flux if model == "Flux.1" else SD15)(copy.deepcopy(network)).double()
        patcher = ModelPatcher(base, "cpu", "cpu")
        applied = TesseraApplyImagePrompts.execute(patcher, (prompt,), "sum", loaded, 0.0).args[0]
        ours, plain = _predict(applied), _predict(patcher)
        theirs = _formula(patcher, adapter, _seen(adapter, encoder, image, face, network))
    assert ours.dtype == torch.float64
    assert within((ours - theirs).abs().max(), 1e-9 * float(theirs.abs().max()))
    assert (ours - plain).abs().max() > 1e-4 * ours.abs().max()


def _predict(model: Any) -> Tensor:
    to = {**model.model_options["transformer_options"], "wrappers": model.wrappers, "cond_or_uncond": [1, 0]}
    flux = isinstance(model.model, Flux)
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (2, 16 if flux else 4, 8, 8), "c_crossattn": (2, 7, 16 if flux else WIDTH)}
    shapes |= {"y": (2, 24)} if flux else {}
    inputs = {name: torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}
    extra = {"guidance": torch.full((2,), 3.5).double()} if flux else {}
    # A level at which the network decides the result.
    return model.model.apply_model(**inputs, **extra, t=torch.full((2,), 0.9).double(), transformer_options=to)


# The formula, with diffusers' projectors


def _seen(adapter: Adapter, encoder: Any, image: Tensor, face: Face | None, network: Any) -> Tensor:
    """Tokens (2, T, D): of no image, and of the image."""
    w = {key: tensor.double() for key, tensor in adapter.image_proj.items()}
    base = adapter.kind in WHOLE
    with pytest.MonkeyPatch.context() as patch:
        # diffusers takes for granted that there are four tokens.
        plus = partial(embeddings.IPAdapterFaceIDPlusImageProjection, num_tokens=adapter.tokens)
        patch.setattr("diffusers.loaders.unet.IPAdapterFaceIDPlusImageProjection", plus)
        theirs: Any = (
            _base if base else network._convert_ip_adapter_image_proj_to_diffusers(dict(w), low_cpu_mem_usage=False)
        )
    grey = torch.tensor([0.48145466, 0.4578275, 0.40821073]).expand(1, 8, 8, 3)
    found = []
    for given, present in ((grey, 0.0), (image, 1.0)):
        output = encoder.encode_image(given)
        if base:
            seen = output.image_embeds * present
        elif face is None:
            seen = output.penultimate_hidden_states
        else:
            vector = face.embedding.double()
            norm = 1.0 if adapter.kind == "face_raw" else vector.norm()
            seen = present * vector[None] / norm
            seen = seen[None] if adapter.kind == "face_raw" else seen
        if adapter.kind == "face_plus":
            theirs.clip_embeds = output.penultimate_hidden_states[None].double()
            theirs.shortcut = "plusv2" in adapter.name or bool(adapter.made)
        seen = seen.double()
        found.append((theirs(w, seen) if base else theirs(seen)).reshape(1, -1, adapter.made or adapter.width))
    tokens = torch.cat(found).detach()
    return network.encoder_hid_proj.double()(tokens).detach() if adapter.made else tokens


def _base(w: dict[str, Tensor], seen: Tensor) -> Tensor:
    if "proj.2.weight" in w:
        seen = F.gelu(F.linear(seen, w["proj.0.weight"], w["proj.0.bias"]))
    last = "proj.2" if "proj.2.weight" in w else "proj"
    tokens = F.linear(seen, w[f"{last}.weight"], w[f"{last}.bias"]).view(1, -1, len(w["norm.weight"]))
    return F.layer_norm(tokens, tokens.shape[-1:], w["norm.weight"], w["norm.bias"])


def _formula(patcher: Any, adapter: Adapter, tokens: Tensor) -> Tensor:
    """Hooks around plain attention: what a layer gives, plus the scale times softmax(q k / sqrt(d)) v."""
    network, handles, queries = patcher.model.diffusion_model, [], {}
    flux = isinstance(network, FluxTransformer2DModel)
    for layer in layers_of(len(adapter.layers), find_layers(network)):
        bias = adapter.biases.get(layer.number, (None, None))
        pairs = zip(adapter.layers[layer.number], bias, strict=True)
        k, v = (F.linear(tokens, w.double(), None if b is None else b.double()) for w, b in pairs)
        single = layer.name.startswith("single")
        blocks = network.single_transformer_blocks if single else getattr(network, "transformer_blocks", ())
        block: Any = blocks[layer.key[1]] if flux else network.get_submodule(f"{layer.name}.attn2")
        if adapter.joint:
            k = k.unflatten(-1, (layer.heads, -1))
            k = (k / (k.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(2)

        def see(_: Any, __: Any, q: Tensor, at: int = layer.number) -> None:
            # Flux's are by head, (B, H, L, d).
            queries[at] = q.transpose(1, 2).flatten(2) if q.ndim == 4 else q

        def attend(at: int, heads: int, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (queries[at], k, v))
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            return SCALE * (weights @ v).transpose(1, 2).flatten(2)

        def behind(
            _: Any, __: Any, out: Any, at: int = layer.number, k: Any = k, v: Any = v, h: int = layer.heads
        ) -> Any:
            return out[0], out[1] + attend(at, h, k, v)

        def before(_: Any, args: Any, at: int = layer.number, k: Any = k, v: Any = v, h: int = layer.heads) -> Any:
            return (args[0] + attend(at, h, k, v), *args[1:])

        def added(
            _: Any, __: Any, out: Any, at: int = layer.number, k: Any = k, v: Any = v, h: int = layer.heads
        ) -> Any:
            return out + attend(at, h, k, v)

        if adapter.joint:
            handles.append(block.attn.norm_q.register_forward_hook(see))
            inside = block.attn if single else block.attn.to_out[0]
            hooked = inside.register_forward_hook(added) if single else inside.register_forward_pre_hook(before)
            handles.append(hooked)
        elif flux:
            handles += [block.attn.norm_q.register_forward_hook(see), block.register_forward_hook(behind)]
        else:
            handles += [block.to_q.register_forward_hook(see), block.to_out[0].register_forward_pre_hook(before)]
    try:
        return _predict(patcher)
    finally:
        for handle in handles:
            handle.remove()


def test_the_table_names_each_kind() -> None:
    assert {row[2] for row in ROWS} == {"base", "plus", "full", "face", "face_plus", "face_raw", "pooled", "timed"}
    assert len(ROWS) == 27
