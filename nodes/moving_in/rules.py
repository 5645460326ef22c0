"""How a node of another pack is made of nodes that are there, with its values translated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...guidance.formulas import ALPHA, TAU
from ...samplers.preview import FLUX_SHIFT
from ..flux_negative import MAX_STRENGTH
from ..image_prompts import DEMO
from ..inputs import LIMITS
from ..replacements import native_tiling

Link = list[Any]
Node = dict[str, Any]
SELF = ""
"""The node that keeps the id of the one that it replaces."""


@dataclass
class Parts:
    """What takes the place of a node.

    Attributes:
        nodes: by name, `SELF` among them; links in them name a part of the same place as ["@name", output].
        outputs: what each output of the old node becomes, such as ["@", 0], or a link that it was given.
        notes: what has no counterpart, or is approximated.
    """

    nodes: dict[str, Node]
    outputs: list[Link]
    notes: list[str] = field(default_factory=list)


def _node(kind: str, **inputs: Any) -> Node:
    return {"class_type": kind, "inputs": {name: value for name, value in inputs.items() if value is not None}}


def _alone(kind: str, notes: list[str], **inputs: Any) -> Parts:
    return Parts({SELF: _node(kind, **inputs)}, [["@", 0]], notes)


def _in_place(given: Mapping[str, Any], name: str) -> list[str]:
    if given[name] != "Modify in place":
        return []
    return [f"{name} Modify in place changed everything that used it; here only what is linked behind the node"]


def seamless_tile(given: Mapping[str, Any], _: list[str]) -> Parts:
    """SeamlessTile is Seamless Model."""
    notes = _in_place(given, "copy_model")
    return _alone("TesseraSeamlessModel", notes, model=given["model"], tiling=native_tiling(given["tiling"]))


def circular_vae(given: Mapping[str, Any], _: list[str]) -> Parts:
    """MakeCircularVAE is Seamless VAE."""
    notes = _in_place(given, "copy_vae")
    return _alone("TesseraSeamlessVAE", notes, vae=given["vae"], tiling=native_tiling(given["tiling"]))


def circular_decode(given: Mapping[str, Any], _: list[str]) -> Parts:
    """CircularVAEDecode is Seamless VAE before VAE Decode."""
    vae = _node("TesseraSeamlessVAE", vae=given["vae"], tiling=native_tiling(given["tiling"]))
    return Parts({"vae": vae, SELF: _node("VAEDecode", samples=given["samples"], vae=["@vae", 0])}, [["@", 0]])


def offset_image(given: Mapping[str, Any], _: list[str]) -> Parts:
    """OffsetImage counts in percent."""
    values = {"x": given["x_percent"], "y": given["y_percent"], "unit": "percent"}
    return _alone("TesseraOffsetImage", [], image=given["pixels"], **values)


def _negative(given: Mapping[str, Any]) -> tuple[Node, list[str]]:
    """Return Flux Negative Prompt with the values of a NAG node."""
    notes = [
        f"{name} {given[name]} has no counterpart; it is {own} here"
        for name, own in (("nag_tau", TAU), ("nag_alpha", ALPHA))
        if given[name] != own
    ]
    strength = min(max(given["nag_scale"] - 1.0, 0.0), MAX_STRENGTH)
    if strength != given["nag_scale"] - 1.0:
        notes.append(f"nag_scale {given['nag_scale']} is limited: strength {strength} is the nearest")
    end, sigma = 1.0, given["nag_sigma_end"]
    if sigma > 0:
        end = round(max(0.0, 1.0 - sigma / (FLUX_SHIFT - (FLUX_SHIFT - 1.0) * sigma)), 3) if sigma < 1 else 0.0
        notes.append(f"nag_sigma_end {sigma} is approximated with Flux's usual schedule: end_percent {end}")
    return _node(
        "TesseraFluxNegative",
        model=given["model"],
        negative=given["nag_negative"],
        strength=strength,
        method="nag",
        start_percent=0.0,
        end_percent=end,
    ), notes


def _with_nag(kind: str, left_out: tuple[str, ...] = ()) -> Callable[[Mapping[str, Any], Any], Parts]:
    """Return a rule: Flux Negative Prompt before a node of ComfyUI, which takes the other inputs."""
    own = ("nag_negative", "nag_scale", "nag_tau", "nag_alpha", "nag_sigma_end", *left_out)

    def rule(given: Mapping[str, Any], _: list[str]) -> Parts:
        negative, notes = _negative(given)
        kept = {name: value for name, value in given.items() if name not in own}
        outputs: list[Link] = [["@", 0], ["@", 1]]
        return Parts({"negative": negative, SELF: _node(kind, **{**kept, "model": ["@negative", 0]})}, outputs, notes)

    return rule


def model_loader(given: Mapping[str, Any], _: list[str]) -> Parts:
    """IPAdapterModelLoader is IPAdapter Loader, which finds the image encoder itself."""
    return _alone("TesseraLoadIPAdapter", [], ip_adapter=given["ipadapter_file"])


PRESETS = {
    "LIGHT": "light",
    "STANDARD": "ip-adapter_",
    "VIT-G": "vit-g",
    "PLUS FACE": "plus-face",
    "PLUS": "plus",
    "FULL": "full-face",
}
"""How presets of IPAdapterUnifiedLoader begin, and what is in the names of their files."""


def unified_loader(given: Mapping[str, Any], files: list[str]) -> Parts:
    """IPAdapterUnifiedLoader chooses a file by its name; the model passes through."""
    begin = next((name for name in PRESETS if str(given["preset"]).upper().startswith(name)), "STANDARD")
    own, part = [name for name in files if name != DEMO], PRESETS[begin]
    fitting = [name for name in own if part in name.lower() and ("face" in part) == ("face" in name.lower())]
    chosen = (fitting or own or [DEMO])[0]
    notes = [f"preset {given['preset']} became the file {chosen}; IPAdapter Loader takes any other"]
    if given.get("ipadapter") is not None:
        notes.append("ipadapter has no counterpart; nothing is taken from another loader")
    loader = _node("TesseraLoadIPAdapter", ip_adapter=chosen)
    return Parts({SELF: loader}, [given["model"], ["@", 0]], notes)


TYPES = {
    "standard": "full",
    "linear": "full",
    "style transfer": "style_transfer",
    "strong style transfer": "style_broad",
    "style transfer precise": "style_precise",
    "composition": "composition_narrow",
    "composition precise": "composition_precise",
}
"""Our type of a weight_type."""
BLOCKS = {
    "weak input": "all=1, down_blocks=0.2",
    "weak middle": "all=1, mid_block=0.2",
    "weak output": "all=1, up_blocks=0.2",
    "strong middle": "all=0.2, mid_block=1",
}
"""Weights of the blocks of a weight_type that is not one of our types."""
LOST = {"style and composition": "only the blocks of style and of composition"}
"""What has no counterpart of the others; those that are not here weight layers unevenly."""


def apply_adapter(given: Mapping[str, Any], _: list[str]) -> Parts:
    """IPAdapter and IPAdapterAdvanced are Image Prompt before Apply Image Prompts."""
    kind = given["weight_type"]
    translated, blocks, notes = TYPES.get(kind, "full"), BLOCKS.get(kind), []
    if kind not in TYPES and blocks is None:
        lost = LOST.get(kind, "uneven weights of the layers")
        notes.append(f"weight_type {kind} became type {translated}; what has no counterpart: {lost}")
    scale, limit = _strength(given["weight"])
    if scale * limit != given["weight"]:
        notes.append(f"weight {given['weight']} is limited: {scale * limit} is the nearest")
    notes += _without_counterpart(given)
    prompt = _node(
        "TesseraImagePrompt",
        image=given["image"],
        scale=scale,
        limit=None if limit == 1.0 else limit,
        type=translated,
        blocks=blocks,
        start_percent=given["start_at"],
        end_percent=given["end_at"],
        mask=given.get("attn_mask"),
        negative_image=given.get("image_negative"),
        batch="average" if given.get("combine_embeds") == "average" else None,
    )
    apply = _node(
        "TesseraApplyImagePrompts", model=given["model"], image_prompts=["@image", 0], ip_adapter=given["ipadapter"]
    )
    return Parts({"image": prompt, SELF: apply}, [["@", 0]], notes)


def _strength(weight: float) -> tuple[float, float]:
    """Return the scale, 0..1, and the limit of Image Prompt whose product is a weight, or the nearest to it."""
    lowest, highest = LIMITS
    if weight > 1.0:
        return 1.0, min(weight, highest)
    return (weight, 1.0) if weight >= 0.0 else (min(weight / lowest, 1.0), lowest)


def _without_counterpart(given: Mapping[str, Any]) -> list[str]:
    notes = []
    if given.get("combine_embeds", "concat") not in ("concat", "add", "average"):
        notes.append(
            f"combine_embeds {given['combine_embeds']} has no counterpart; images of a batch act by themselves"
        )
    if given.get("embeds_scaling", "V only") != "V only":
        notes.append(f"embeds_scaling {given['embeds_scaling']} has no counterpart; values are scaled")
    if given.get("clip_vision") is not None:
        notes.append("clip_vision is left out: IPAdapter Loader finds the encoder, or takes one from its input encoder")
    return notes


RULES: dict[str, Callable[[Mapping[str, Any], list[str]], Parts]] = {
    "SeamlessTile": seamless_tile,
    "MakeCircularVAE": circular_vae,
    "CircularVAEDecode": circular_decode,
    "OffsetImage": offset_image,
    "NAGGuider": _with_nag("BasicGuider", ("latent_image",)),
    "NAGCFGGuider": _with_nag("CFGGuider", ("latent_image",)),
    "KSamplerWithNAG": _with_nag("KSampler"),
    "KSamplerWithNAG (Advanced)": _with_nag("KSamplerAdvanced"),
    "SamplerCustomWithNAG": _with_nag("SamplerCustom"),
    "IPAdapterModelLoader": model_loader,
    "IPAdapterUnifiedLoader": unified_loader,
    "IPAdapter": apply_adapter,
    "IPAdapterAdvanced": apply_adapter,
}
"""The rule of each class in `packs.PACKS`: its inputs with defaults, and the adapters that are there."""
