"""Control networks of ComfyUI's own classes, small and random, sampled with the seamless node.

Imported by `periodic_models.py`, in ComfyUI's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.cldm.cldm  # pyright: ignore[reportMissingImports]
import comfy.controlnet  # pyright: ignore[reportMissingImports]
import comfy.latent_formats  # pyright: ignore[reportMissingImports]
import comfy.ldm.flux.controlnet  # pyright: ignore[reportMissingImports]
import comfy.model_patcher  # pyright: ignore[reportMissingImports]
import comfy.ops  # pyright: ignore[reportMissingImports]
import comfy.sample  # pyright: ignore[reportMissingImports]
import comfy.supported_models  # pyright: ignore[reportMissingImports]
import torch
from comfy.patcher_extension import WrappersMP  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

HEIGHT, WIDTH = 16, 24
UNET = {
    "image_size": 32, "in_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1], "channel_mult": [1, 2],
    "use_spatial_transformer": True, "transformer_depth": [1, 1], "transformer_depth_middle": 1, "context_dim": 32,
    "num_heads": 2, "legacy": False, "dtype": torch.float32,
}  # fmt: skip
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 32, "hidden_size": 128,
    "mlp_ratio": 2.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1, "axes_dim": [16, 56, 56], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [], "dtype": torch.float32,
}  # fmt: skip

Randomize = Callable[[nn.Module], nn.Module]
SEAMLESS = ("stock", "without control hook", "whole")


def sd(randomize: Randomize) -> tuple[Any, Any]:
    """A MODEL of Stable Diffusion's kind and a control network for it."""
    config = comfy.supported_models.SD15(UNET | {"out_channels": 4, "transformer_depth_output": [1] * 4})
    config.unet_config |= {"num_heads": 2, "num_head_channels": -1}
    control = comfy.cldm.cldm.ControlNet(
        hint_channels=3, operations=comfy.ops.disable_weight_init, **UNET, num_head_channels=-1
    )
    return patcher(config, randomize), comfy.controlnet.ControlNet(randomize(control), load_device=torch.device("cpu"))


def flux(randomize: Randomize) -> tuple[Any, Any]:
    """A MODEL of Flux's kind and a control network for it."""
    control = comfy.ldm.flux.controlnet.ControlNetFlux(operations=comfy.ops.disable_weight_init, **FLUX)
    given = {"load_device": torch.device("cpu"), "extra_conds": ["y", "guidance"]}
    return patcher(comfy.supported_models.Flux(FLUX), randomize), comfy.controlnet.ControlNet(
        randomize(control), **given
    )


def patcher(config: Any, randomize: Randomize) -> Any:
    model = config.get_model({}, device=torch.device("cpu"))
    randomize(model.diffusion_model)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def draw(model: Any, control: Any, noise: Tensor, hint: Tensor, steps: int) -> Tensor:
    """Sample with a hint (1, 3, H, W) attached to both conditionings."""
    random = torch.Generator().manual_seed(1)
    conds = []
    for _ in range(2):
        text, pooled = torch.randn(1, 9, 32, generator=random), torch.randn(1, 32, generator=random)
        hinted = control.copy().set_cond_hint(hint, 1.0, (0.0, 1.0))
        conds.append([[text, {"pooled_output": pooled, "control": hinted, "control_apply_to_uncond": False}]])
    latent = torch.zeros_like(noise)
    return comfy.sample.sample(model, noise, steps, 2.0, "euler", "simple", *conds, latent, disable_pbar=True, seed=3)


def as_seamless(model: Any, kind: str, load: Callable[[str], Any]) -> Any:
    """The MODEL as it is, with the node, or with the node but for what it does to control networks."""
    if kind == "stock":
        return model
    nodes = load("nodes.seamless")
    seamless = nodes.TesseraSeamlessModel.execute(model, "both", 0.0, 1.0).args[0]
    if kind != "whole":
        seamless.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, nodes.KEY)
    return seamless


def rolling_errors(randomize: Randomize, load: Callable[[str], Any]) -> list[float]:
    """SD: relative L2 distance between what a rolled noise and hint give, and the rolled image; for `SEAMLESS`."""
    torch.manual_seed(0)
    model, control = sd(randomize)
    noise, hint = torch.randn(1, 4, HEIGHT, WIDTH), torch.rand(1, 3, 8 * HEIGHT, 8 * WIDTH)
    errors = []
    for kind in SEAMLESS:
        seamless = as_seamless(model, kind, load)
        still = draw(seamless, control, noise, hint, 2).roll((2, 6), (-2, -1))
        moved = draw(seamless, control, noise.roll((2, 6), (-2, -1)), hint.roll((16, 48), (-2, -1)), 2)
        errors.append(float((moved - still).norm() / still.norm()))
    return errors


def border_ratios(
    randomize: Randomize, load: Callable[[str], Any], seed: int, steps_of: Callable[[Tensor], list[Tensor]], side: int
) -> list[float]:
    """Flux: step across the border / mean step inside, worse axis, for a constant noise and hint; for `SEAMLESS`."""
    torch.manual_seed(seed)
    model, control = flux(randomize)
    noise = torch.randn(1, 16, 1, 1).expand(1, 16, 2 * side, 2 * side).contiguous()
    hint = torch.rand(1, 3, 1, 1).expand(1, 3, 16 * side, 16 * side).contiguous()
    drawn = [draw(as_seamless(model, kind, load), control, noise, hint, 1) for kind in SEAMLESS]
    return [max(float(s[0] / s[1:].mean()) for s in steps_of(image)) for image in drawn]
