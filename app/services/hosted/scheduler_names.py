"""The schedulers' names in the services, and the diffusers class of each."""

from __future__ import annotations

from typing import Literal, get_args

DiffusersName = Literal[
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DDIMInverseScheduler",
    "DEISMultistepScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "ScoreSdeVeScheduler",
    "LCMScheduler",
]
DIFFUSERS: tuple[str, ...] = get_args(DiffusersName)

# Leonardo's list is in its public SDK, not in the page; LEONARDO is its own, close to nothing that is public.
LEONARDO = {
    "KLMS": "LMSDiscreteScheduler",
    "EULER_ANCESTRAL_DISCRETE": "EulerAncestralDiscreteScheduler",
    "EULER_DISCRETE": "EulerDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "DPM_SOLVER": "DPMSolverMultistepScheduler",
    "PNDM": "PNDMScheduler",
    "LEONARDO": "DPMSolverMultistepScheduler",
}

# OctoAI's page names none; these are what its clients sent.
OCTOAI = {
    "PNDM": "PNDMScheduler",
    "LMS": "LMSDiscreteScheduler",
    "KLMS": "LMSDiscreteScheduler",
    "DDIM": "DDIMScheduler",
    "DDPM": "DDPMScheduler",
    "HEUN": "HeunDiscreteScheduler",
    "K_HEUN": "HeunDiscreteScheduler",
    "K_EULER": "EulerDiscreteScheduler",
    "K_EULER_ANCESTRAL": "EulerAncestralDiscreteScheduler",
    "DPM_SOLVER_MULTISTEP": "DPMSolverMultistepScheduler",
    "DPM_PLUS_PLUS_2M_KARRAS": "DPMSolverMultistepScheduler",
    "DPM_PLUS_PLUS_SDE_KARRAS": "DPMSolverSinglestepScheduler",
    "DPM_SINGLE": "DPMSolverSinglestepScheduler",
    "DPM_2": "KDPM2DiscreteScheduler",
    "DPM_2_ANCESTRAL": "KDPM2AncestralDiscreteScheduler",
    "UNI_PC": "UniPCMultistepScheduler",
    "LCM": "LCMScheduler",
}

# Every service takes diffusers' own names beside its own.
SCHEDULERS = {name: name for name in DIFFUSERS} | OCTOAI | LEONARDO
KARRAS = {"KLMS", "K_HEUN", "DPM_PLUS_PLUS_2M_KARRAS", "DPM_PLUS_PLUS_SDE_KARRAS"}
