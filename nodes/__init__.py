"""The pack's nodes."""

from __future__ import annotations

from ..contract import io
from .demo import TesseraDemoCheckpoint
from .flux_negative import TesseraFluxNegative
from .offset import TesseraOffsetImage
from .scheduler import TesseraScheduler, TesseraSchedulerCompare, TesseraSchedulerKSampler
from .seam_check import TesseraSeamCheck
from .seamless import TesseraSeamlessModel, TesseraSeamlessVAE

NODES: list[type[io.ComfyNode]] = [
    TesseraDemoCheckpoint,
    TesseraSeamlessModel,
    TesseraSeamlessVAE,
    TesseraSeamCheck,
    TesseraOffsetImage,
    TesseraFluxNegative,
    TesseraScheduler,
    TesseraSchedulerKSampler,
    TesseraSchedulerCompare,
]
