"""IP-Adapter files, recognised by their weights and not by their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..weights.files import read_weights

Weights = dict[str, Tensor]

PREFIXES = {
    "image_proj.": "image_proj",
    "image_proj_model.": "image_proj",
    "ip_adapter.": "ip_adapter",
    "adapter_modules.": "ip_adapter",
}
KINDS = {
    "base": "image embeddings",
    "plus": "patches",
    "full": "patches",
    "face": "face embeddings",
    "face_plus": "face embeddings and patches",
    "face_raw": "face embeddings that keep their length",
    "pooled": "the pooled output of SigLIP",
    "timed": "patches, anew at each noise level",
}
"""Kinds of projectors, and what of an image they read."""

FACES = ("face", "face_plus", "face_raw")
WHOLE = ("base", "pooled")
"""Kinds that read one vector of an image."""

TIMED = "timed"
"""The kind whose tokens, keys and values change with the noise level: InstantX's for Stable Diffusion 3.5."""

FACE = 512
"""Width of a face embedding."""

_OTHERS = {"redux_up.": "style_models", "lora_up.": "loras", "lora_A.": "loras"}
"""Parts of keys of other files, and the folder where they belong."""

_WIDTHS = {
    "base": "norm.weight",
    "plus": "norm_out.weight",
    "full": "proj.3.weight",
    "face": "norm.weight",
    "pooled": "norm.weight",
    "timed": "norm_out.weight",
    "face_plus": "perceiver_resampler.norm_out.weight",
}
"""A weight of each projector that is as wide as its tokens."""

_DETECT = (
    ("proj.weight", "base"),
    ("proj.3.weight", "full"),
    ("perceiver_resampler.proj_in.weight", "face_plus"),
    ("time_embedding.linear_1.weight", "timed"),
    ("latents", "plus"),
    ("proj.2.weight", "face"),
)
_LAYER = re.compile(r"(\d+)\.to_([kv])_ip\.(weight|bias)")
_XLABS = re.compile(r"double_blocks\.(\d+)\.processor\.ip_adapter_double_stream_([kv])_proj\.(weight|bias)")
_XLABS_PROJECTOR = "ip_adapter_proj_model."
_NORM = re.compile(r"\d+\.norm_(ip\.linear\.(weight|bias)|(q|k|ip_k)\.weight)")
_NORMS = 5
"""Weights of norms that a block of a timed adapter has."""
_LORA = re.compile(r"(\d+)\.to_(q|k|v|out)_lora\.(up|down)\.weight")


@dataclass(frozen=True, eq=False)
class Adapter:
    """The weights of an IP-Adapter for a UNet, for Flux (by XLabs or InstantX), or for Stable Diffusion 3.5.

    Attributes:
        name: for messages.
        kind: a key of KINDS.
        image_proj: the projector's weights.
        layers: key and value weights, both (channels, width), by number N of the layer (1, 3, 5, ...), or of
            a transformer's block (0, 1, 2, ..., in Flux double ones first).
        width: of a token (768 for SD 1.5, 2048 for SDXL, 4096 for Flux, 2432 for SD 3.5).
        tokens: of one image.
        features: width of the image features that the projector reads, 0 when it reads faces alone.
        fingerprint: of these weights, for references that are saved.
        lora: of FaceID files: weights by number of the attention (even: self, odd: cross), "q", "k", "v" or "out", and
            "up" or "down".
        biases: of keys and values (channels,) by number, in XLabs' adapters for Flux.
        made: width of what the projector makes where the model projects it to `width`, as Kolors does; else 0.
        joint: whether it acts on the attention of all blocks of Flux (InstantX), and not behind double ones (XLabs).
        norms: of timed adapters: weights of the norms of tokens, queries and keys, as `N.norm_q.weight`.
    """

    name: str
    kind: str
    image_proj: Weights
    layers: dict[int, tuple[Tensor, Tensor]]
    width: int
    tokens: int
    features: int
    fingerprint: str
    lora: dict[tuple[int, str, str], Tensor] = field(default_factory=dict)
    biases: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    made: int = 0
    joint: bool = False
    norms: Weights = field(default_factory=dict)


def read_adapter(path: str | Path) -> Adapter:
    """Read an IP-Adapter of any projector for SD 1.5, SDXL or a UNet like them, for Flux, or for SD 3.5.

    Args:
        path: `.safetensors`, or a pickle of tensors (`.bin`), of which nothing is executed.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    path = Path(path)
    return parse_adapter(read_weights(path), path.name)


def parse_adapter(weights: Mapping[str, Any], name: str) -> Adapter:
    """Recognise an adapter in weights: flat with prefixes, or nested as `image_proj` and `ip_adapter`.

    Raises:
        ValueError: they are not an adapter, or one for another architecture.
    """
    parts = _parts(_without_xlabs_names(weights))
    _refuse_others(weights, parts, name)
    image_proj, layers = parts["image_proj"], _layers(parts["ip_adapter"], name, "weight")
    biases = _layers(parts["ip_adapter"], name, "bias") if "0.to_k_ip.bias" in parts["ip_adapter"] else {}
    kind = next((kind for key, kind in _DETECT if key in image_proj), None)
    if kind is None:
        raise ValueError(
            f"{name}: the projector has {', '.join(sorted(image_proj)[:3])}, which no known IP-Adapter has; expected "
            "a base, plus, full or FaceID adapter for SD 1.5 or SDXL, or one by XLabs or InstantX for Flux or SD 3.5."
        )
    joint = kind == "face" and 0 in layers
    kind = "pooled" if joint else kind
    first = next(iter(layers.values()))[0]
    width = first.shape[1]
    made = _made(image_proj, _WIDTHS[kind], name)
    if made != width and kind != "face_plus":
        raise ValueError(
            f"{name}: the projector makes tokens of width {made}, but the layers take {width}; the file is damaged or "
            "of an unknown kind."
        )
    tokens, features = _sizes(kind, image_proj, made)
    fingerprint = hashlib.sha256(first.contiguous().float().numpy().tobytes()).hexdigest()[:16]
    if kind == "plus" and features == FACE:
        kind, features = "face_raw", 0
    lora = _lora(parts["ip_adapter"])
    made = 0 if made == width else made
    norms = _norms(parts["ip_adapter"], len(layers), name) if kind == TIMED else {}
    about = width, tokens, features, fingerprint, lora, biases, made, joint, norms
    return Adapter(name, kind, image_proj, layers, *about)


def _norms(weights: Weights, blocks: int, name: str) -> Weights:
    found = {key: tensor for key, tensor in weights.items() if _NORM.fullmatch(key)}
    if len(found) != _NORMS * blocks:
        raise ValueError(
            f"{name}: the IP-Adapter has {len(found)} weights of norms for {blocks} blocks, expected "
            f"{_NORMS * blocks} (norm_ip.linear, norm_q, norm_k and norm_ip_k of each); the file is incomplete."
        )
    return found


def _made(image_proj: Weights, key: str, name: str) -> int:
    """Return the width of the tokens that a projector makes."""
    if key not in image_proj:
        raise ValueError(f"{name}: the projector has no {key}; the file is incomplete, download it again.")
    return image_proj[key].shape[0]


def _parts(weights: Mapping[str, Any]) -> dict[str, Weights]:
    parts: dict[str, Weights] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in weights.items():
        nested = PREFIXES.get(key + ".")
        if isinstance(value, Mapping) and nested:
            parts[nested] |= value
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if isinstance(value, Tensor) and prefix:
            parts[PREFIXES[prefix]][key[len(prefix) :]] = value
    return parts


def _refuse_others(weights: Mapping[str, Any], parts: dict[str, Weights], name: str) -> None:
    if not parts["image_proj"] or not parts["ip_adapter"]:
        found = ", ".join(sorted(map(str, weights))[:3]) or "nothing"
        folder = next((folder for part, folder in _OTHERS.items() if any(part in str(key) for key in weights)), None)
        remedy = f"This one belongs in models/{folder}." if folder else "Put IP-Adapters into models/ipadapter."
        raise ValueError(
            f"{name} is not an IP-Adapter (found keys {found}); expected image_proj and ip_adapter. {remedy}"
        )
    known = {"proj.weight", "proj.2.weight", "time_embedding.linear_1.weight"}
    if "0.to_k_ip.weight" in parts["ip_adapter"] and not known & set(parts["image_proj"]):
        raise ValueError(
            f"{name} is an IP-Adapter for a transformer that is not known here; use one for SD 1.5 or SDXL, or one by "
            "XLabs or InstantX for Flux or SD 3.5."
        )


def _without_xlabs_names(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename weights by XLabs as diffusers does; others keep their names."""
    named = {}
    for key, tensor in weights.items():
        match = _XLABS.fullmatch(key)
        if match:
            key = f"ip_adapter.{match[1]}.to_{match[2]}_ip.{match[3]}"
        elif key.startswith(_XLABS_PROJECTOR):
            key = "image_proj." + key.removeprefix(_XLABS_PROJECTOR)
        named[key] = tensor
    return named


def _layers(weights: Weights, name: str, what: str) -> dict[int, tuple[Tensor, Tensor]]:
    """Pair the weights or biases by number."""
    pairs: dict[int, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        match = _LAYER.fullmatch(key)
        if match and match[3] == what:
            pairs.setdefault(int(match[1]), {})[match[2]] = tensor
    flux = "0.to_k_ip.weight" in weights
    expected = list(range(len(pairs))) if flux else list(range(1, 2 * len(pairs), 2))
    if not pairs or sorted(pairs) != expected or any(len(pair) != 2 for pair in pairs.values()):
        raise ValueError(
            f"{name}: the IP-Adapter has a key and value {what} for attention layers {sorted(pairs)[:4]}..., expected "
            f"them for {'0, 1, 2' if flux else '1, 3, 5'} and so on; the file is incomplete."
        )
    return {number: (pairs[number]["k"], pairs[number]["v"]) for number in expected}


def _lora(weights: Weights) -> dict[tuple[int, str, str], Tensor]:
    matches = {key: _LORA.fullmatch(key) for key in weights}
    return {(int(m[1]), m[2], m[3]): weights[key] for key, m in matches.items() if m}


def _sizes(kind: str, weights: Weights, width: int) -> tuple[int, int]:
    """Return the tokens of an image, and the width of what the projector reads."""
    if kind == "base":
        return weights["proj.weight"].shape[0] // width, weights["proj.weight"].shape[1]
    if kind == "full":
        return 0, weights["proj.0.weight"].shape[1]
    if kind == "pooled":
        return weights["proj.2.weight"].shape[0] // width, weights["proj.0.weight"].shape[1]
    if kind in ("plus", TIMED):
        return weights["latents"].shape[1], weights["proj_in.weight"].shape[1]
    patches = weights["perceiver_resampler.proj_in.weight"].shape[1] if kind == "face_plus" else 0
    return weights["proj.2.weight"].shape[0] // width, patches
