"""The nodes of other packs that can be replaced, in the shape of ComfyUI's /object_info: files are read by it."""

from __future__ import annotations

from typing import Any

SWITCH = ["enable", "x_only", "y_only", "disable"]
COPY = ["Make a copy", "Modify in place"]
NAG: dict[str, Any] = {"nag_scale": 5.0, "nag_tau": 2.5, "nag_alpha": 0.25, "nag_sigma_end": 0.0}
SEED = ("INT", {"default": 0, "control_after_generate": True})
WEIGHT_TYPES = [
    "linear",
    "ease in",
    "ease out",
    "ease in-out",
    "reverse in-out",
    "weak input",
    "weak output",
    "weak middle",
    "strong middle",
    "style transfer",
    "composition",
    "strong style transfer",
    "style and composition",
    "style transfer precise",
    "composition precise",
]


def _entry(outputs: str, optional: tuple[str, ...] = (), **inputs: Any) -> dict[str, Any]:
    """Make an entry: types are upper-case words, choices are lists, and numbers, text and truth are defaults."""
    specs = {name: _spec(value) for name, value in inputs.items()}
    kinds = {"required": {k: v for k, v in specs.items() if k not in optional}}
    kinds |= {"optional": {k: v for k, v in specs.items() if k in optional}}
    types = outputs.split()
    return {"input": kinds, "output": types, "output_name": types, "output_node": False, "display_name": None}


def _spec(value: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, list):
        return "COMBO", {"options": value, "default": value[0]}
    if isinstance(value, str) and value.isupper():
        return value, {}
    kinds = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
    return kinds[type(value)], {"default": value}


PACKS: dict[str, dict[str, Any]] = {
    # ComfyUI-seamless-tiling
    "SeamlessTile": _entry("MODEL", model="MODEL", tiling=SWITCH, copy_model=COPY),
    "MakeCircularVAE": _entry("VAE", vae="VAE", tiling=SWITCH, copy_vae=COPY),
    "CircularVAEDecode": _entry("IMAGE", samples="LATENT", vae="VAE", tiling=SWITCH),
    "OffsetImage": _entry("IMAGE", pixels="IMAGE", x_percent=50.0, y_percent=50.0),
    # ComfyUI-NAG
    "NAGGuider": _entry(
        "GUIDER",
        model="MODEL",
        conditioning="CONDITIONING",
        nag_negative="CONDITIONING",
        **NAG,
        latent_image="LATENT",
    ),
    "NAGCFGGuider": _entry(
        "GUIDER",
        model="MODEL",
        positive="CONDITIONING",
        negative="CONDITIONING",
        nag_negative="CONDITIONING",
        cfg=1.0,
        **NAG,
        latent_image="LATENT",
    ),
    "KSamplerWithNAG": _entry(
        "LATENT",
        model="MODEL",
        seed=SEED,
        steps=20,
        cfg=8.0,
        **NAG,
        sampler_name=("COMBO", {"options": []}),
        scheduler=("COMBO", {"options": []}),
        positive="CONDITIONING",
        negative="CONDITIONING",
        nag_negative="CONDITIONING",
        latent_image="LATENT",
        denoise=1.0,
    ),
    "KSamplerWithNAG (Advanced)": _entry(
        "LATENT",
        model="MODEL",
        add_noise=["enable", "disable"],
        noise_seed=SEED,
        steps=20,
        cfg=8.0,
        **NAG,
        sampler_name=("COMBO", {"options": []}),
        scheduler=("COMBO", {"options": []}),
        positive="CONDITIONING",
        negative="CONDITIONING",
        nag_negative="CONDITIONING",
        latent_image="LATENT",
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise=["disable", "enable"],
    ),
    "SamplerCustomWithNAG": _entry(
        "LATENT LATENT",
        model="MODEL",
        add_noise=True,
        noise_seed=SEED,
        cfg=8.0,
        **NAG,
        positive="CONDITIONING",
        negative="CONDITIONING",
        nag_negative="CONDITIONING",
        sampler="SAMPLER",
        sigmas="SIGMAS",
        latent_image="LATENT",
    ),
    # ComfyUI_IPAdapter_plus
    "IPAdapterModelLoader": _entry("IPADAPTER", ipadapter_file=("COMBO", {"options": []})),
    "IPAdapterUnifiedLoader": _entry(
        "MODEL IPADAPTER",
        ("ipadapter",),
        model="MODEL",
        preset=("COMBO", {"options": [], "default": "STANDARD (medium strength)"}),
        ipadapter="IPADAPTER",
    ),
    "IPAdapter": _entry(
        "MODEL",
        ("attn_mask",),
        model="MODEL",
        ipadapter="IPADAPTER",
        image="IMAGE",
        weight=1.0,
        start_at=0.0,
        end_at=1.0,
        weight_type=["standard", "prompt is more important", "style transfer"],
        attn_mask="MASK",
    ),
    "IPAdapterAdvanced": _entry(
        "MODEL",
        ("image_negative", "attn_mask", "clip_vision"),
        model="MODEL",
        ipadapter="IPADAPTER",
        image="IMAGE",
        weight=1.0,
        weight_type=WEIGHT_TYPES,
        combine_embeds=["concat", "add", "subtract", "average", "norm average"],
        start_at=0.0,
        end_at=1.0,
        embeds_scaling=["V only", "K+V", "K+V w/ C penalty", "K+mean(V) w/ C penalty"],
        image_negative="IMAGE",
        attn_mask="MASK",
        clip_vision="CLIP_VISION",
    ),
}
"""By the id of the class, with the inputs in the packs' own order: widget values are saved by position."""
