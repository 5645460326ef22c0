"""The pack's nodes."""

from __future__ import annotations

from ..contract import io
from .compare_images import TesseraCompareImages
from .control_image import TesseraControlImage
from .cut_out import TesseraCutOut
from .demo import TesseraDemoCheckpoint
from .enhance_prompt import TesseraEnhancePrompt
from .flux_negative import TesseraFluxNegative
from .image_prompts import TesseraApplyImagePrompts, TesseraImagePrompt, TesseraLoadIPAdapter
from .make_tileable import TesseraMakeTileable
from .maps import TesseraAmbientOcclusion, TesseraHeightToNormal, TesseraNormalToHeight
from .offset import TesseraOffsetImage
from .references import TesseraLoadReference, TesseraReferenceMap, TesseraSaveReference
from .safety import TesseraSafetyFilter
from .save import TesseraSaveImage
from .scheduler import TesseraScheduler, TesseraSchedulerCompare, TesseraSchedulerKSampler
from .seam_check import TesseraSeamCheck
from .seamless import TesseraSeamlessModel, TesseraSeamlessVAE
from .second_pass import TesseraSecondPass
from .seeds import TesseraSeeds
from .settings import TesseraSettings
from .steps import TesseraSampleSteps
from .style_preset import TesseraStylePreset
from .unzoom import TesseraUnzoom
from .wrap import TesseraWrapCrop, TesseraWrapPad

NODES: list[type[io.ComfyNode]] = [
    TesseraDemoCheckpoint,
    TesseraSeamlessModel,
    TesseraSeamlessVAE,
    TesseraSeamCheck,
    TesseraOffsetImage,
    TesseraWrapPad,
    TesseraWrapCrop,
    TesseraMakeTileable,
    TesseraScheduler,
    TesseraSchedulerKSampler,
    TesseraSchedulerCompare,
    TesseraFluxNegative,
    TesseraSeeds,
    TesseraSaveImage,
    TesseraSettings,
    TesseraLoadIPAdapter,
    TesseraImagePrompt,
    TesseraApplyImagePrompts,
    TesseraSaveReference,
    TesseraLoadReference,
    TesseraReferenceMap,
    TesseraHeightToNormal,
    TesseraNormalToHeight,
    TesseraAmbientOcclusion,
    TesseraSafetyFilter,
    TesseraSampleSteps,
    TesseraCutOut,
    TesseraEnhancePrompt,
    TesseraCompareImages,
    TesseraStylePreset,
    TesseraUnzoom,
    TesseraSecondPass,
    TesseraControlImage,
]
