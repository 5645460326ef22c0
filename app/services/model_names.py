"""The family of a model, told by its name."""

from __future__ import annotations

import re

# In this order: the first that is found in the name.
_SIGNS = {
    "flux-pro": r"flux.*pro",
    "flux-schnell": r"schnell|fast-?flux",
    "flux-dev": r"flux",
    "sdxl": r"xl|ssd",
    "sd15": r"sd-?1[._]5|v1[._-]5|sd15|1\.5|^texture-sd$|stable-diffusion-v1",
}


def family_of(*names: str | None) -> str | None:
    """The family that the first telling name tells, a key of FAMILIES or flux-schnell; None where none does.

    >>> family_of(None, "flux.1.1-pro-ultra")
    'flux-pro'
    """
    for name in filter(None, names):
        for family, sign in _SIGNS.items():
            if re.search(sign, name.lower()):
                return family
    return None
