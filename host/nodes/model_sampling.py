"""ComfyUI's core nodes that change what a model predicts and at which noise levels."""

from __future__ import annotations

from typing import Any

from ..sampling import model_sampling as sampling_kinds
from ..sampling.k_diffusion import SAMPLERS
from ..sampling.samplers import KSAMPLER, Sampler
from ..schema import io
from ..schema.declare import Nodes, choice, decimal, heed, switch

NODES = Nodes("model/patch")
PREDICTIONS = {
    "eps": (sampling_kinds.ModelSamplingDiscrete, sampling_kinds.EPS),
    "v_prediction": (sampling_kinds.ModelSamplingDiscrete, sampling_kinds.V_PREDICTION),
    "lcm": (sampling_kinds.ModelSamplingDiscreteDistilled, sampling_kinds.LCM),
    "x0": (sampling_kinds.ModelSamplingDiscrete, sampling_kinds.X0),
}
ELSEWHERE = ["img_to_img", "img_to_img_flow"]
"""Predictions of video and upscaling models, which need ComfyUI."""


def with_sampling(model: Any, schedule: type, prediction: type, **settings: Any) -> Any:
    """Return a clone of a model with another schedule and prediction."""
    kind = type("ModelSampling", (schedule, prediction), {})
    patched = model.clone()
    patched.add_object_patch("model_sampling", kind(model.model.model_config, **settings))
    return patched


def known_prediction(sampling: str | None) -> bool | str:
    """Return whether models with a prediction run here, or what to do; a linked one is None."""
    if sampling is None or sampling in PREDICTIONS:
        return True
    known = ", ".join(PREDICTIONS)
    return f"sampling {sampling} is not supported here, expected one of {known}; run it in ComfyUI (--engine)"


@NODES(
    "ModelSamplingDiscrete",
    "ModelSamplingDiscrete",
    [
        io.Model.Input("model"),
        choice("sampling", [*PREDICTIONS, *ELSEWHERE], tooltip="What the model predicts."),
        switch("zsnr", False, advanced=True, tooltip="Whether it was trained without signal in the first step."),
    ],
    [io.Model],
    validate=known_prediction,
)
def discrete(model: Any, sampling: str, zsnr: bool) -> Any:
    """Set what a Stable Diffusion model predicts."""
    heed(known_prediction(sampling))
    return with_sampling(model, *PREDICTIONS[sampling], zsnr=zsnr)


def shifted(model: Any, shift: float, multiplier: float) -> Any:
    """Return a clone of a flow model whose noise levels are shifted by a ratio."""
    patched = with_sampling(model, sampling_kinds.ModelSamplingDiscreteFlow, sampling_kinds.CONST)
    patched.get_model_object("model_sampling").set_parameters(shift=shift, multiplier=multiplier)
    return patched


def _shift(default: float) -> io.Float.Input:
    return decimal("shift", default, 0.0, 100.0, tooltip="Higher gives high noise more steps; larger images want more.")


@NODES(
    "ModelSamplingSD3",
    "ModelSamplingSD3",
    [io.Model.Input("model"), _shift(3.0)],
    [io.Model],
    "model/patch/stable diffusion",
)
def shift_sd3(model: Any, shift: float) -> Any:
    """Shift the noise levels of a flow model that counts time to 1000."""
    return shifted(model, shift, 1000)


@NODES("ModelSamplingAuraFlow", "ModelSamplingAuraFlow", [io.Model.Input("model"), _shift(1.73)], [io.Model])
def shift_aura_flow(model: Any, shift: float) -> Any:
    """Shift the noise levels of a flow model that counts time to 1."""
    return shifted(model, shift, 1.0)


def _amount(name: str, tooltip: str) -> io.Float.Input:
    return decimal(name, 1.0, 0.0, 100.0, round=False, advanced=True, tooltip=tooltip)


@NODES(
    "SamplerEulerAncestral",
    "SamplerEulerAncestral",
    [_amount("eta", "How much of the noise is new; 0 is none."), _amount("s_noise", "Factor of new noise.")],
    [io.Sampler],
    "model/sampling/samplers",
)
def euler_ancestral(eta: float, s_noise: float) -> Sampler:
    """Make Euler steps that add new noise."""
    return KSAMPLER(SAMPLERS["euler_ancestral"], {"eta": eta, "s_noise": s_noise})
