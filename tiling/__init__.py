"""Textures that repeat: periodic networks, and images padded, measured and made to repeat on a torus.

Examples:
    >>> import tessera
    >>> tessera.tiling.edges_that_meet(tessera.tiling.TILINGS["horizontal"])
    'left-right edges meet'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .axes import REPEATS, TILINGS, Axes, edges_that_meet
    from .circular import NotPeriodicError
    from .maps import heights, normals, occlusion
    from .pipeline import seamless
    from .roll import offset
    from .seam import heat_map, measure, repeat, report
    from .tileable import make_tileable
    from .torus import torus_angles
    from .vae import seamless_vae
    from .wrap import crop, margins, pad

__all__ = [
    "REPEATS",
    "TILINGS",
    "Axes",
    "NotPeriodicError",
    "crop",
    "edges_that_meet",
    "heat_map",
    "heights",
    "make_tileable",
    "margins",
    "measure",
    "normals",
    "occlusion",
    "offset",
    "pad",
    "repeat",
    "report",
    "seamless",
    "seamless_vae",
    "torus_angles",
]


def __getattr__(name: str) -> Any:
    """Return a public name; its module is imported when the first one is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import axes, circular, maps, pipeline, roll, seam, tileable, torus, vae, wrap

    modules = (axes, circular, maps, pipeline, roll, seam, tileable, torus, vae, wrap)
    return next(vars(module)[name] for module in modules if name in vars(module))
