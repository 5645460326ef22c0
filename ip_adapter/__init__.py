"""Image prompts: IP-Adapters with any number of images, each with its own scale, type, mask and range of steps.

Where is what, from a file to a step:

* files: `formats` recognises adapters, `encoders` finds what they see images with, `siglip` reads a head that hosts
  leave out, `faces` and `face_lora` what FaceID needs, `saved` references
* before the first step: `prompts` is what users ask for, `features` what encoders see, `projectors` make tokens,
  `reference` keys and values, `known` keeps them; `layers` and `presets` say where they act
* while sampling: `stack` is on the device, `run` lasts a run, `steps` a call; `timed` is what changes in every step
* formulas: `attend` and `joint` attention, `masks` and `areas` where, `norms` by area, `maps` of the effect
* hooks: `apply` and `hooks` in a host's MODEL, `flux` and `sd3` in its blocks; `pipeline` and `network_hooks` in
  diffusers

Examples:
    >>> import tessera.ip_adapter
    >>> tessera.ip_adapter.COMBINES
    ['sum', 'share', 'concat']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attend import COMBINES
    from .faces import Face, read_embedding
    from .formats import Adapter, parse_adapter, read_adapter
    from .layers import Layer, find_layers
    from .pipeline import ImageEncoder, image_prompts, load_adapter
    from .presets import TYPES
    from .prompts import ImagePrompt, LoadedAdapter, make_references
    from .reference import Reference
    from .saved import load_reference

__all__ = [
    "COMBINES",
    "TYPES",
    "Adapter",
    "Face",
    "ImageEncoder",
    "ImagePrompt",
    "Layer",
    "LoadedAdapter",
    "Reference",
    "find_layers",
    "image_prompts",
    "load_adapter",
    "load_reference",
    "make_references",
    "parse_adapter",
    "read_adapter",
    "read_embedding",
]


def __getattr__(name: str) -> Any:
    """Return a public name; its module is imported when the first one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import attend, faces, formats, layers, pipeline, presets, prompts, reference, saved

    modules = (attend, faces, formats, layers, pipeline, presets, prompts, reference, saved)
    return next(vars(module)[name] for module in modules if name in vars(module))
