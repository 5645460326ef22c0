"""Calls of a host that wrappers surround, with their arguments by name.

A host hands a wrapper `(executor, *arguments)`, in an order of its own for each kind of call. `read` gives them names,
and `proceed` goes on with the call, with other arguments where some are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from .networks import Network, describe
from .schedule import LEVELS, KnownLevels, PercentToSigma

Kind = TypeVar("Kind", bound="Call")
Options = dict[str, Any]
"""A host's transformer options: they reach every patch, and what a wrapper writes there lasts as long as the run."""

WHOLE_TOKENS = "tessera_whole_tokens"
"""Option of a run: something in it belongs to whole tokens, so that the image must not be moved by parts of one."""

LESS_MEMORY = "tessera_less_memory"
"""Option of a run: what would take less memory, for whoever says that it ran out; a phrase that goes on a sentence."""


@dataclass(frozen=True)
class Call:
    """A wrapped call.

    Attributes:
        executor: goes on with the call.
        arguments: of the call, by name.
        unnamed: arguments of a newer host behind those that have a name here.
    """

    executor: Any
    arguments: Mapping[str, Any]
    unnamed: tuple[Any, ...] = ()

    kind: ClassVar[str]
    """The host's name of this kind of wrapper."""
    positional: ClassVar[tuple[str, ...]]
    """Names of the arguments that hosts give by position, in their order."""

    @classmethod
    def read(cls: type[Kind], executor: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> Kind:
        """Give the arguments of a wrapper their names."""
        named = {**dict(zip(cls.positional, positional, strict=False)), **named}
        return cls(executor, named, tuple(positional[len(cls.positional) :]))

    @property
    def options(self) -> Options:
        """Transformer options."""
        raise NotImplementedError

    @property
    def levels(self) -> KnownLevels:
        """Noise levels of the run that the host has read; outside of a run none."""
        return self.options.get(LEVELS) or KnownLevels()

    def proceed(self, **changes: Any) -> Any:
        """Go on with the call; `changes` replace arguments, by the host's names."""
        given = {**self.arguments, **changes}
        first = [name for name in self.positional if name in given]
        # Up to the first argument that was left out; what comes after it keeps its name.
        first = [name for place, name in enumerate(first) if self.positional[place] == name]
        named = {name: value for name, value in given.items() if name not in first}
        return self.executor(*(given[name] for name in first), *self.unnamed, **named)


class SamplingRun(Call):
    """OUTER_SAMPLE: a whole run of a sampler."""

    kind = "outer_sample"
    positional = (
        "noise",
        "latent_image",
        "sampler",
        "sigmas",
        "denoise_mask",
        "callback",
        "disable_pbar",
        "seed",
        "latent_shapes",
    )

    @property
    def guider(self) -> Any:
        """The host's guider."""
        return self.executor.class_obj

    @property
    def model(self) -> Any:
        """The host's MODEL."""
        return self.guider.model_patcher

    @property
    def network(self) -> Network:
        """The model's network."""
        return describe(self.model)

    @property
    def options(self) -> Options:
        """The run's transformer options."""
        return self.guider.model_options["transformer_options"]

    @property
    def noise(self) -> Tensor:
        """The noise (B, C, H, W), in the shape of the latents."""
        return self.arguments["noise"]

    @property
    def sigmas(self) -> Tensor:
        """Noise levels (steps + 1,)."""
        return self.arguments.get("sigmas", ())

    @property
    def seed(self) -> int | None:
        """The random seed."""
        return self.arguments.get("seed")

    @property
    def percent_to_sigma(self) -> PercentToSigma:
        """Of the model."""
        return self.model.get_model_object("model_sampling").percent_to_sigma

    @property
    def conditionings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each conditioning of the run, with the name under which the guider holds it."""
        return ((name, cond) for name, conds in self.guider.conds.items() for cond in conds or ())

    def add_conditioning(self, name: str, conds: list[dict[str, Any]]) -> None:
        """Let the host prepare another conditioning with its own."""
        self.guider.conds = {**self.guider.conds, name: conds}


class CondBatch(Call):
    """CALC_COND_BATCH: the predictions of all conditionings at one step. Control networks run inside."""

    kind = "calc_cond_batch"
    positional = ("model", "conds", "x_in", "timestep", "model_options")

    @property
    def x(self) -> Tensor:
        """Latents (B, C, H, W)."""
        return self.arguments["x_in"]

    @property
    def sigma(self) -> Tensor:
        """Noise levels (B,)."""
        return self.arguments["timestep"]

    @property
    def level(self) -> float:
        """The highest of them, on the host."""
        return self.levels.highest(self.sigma)

    @property
    def options(self) -> Options:
        """The run's transformer options."""
        return self.arguments["model_options"]["transformer_options"]

    @property
    def percent_to_sigma(self) -> PercentToSigma:
        """Of the model."""
        return self.arguments["model"].model_sampling.percent_to_sigma

    @property
    def numbered(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The conditionings of each number (0 positive, 1 negative, as guiders order them), where there are any."""
        return ((number, group) for number, group in enumerate(self.arguments["conds"]) if group)

    @property
    def conditionings(self) -> Iterator[dict[str, Any]]:
        """Each conditioning."""
        return (cond for group in self.arguments["conds"] for cond in group or ())


class DenoiserCall(Call):
    """APPLY_MODEL: one call of the denoiser, for some of the conditionings."""

    kind = "apply_model"
    positional = ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options")

    @property
    def x(self) -> Tensor:
        """Latents (B, C, H, W)."""
        return self.arguments["x"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the latents."""
        return self.x.shape[-2], self.x.shape[-1]

    @property
    def sigma(self) -> Tensor:
        """Noise levels (B,)."""
        return self.arguments["t"]

    @property
    def level(self) -> float:
        """The highest of them, on the host; every call of a prediction has the same."""
        return self.levels.highest(self.options.get("sigmas", self.sigma))

    @property
    def timestep(self) -> Tensor:
        """The timestep (1,) that the denoiser reads; every sample of a call has the same."""
        return self.executor.class_obj.model_sampling.timestep(self.sigma[:1]).float()

    @property
    def control(self) -> dict[str, list[Tensor | None]] | None:
        """What control networks add to the layers."""
        return self.arguments.get("control")

    @property
    def reference_latents(self) -> list[Tensor]:
        """Latents of reference images that come along."""
        return self.arguments.get("ref_latents") or []

    @property
    def options(self) -> Options:
        """The call's transformer options."""
        return self.arguments["transformer_options"]

    @property
    def sigmas(self) -> Tensor | None:
        """Noise levels of the run (steps + 1,), where the host tells them."""
        return self.options.get("sample_sigmas")

    @property
    def network(self) -> Network:
        """The denoiser."""
        return Network(self.module, self.x.shape[1])

    @property
    def module(self) -> nn.Module:
        """The denoiser's module."""
        return self.executor.class_obj.diffusion_model

    @property
    def percent_to_sigma(self) -> PercentToSigma:
        """Of the model."""
        return self.executor.class_obj.model_sampling.percent_to_sigma

    @property
    def conditioning_ids(self) -> list[tuple[int, Any]]:
        """For each conditioning in the batch its number (0 positive, 1 negative) and its identity, None if untold."""
        numbers = self.options.get("cond_or_uncond") or [0]
        return list(zip(numbers, self.options.get("uuids") or [None] * len(numbers), strict=True))

    def proceed_with(self, options: Options) -> Tensor:
        """Go on with other transformer options."""
        return self.proceed(transformer_options=options)


class NoisePrediction(Call):
    """PREDICT_NOISE: the guided prediction of one step; `proceed` returns x0 (B, C, H, W)."""

    kind = "predict_noise"
    positional = ("x", "timestep", "model_options", "seed")

    @property
    def sigma(self) -> Tensor:
        """Noise levels (B,)."""
        return self.arguments["timestep"]

    @property
    def level(self) -> float:
        """The highest of them, on the host."""
        return self.levels.highest(self.sigma)

    @property
    def options(self) -> Options:
        """The run's transformer options."""
        return self.arguments["model_options"]["transformer_options"]

    @property
    def percent_to_sigma(self) -> PercentToSigma:
        """Of the model."""
        return self.executor.class_obj.inner_model.model_sampling.percent_to_sigma

    def conditioning(self, name: str) -> list[dict[str, Any]]:
        """Return a conditioning of the guider, prepared for the run."""
        return self.executor.class_obj.conds[name]

    def predict(self, conds: list[dict[str, Any]], calculate: Any) -> Tensor:
        """Return the prediction x0 (B, C, H, W) of a conditioning. calculate: the host's `calc_cond_batch`."""
        given = self.arguments
        model = self.executor.class_obj.inner_model
        return calculate(model, [None, conds], given["x"], given["timestep"], given["model_options"])[1]


class FluxCall(Call):
    """DIFFUSION_MODEL of Flux: one call of its transformer."""

    kind = "diffusion_model"
    positional = ("x", "timestep", "context", "y", "guidance", "ref_latents", "control", "transformer_options")

    @property
    def context(self) -> Tensor:
        """The text's tokens (B, L, D)."""
        return self.arguments["context"]

    @property
    def options(self) -> Options:
        """The call's transformer options."""
        return self.arguments["transformer_options"]

    @property
    def network(self) -> Network:
        """The transformer."""
        return Network(self.executor.class_obj, self.arguments["x"].shape[1])

    def proceed_with(self, options: Options, **changes: Any) -> Tensor:
        """Go on with other transformer options, and other arguments."""
        return self.proceed(transformer_options=options, **changes)

    def rows_of(self, number: int) -> list[int]:
        """Return which samples of the batch belong to conditionings of a number (0 positive, 1 negative)."""
        numbers, count = self.options["cond_or_uncond"], len(self.arguments["x"])
        each = count // len(numbers)
        return [row for row in range(count) if numbers[row // each] == number]
