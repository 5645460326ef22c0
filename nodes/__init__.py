"""The pack's nodes."""

from __future__ import annotations

from ..contract import io
from .offset import TesseraOffsetImage
from .seam_check import TesseraSeamCheck
from .seamless import TesseraSeamlessModel, TesseraSeamlessVAE

NODES: list[type[io.ComfyNode]] = [
    TesseraSeamlessModel,
    TesseraSeamlessVAE,
    TesseraSeamCheck,
    TesseraOffsetImage,
]
