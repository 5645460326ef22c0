"""The diffusers schedulers on offer, as data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from . import inject, steppers
from .bridge import Prediction, Space

NEAR_ONE = 1 - 1e-6
"""Largest sigma of a flow: at 1 there is no signal, and rho is infinite."""
WELL_BELOW_ONE = 0.999
"""Largest sigma of a flow where a scheduler subtracts large latents, for which float32 needs this much signal."""


@dataclass(frozen=True)
class SchedulerEntry:
    """One scheduler.

    Attributes:
        name: its class in diffusers.
        family: what kind of method it is.
        inject: how noise levels are written into it.
        space: latents that it works on.
        prediction: prediction that it takes; "model" means that of the network, epsilon or v.
        calls: number of model calls in n steps.
        noise: whether it adds noise in every step.
        spacing: what "auto" means on diffusion models.
        maker: class whose `set_timesteps` makes its noise levels, if not its own.
        config: constructor arguments that differ from diffusers' defaults.
        options: the node's options that apply to it.
        lacks: combination of options that diffusers' class does not implement.
        stepper: how a run is stepped.
        highest: upper bound of the first sigma on flow models (rho diverges at 1).
        cancels: catastrophic cancellation in the first flow step.
        ends_at_x0: whether the last step to zero returns the denoised latents.
        fractional: whether diffusers gives the network timesteps between the trained ones.
        rising: whether noise levels rise, from an image to its noise.
        steps: recommended number of steps, for the docs.
        fewest: (diffusion, flow) steps below which quality degrades.
        warning: a line for the summary.
    """

    name: str
    family: str
    inject: inject.Inject
    space: Space
    prediction: Prediction | Literal["model"] = "sample"
    calls: str = "n"
    noise: bool = False
    spacing: str = "linspace"
    maker: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    lacks: Mapping[str, Any] = field(default_factory=dict)
    stepper: steppers.Stepper = steppers.step
    highest: float = NEAR_ONE
    cancels: bool = False
    ends_at_x0: bool = False
    fractional: bool = False
    rising: bool = False
    steps: str = "20-30"
    fewest: tuple[int, int] = (1, 1)
    warning: str = ""

    @property
    def short(self) -> str:
        """The name without "Scheduler"."""
        return self.name.removesuffix("Scheduler")


ODE, SDE, SINGLESTEP, MULTISTEP = "one step", "stochastic", "singlestep", "multistep"
DISTILLED, INVERSE = "distilled", "inversion"
EULER = "EulerDiscreteScheduler"
DPM_SOLVER = ("solver_order", "solver_type", "algorithm_type")

ENTRIES: tuple[SchedulerEntry, ...] = (
    SchedulerEntry(
        "DDPMScheduler", SDE, inject.table, "vp", noise=True, spacing="leading", steps="50-200", fewest=(20, 20)
    ),
    SchedulerEntry("DDIMScheduler", ODE, inject.table, "vp", spacing="leading", options=("eta",), steps="30-50"),
    SchedulerEntry(
        "PNDMScheduler",
        MULTISTEP,
        inject.pndm,
        "vp",
        prediction="model",
        calls="n + 1",
        spacing="leading",
        config={"skip_prk_steps": True},
        highest=WELL_BELOW_ONE,
        cancels=True,
        fewest=(12, 12),
    ),
    SchedulerEntry("LMSDiscreteScheduler", MULTISTEP, inject.sigma_list, "model", fractional=True, fewest=(1, 12)),
    SchedulerEntry("EulerDiscreteScheduler", ODE, inject.sigma_list, "model", fractional=True),
    SchedulerEntry(
        "EulerAncestralDiscreteScheduler",
        SDE,
        inject.ancestral,
        "ve",
        prediction="epsilon",
        noise=True,
        highest=WELL_BELOW_ONE,
        fractional=True,
    ),
    SchedulerEntry(
        "DPMSolverMultistepScheduler", MULTISTEP, inject.sigma_list, "vp", options=DPM_SOLVER, steps="15-25"
    ),
    SchedulerEntry("HeunDiscreteScheduler", ODE, inject.heun, "model", calls="2n - 1", fractional=True, steps="10-20"),
    SchedulerEntry(
        "KDPM2DiscreteScheduler",
        ODE,
        inject.kdpm2,
        "model",
        prediction="epsilon",
        # The levels are the same; its own constructor spends a second on a table that is not used here.
        maker=EULER,
        config={"num_train_timesteps": 2},
        calls="2n - 1",
        fractional=True,
        steps="10-20",
    ),
    SchedulerEntry(
        "DPMSolverSinglestepScheduler",
        SINGLESTEP,
        inject.singlestep,
        "vp",
        maker="DPMSolverMultistepScheduler",
        options=DPM_SOLVER,
        config={"lower_order_final": True},
        steps="15-25",
    ),
    SchedulerEntry(
        "KDPM2AncestralDiscreteScheduler",
        SDE,
        inject.kdpm2_ancestral,
        "ve",
        prediction="epsilon",
        # The levels are the same; its own constructor spends a second on a table that is not used here.
        maker=EULER,
        config={"num_train_timesteps": 2},
        calls="2n - 1",
        noise=True,
        highest=WELL_BELOW_ONE,
        fractional=True,
        steps="10-25",
    ),
    SchedulerEntry(
        "UniPCMultistepScheduler", MULTISTEP, inject.sigma_list, "vp", options=("solver_order",), steps="10-25"
    ),
    SchedulerEntry(
        "DDIMInverseScheduler",
        INVERSE,
        inject.inverse,
        "vp",
        prediction="model",
        spacing="leading",
        maker="DDIMScheduler",
        highest=WELL_BELOW_ONE,
        rising=True,
        steps="50-200",
        warning="It turns an image into its noise: add no noise, and give it the latents of an image.",
    ),
    SchedulerEntry(
        "DEISMultistepScheduler",
        MULTISTEP,
        inject.sigma_list,
        "vp",
        options=("solver_order",),
        highest=WELL_BELOW_ONE,
        ends_at_x0=True,
        steps="15-25",
    ),
    SchedulerEntry(
        "IPNDMScheduler",
        MULTISTEP,
        inject.alphas_betas,
        "vp",
        prediction="v_prediction",
        spacing="trailing",
        maker=EULER,
        highest=WELL_BELOW_ONE,
        cancels=True,
        fewest=(12, 12),
    ),
    SchedulerEntry(
        "KarrasVeScheduler",
        SDE,
        inject.sigma_list,
        "ve",
        calls="2n - 1",
        noise=True,
        spacing="karras",
        maker=EULER,
        stepper=steppers.karras_ve,
        highest=WELL_BELOW_ONE,
        steps="25-50",
        fewest=(1, 20),
        warning="It calls the model twice a step.",
    ),
    SchedulerEntry(
        "ScoreSdeVeScheduler",
        SDE,
        inject.sigma_list,
        "ve",
        calls="2n",
        noise=True,
        spacing="exponential",
        maker=EULER,
        stepper=steppers.score_sde_ve,
        highest=WELL_BELOW_ONE,
        steps="200",
        fewest=(50, 50),
        warning="It calls the model twice a step.",
    ),
    SchedulerEntry(
        "LCMScheduler",
        DISTILLED,
        inject.lcm,
        "vp",
        noise=True,
        spacing="own",
        maker="DDIMScheduler",
        options=("original_inference_steps",),
        steps="4-8",
        warning="It needs a model or LoRA distilled for it (LCM); others draw smooth, empty images.",
    ),
    # More than the eighteen that hosted services offer.
    SchedulerEntry(
        "FlowMatchEulerDiscreteScheduler", ODE, inject.sigma_list, "model", prediction="epsilon", maker=EULER
    ),
    SchedulerEntry(
        "FlowMatchHeunDiscreteScheduler",
        ODE,
        inject.heun,
        "model",
        prediction="epsilon",
        calls="2n - 1",
        maker=EULER,
        steps="10-20",
    ),
    SchedulerEntry(
        "EDMEulerScheduler",
        ODE,
        inject.sigma_list,
        "ve",
        prediction="v_prediction",
        spacing="karras",
        maker=EULER,
        config={"sigma_data": 1.0},
        highest=WELL_BELOW_ONE,
        fractional=True,
    ),
    SchedulerEntry(
        "EDMDPMSolverMultistepScheduler",
        MULTISTEP,
        inject.sigma_list,
        "ve",
        prediction="v_prediction",
        spacing="karras",
        maker=EULER,
        config={"sigma_data": 1.0},
        options=DPM_SOLVER,
        lacks={"solver_order": 3, "algorithm_type": "sde-dpmsolver++"},
        highest=WELL_BELOW_ONE,
        steps="15-25",
    ),
    SchedulerEntry(
        "SASolverScheduler",
        SDE,
        inject.sigma_list,
        "vp",
        noise=True,
        highest=WELL_BELOW_ONE,
        ends_at_x0=True,
    ),
    SchedulerEntry(
        "DPMSolverSDEScheduler",
        SDE,
        inject.dpm_sde,
        "ve",
        prediction="epsilon",
        calls="2n - 1",
        noise=True,
        maker=EULER,
        config={"num_train_timesteps": 2},
        highest=WELL_BELOW_ONE,
        fractional=True,
        steps="10-25",
        warning="Its noise is drawn on the model's device: other devices draw other images.",
    ),
    SchedulerEntry(
        "TCDScheduler",
        DISTILLED,
        inject.nearest,
        "vp",
        noise=True,
        spacing="own",
        maker="DDIMScheduler",
        options=("eta", "original_inference_steps"),
        ends_at_x0=True,
        steps="4-8",
        warning="It needs a model or LoRA distilled for it (TCD); others draw smooth, empty images.",
    ),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}
NAMES = list(BY_NAME)


def find(name: str) -> SchedulerEntry:
    """Find a scheduler by name, with or without "Scheduler".

    Raises:
        ValueError: the name is unknown; the message offers the nearest ones.
    """
    for known in (name, f"{name}Scheduler"):
        if known in BY_NAME:
            return BY_NAME[known]
    short = {entry.short.lower(): entry.name for entry in ENTRIES}
    near = difflib.get_close_matches(name.removesuffix("Scheduler").lower(), short, n=3, cutoff=0.3)
    offered = ", ".join(short[match] for match in near) or ", ".join(NAMES)
    raise ValueError(f"There is no scheduler {name!r}; did you mean one of: {offered}?")
