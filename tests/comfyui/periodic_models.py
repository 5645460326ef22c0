"""Runs in ComfyUI's interpreter: its own transformers and VAEs, small and random, on a torus.

    python periodic_models.py COMFYUI PACK OUT.json

OUT gets, for each transformer, the step across the border over the mean step inside for a constant latent, as
`[[x, y] stock, [x, y] torus]` (medians of some seeds), and for each network that commutes with rolling and each tiling
the relative error of rolling its input instead of its output, `[stock, on a torus]`; under "rolling", for each
transformer that can only be rolled, the largest step over the mean step, `[stock, rolled, two cuts]`; under
"controlled", for models with a control network, the one or the other, `[stock, the model alone on a torus, both]`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from inside import load_pack, start

comfyui, pack, out = sys.argv[1:]
start(comfyui)

import comfy.ops  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

SIDE = 12
SEEDS = 5
TEXT = 9
OPERATIONS = {"operations": comfy.ops.disable_weight_init, "dtype": torch.float32, "device": "cpu"}


def load(name: str) -> Any:
    """A module of the pack."""
    if "pack" not in sys.modules:
        load_pack(pack)
    return importlib.import_module(f"pack.{name}")


def ldm(path: str, name: str) -> Any:
    """A class of ComfyUI's models."""
    return getattr(importlib.import_module(f"comfy.ldm.{path}"), name)


def text(width: int) -> Tensor:
    return torch.randn(1, TEXT, width)


def flux(vec_in_dim: int | None, axes_dim: list[int], theta: int, txt_ids_dims: list[int]) -> Any:
    return ldm("flux.model", "Flux")(
        in_channels=4, out_channels=4, vec_in_dim=vec_in_dim, context_in_dim=32, hidden_size=128, mlp_ratio=2.0,
        num_heads=1, depth=1, depth_single_blocks=1, axes_dim=axes_dim, theta=theta, patch_size=2, qkv_bias=True,
        guidance_embed=False, txt_ids_dims=txt_ids_dims, **OPERATIONS,
    )  # fmt: skip


def qwen() -> Any:
    return ldm("qwen_image.model", "QwenImageTransformer2DModel")(
        in_channels=16, out_channels=4, num_layers=2, num_attention_heads=1, joint_attention_dim=32, **OPERATIONS
    )


def z_image() -> Any:
    return ldm("lumina.model", "NextDiT")(
        dim=256, n_layers=2, n_refiner_layers=1, n_heads=2, qk_norm=True, cap_feat_dim=32, axes_dims=[32, 48, 48],
        axes_lens=[64, 64, 64], rope_theta=256.0, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32,
        multiple_of=32, **OPERATIONS,
    )  # fmt: skip


def wan() -> Any:
    return ldm("wan.model", "WanModel")(
        in_dim=4, out_dim=4, dim=128, ffn_dim=256, text_dim=32, num_heads=1, num_layers=2, **OPERATIONS
    )


def hunyuan() -> Any:
    return ldm("hunyuan_video.model", "HunyuanVideo")(
        in_channels=4, out_channels=4, vec_in_dim=32, context_in_dim=32, hidden_size=128, mlp_ratio=2.0, num_heads=1,
        depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=256, patch_size=[1, 2, 2], qkv_bias=True,
        guidance_embed=False, byt5=False, meanflow=False, use_cond_type_embedding=False, vision_in_dim=None,
        meanflow_sum=False, **OPERATIONS,
    )  # fmt: skip


def chroma() -> Any:
    return ldm("chroma.model", "Chroma")(
        in_channels=16, out_channels=16, context_in_dim=32, hidden_size=128, mlp_ratio=2.0, num_heads=1, depth=1,
        depth_single_blocks=1, axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True, in_dim=64, out_dim=128,
        hidden_dim=64, n_layers=2, txt_ids_dims=[], vec_in_dim=None, **OPERATIONS,
    )  # fmt: skip


def lumina() -> Any:
    return ldm("lumina.model", "NextDiT")(
        dim=256, n_layers=2, n_refiner_layers=1, n_heads=2, qk_norm=True, cap_feat_dim=32, axes_dims=[32, 48, 48],
        axes_lens=[64, 64, 64], multiple_of=32, **OPERATIONS,
    )  # fmt: skip


def omnigen() -> Any:
    return ldm("omnigen.omnigen2", "OmniGen2Transformer2DModel")(
        in_channels=4, hidden_size=128, num_layers=2, num_refiner_layers=1, num_attention_heads=1, num_kv_heads=1,
        multiple_of=32, axes_dim_rope=(32, 48, 48), text_feat_dim=32, **OPERATIONS,
    )  # fmt: skip


class TextByName(nn.Module):
    """A transformer whose third argument is not the text."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.patch_size = network, network.patch_size

    def forward(self, x: Tensor, t: Tensor, context: Tensor, **kwargs: Any) -> Tensor:
        return self.network(x, t, context=context, **kwargs)


def hidream() -> Any:
    """Without experts: tokens that go to different ones differ in any case."""
    network = ldm("hidream.model", "HiDreamImageTransformer2DModel")(
        patch_size=2, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=1,
        caption_channels=[32, 32], text_emb_dim=32, num_routed_experts=0, axes_dims_rope=[64, 32, 32],
        llama_layers=[0, 1], **OPERATIONS,
    )  # fmt: skip
    return TextByName(network)


def sd3() -> Any:
    """Sines and cosines of positions, from which its learned table was made."""
    return ldm("modules.diffusionmodules.mmdit", "OpenAISignatureMMDITWrapper")(
        patch_size=2, in_channels=4, depth=2, adm_in_channels=32, pos_embed_max_size=64, context_size=32,
        context_embedder_config={
            "target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}
        },
        **OPERATIONS,
    )  # fmt: skip


# Builder, further arguments of a call, frames (0 for a latent without).
TRANSFORMERS: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], int]] = {
    "Flux.1": (lambda: flux(32, [16, 56, 56], 10000, []), lambda: {"y": torch.randn(1, 32)}, 0),
    "Flux.2": (lambda: flux(None, [32, 32, 32, 32], 2000, [3]), dict, 0),
    "Qwen-Image": (qwen, dict, 1),
    "Z-Image": (z_image, lambda: {"num_tokens": TEXT}, 0),
    "HunyuanVideo": (hunyuan, lambda: {"y": torch.randn(1, 32)}, 1),
    "Chroma": (chroma, lambda: {"guidance": torch.zeros(1)}, 0),
    "Lumina 2": (lumina, lambda: {"num_tokens": TEXT}, 0),
    "OmniGen2": (omnigen, lambda: {"num_tokens": TEXT}, 0),
    "HiDream": (
        hidream,
        lambda: {"y": torch.randn(1, 32), "encoder_hidden_states_llama3": torch.randn(1, 2, TEXT, 32)},
        0,
    ),
}


def randomize(network: nn.Module) -> nn.Module:
    """Weights that keep activations near one, and gates open."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=float(name.endswith(("scale", "norm.weight"))), std=0.1)
    return network.eval().requires_grad_(False)


def ratios(name: str, seed: int, on_torus: bool) -> list[float]:
    """Step across the border / mean step inside, of columns and of rows."""
    build, arguments, frames = TRANSFORMERS[name]
    torch.manual_seed(seed)
    network = randomize(build())
    shape = (1, 4, frames, 2 * SIDE, 2 * SIDE) if frames else (1, 4, 2 * SIDE, 2 * SIDE)
    x = torch.randn(1, 4, *(1 for _ in shape[2:])).expand(shape).contiguous()
    both = load("tiling.axes").TILINGS["both"]
    torus = load("tiling.torus").torus(network, both, [(SIDE, SIDE)]) if on_torus else nullcontext()
    with torch.no_grad(), torus:
        drawn = network(x, torch.tensor([0.7]), text(32), **arguments())
    return [float(s[0] / s[1:].mean()) for s in token_steps(drawn)]


def token_steps(drawn: Tensor) -> list[Tensor]:
    """The mean step before each column of tokens, and before each row."""
    tokens = drawn.unflatten(-1, (SIDE, 2)).unflatten(-3, (SIDE, 2)).mean((-1, -3)).flatten(0, -3)
    return [(tokens - tokens.roll(1, dim)).abs().mean((0, 3 - dim)) for dim in (2, 1)]


class Executor:
    """A host's call of a denoiser, as wrappers of APPLY_MODEL see it."""

    def __init__(self, network: nn.Module, arguments: dict[str, Any]) -> None:
        self.class_obj, self.arguments = SimpleNamespace(diffusion_model=network), arguments

    def __call__(self, x: Tensor, t: Tensor, c_concat: Any, text: Tensor, control: Any, options: Any) -> Tensor:
        return self.class_obj.diffusion_model(x, t, text, **self.arguments)


def rolled_ratios(seed: int) -> list[float]:
    """SD3: largest step / mean step as it is, with one seam somewhere, and with two that hide each other."""
    torch.manual_seed(seed)
    both, methods = load("tiling.axes").TILINGS["both"], load("tiling.methods")
    network = randomize(sd3())
    latent = SimpleNamespace(latent_channels=4, spacial_downscale_ratio=8)
    whole, calls = load("patching.schedule").ScheduleRange(), load("patching.calls")
    parts = {"diffusion_model": network, "latent_format": latent}
    hooks, report = methods.choose(SimpleNamespace(get_model_object=parts.__getitem__), "auto", both, whole)
    assert "rolling" in report, report
    x = torch.randn(1, 4, 1, 1).expand(1, 4, 2 * SIDE, 2 * SIDE).contiguous()
    sigmas = torch.linspace(1, 0, 21)
    execute, found = Executor(network, {"y": torch.randn(1, 32)}), []
    with torch.no_grad():
        call = {"x": x, "c_concat": None, "c_crossattn": text(32), "control": None}
        call["transformer_options"] = {"sample_sigmas": sigmas, "tessera_seed": seed}
        drawn = [execute(x, sigmas[:1], None, call["c_crossattn"], None, None)]
        drawn += [
            hooks.step(calls.DenoiserCall(execute, call | {"t": sigmas[step : step + 1]}), both) for step in (3, 17)
        ]
    for image in drawn:
        found.append(max(float(s.max() / s.mean()) for s in token_steps(image)))
    return found


def wan_vae() -> tuple[nn.Module, Callable[[Any, Tensor], Tensor], tuple[int, ...], int, float]:
    network = ldm("wan.vae", "WanVAE")(dim=16, z_dim=4, num_res_blocks=1)
    return network, lambda vae, z: vae.decode(z), (1, 4, 2, 6, 8), 1, 8


def wan_vae_encode() -> tuple[nn.Module, Callable[[Any, Tensor], Tensor], tuple[int, ...], int, float]:
    network = ldm("wan.vae", "WanVAE")(dim=16, z_dim=4, num_res_blocks=1)
    return network, lambda vae, x: vae.encode(x), (1, 3, 5, 48, 64), 8, 1 / 8


def sd_vae(encode: bool) -> tuple[nn.Module, Callable[[Any, Tensor], Tensor], tuple[int, ...], int, float]:
    config = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    parts = importlib.import_module("comfy.ldm.modules.diffusionmodules.model")
    if encode:
        return parts.Encoder(**config), lambda net, x: net(x), (1, 3, 48, 64), 8, 1 / 8
    return parts.Decoder(**config), lambda net, z: net(z), (1, 4, 6, 8), 1, 8


def wan_model() -> tuple[nn.Module, Callable[[Any, Tensor], Tensor], tuple[int, ...], int, float]:
    """Its text has no positions, so on a torus it commutes with rolling, as a convolutional network does."""
    context = text(32)
    return wan(), lambda net, x: net(x, torch.tensor([0.7]), context), (1, 4, 3, 2 * SIDE, 2 * SIDE), 2, 1


def kandinsky() -> tuple[nn.Module, Callable[[Any, Tensor], Tensor], tuple[int, ...], int, float]:
    """Its text has positions, along an axis of its own, but those of the image do not relate to them."""
    network = ldm("kandinsky5.model", "Kandinsky5")(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=32, in_text_dim2=32, time_dim=32, model_dim=128, ff_dim=256,
        visual_embed_dim=16, num_text_blocks=1, num_visual_blocks=2, axes_dims=(32, 48, 48), **OPERATIONS,
    )  # fmt: skip
    context, y, shape = text(32), torch.randn(1, 32), (1, 4, 3, 2 * SIDE, 2 * SIDE)
    return network, lambda net, x: net(x, torch.tensor([0.7]), context, y), shape, 2, 1


EXACT = {
    "Wan": wan_model,
    "Kandinsky 5": kandinsky,
    "Wan VAE, decode": wan_vae,
    "Wan VAE, encode": wan_vae_encode,
    "SD VAE, decode": lambda: sd_vae(encode=False),
    "SD VAE, encode": lambda: sd_vae(encode=True),
}


def rolling_error(name: str, tiling: str, wraps: bool) -> float:
    """Relative L2 distance between the output for an input rolled along the axes that wrap and the rolled output."""
    torch.manual_seed(0)
    network, run, shape, unit, scale = EXACT[name]()
    randomize(network)
    x = torch.randn(shape)
    axes = load("tiling.axes").TILINGS[tiling]
    shift = (unit * axes.vertical, 3 * unit * axes.horizontal)
    with ExitStack() as stack, torch.no_grad():
        if wraps:
            stack.enter_context(load("tiling.circular").circular(network, axes))
        if wraps and any(load("tiling.torus").rotary_embedders(network)):
            stack.enter_context(load("tiling.torus").torus(network, axes, [(SIDE, SIDE)]))
        rolled = run(network, x.roll(shift, (-2, -1)))
        moved = run(network, x).roll([round(s * scale) for s in shift], (-2, -1))
    return float((rolled - moved).norm() / moved.norm())


def main() -> None:
    found: dict[str, Any] = {}
    for name in TRANSFORMERS:
        runs = [[ratios(name, seed, on_torus) for seed in range(SEEDS)] for on_torus in (False, True)]
        found[name] = [[median(axis) for axis in zip(*seeds, strict=True)] for seeds in runs]
    for name in EXACT:
        for tiling in ("horizontal", "vertical", "both"):
            found[f"{name}, {tiling}"] = [rolling_error(name, tiling, wraps) for wraps in (False, True)]
    import periodic_controls

    runs = [periodic_controls.border_ratios(randomize, load, seed, token_steps, SIDE) for seed in range(SEEDS)]
    found["controlled"] = {
        "SD": periodic_controls.rolling_errors(randomize, load),
        "Flux": [median(ratio) for ratio in zip(*runs, strict=True)],
    }
    runs = [rolled_ratios(seed) for seed in range(SEEDS)]
    found["rolling"] = {"SD3": [median(ratio) for ratio in zip(*runs, strict=True)]}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


main()
