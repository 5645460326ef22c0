"""The family of a model, recognised by its name."""

from __future__ import annotations

import re

LEONARDO_MODELS = {
    "de7d3faf-762f-48e0-b3b7-9d0ac3a3fcf3": "phoenix",
    "6b645e3a-d64f-4341-a6d8-7a3690fbf042": "phoenix",
    "b2614463-296c-462a-9586-aafdb8f00e36": "flux-dev",
    "1dd50843-d653-4516-a8e3-f0238ee453ff": "flux-schnell",
    "aa77f04e-3eec-4034-9c07-d0f619684628": "sdxl",
    "b24e16ff-06e3-43eb-8d33-4416c2d75876": "sdxl",
    "5c232a9e-9061-4777-980a-ddc8e65647c6": "sdxl",
    "1e60896f-3c26-4296-8ecc-53e2afecc132": "sdxl",
    "e71a1c2f-4f80-4800-934f-2c68979d8cc8": "sdxl",
    "16e7060a-803e-4df3-97ee-edcfa5dc9cc8": "sdxl",
    "2067ae52-33fd-4a82-bb92-c2c55e7d2786": "sdxl",
    "b63f7119-31dc-4540-969b-2a9df997e173": "sdxl",
}
"""Families of Leonardo's public models: Phoenix 1.0 and 0.9, Flux Dev, Flux Schnell, Kino XL, Lightning XL, Vision XL,
Diffusion XL, Anime XL, SDXL 1.0, AlbedoBase XL and SDXL 0.9, as on its page "Legacy generation"."""

# In this order: the first that is found in the name.
_SIGNS = {
    "phoenix": r"phoenix",
    "flux-pro": r"flux.*pro",
    "flux-schnell": r"schnell|fast-?flux",
    "flux-dev": r"flux",
    "sdxl": r"xl|ssd",
    "sd15": r"sd-?1[._]5|v1[._-]5|sd15|1\.5|^texture-sd$|stable-diffusion-v1",
}


def family_of(*names: str | None) -> str | None:
    """The family that the first telling name tells, a key of FAMILIES, flux-schnell or phoenix; None where none does.

    >>> family_of(None, "flux.1.1-pro-ultra")
    'flux-pro'
    """
    for name in filter(None, names):
        if name.strip().lower() in LEONARDO_MODELS:
            return LEONARDO_MODELS[name.strip().lower()]
        for family, sign in _SIGNS.items():
            if re.search(sign, name.lower()):
                return family
    return None
