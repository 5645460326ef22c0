"""What models predict, and at which noise levels (drop-in replacement for these parts of `comfy.model_base`)."""

from __future__ import annotations

from enum import Enum
from typing import Any

from ..sampling.model_sampling import (
    CONST,
    EPS,
    IMG_TO_IMG,
    V_PREDICTION,
    X0,
    HasSamplingSettings,
    ModelSamplingDiscrete,
    ModelSamplingDiscreteFlow,
    ModelSamplingFlux,
    Schedule,
)


class ModelType(Enum):
    """What a model predicts and at which noise levels."""

    EPS = 1
    V_PREDICTION = 2
    FLOW = 6
    FLUX = 8
    IMG_TO_IMG = 9
    X0 = 14


_SAMPLING: dict[ModelType, tuple[type[Schedule], type]] = {
    ModelType.EPS: (ModelSamplingDiscrete, EPS),
    ModelType.V_PREDICTION: (ModelSamplingDiscrete, V_PREDICTION),
    ModelType.X0: (ModelSamplingDiscrete, X0),
    ModelType.IMG_TO_IMG: (ModelSamplingDiscrete, IMG_TO_IMG),
    ModelType.FLOW: (ModelSamplingDiscreteFlow, CONST),
    ModelType.FLUX: (ModelSamplingFlux, CONST),
}


def model_sampling(model_config: HasSamplingSettings | None, model_type: ModelType) -> Any:
    """Return the schedule and prediction of a model type, as one object."""
    schedule, prediction = _SAMPLING[model_type]

    class ModelSampling(schedule, prediction):
        pass

    return ModelSampling(model_config)
