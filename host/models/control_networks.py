"""Control networks attached to conditionings (drop-in replacement for `comfy.controlnet`).

A control network reads an image (edges, depth, a pose) beside the latents and adds to the denoiser's blocks. The
object around it is in a conditioning under `control`; one leads to the next by `previous_controlnet`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..images.scaling import resize
from ..runtime.patcher import ModelPatcher
from ..runtime.running import make_patcher
from ..sampling.conds import repeat_to_batch_size
from .latent_formats import Flux as FluxLatents
from .latent_formats import LatentFormat
from .patches import patchify

Control = dict[str, list[Tensor | None]]
"""What is added to which blocks: "input", "middle" and "output" as ComfyUI names them."""

Self = TypeVar("Self", bound="ControlNet")

PLACES = ("input", "middle", "output")


class ControlNet:
    """A diffusers ControlNetModel of Stable Diffusion 1.5 or SDXL.

    Attributes:
        control_model: the module.
        strength: what its additions are multiplied with.
        timestep_percent_range: the parts (0..1) of the schedule at which it begins and ceases to act.
        previous_controlnet: the one whose additions come on top.
    """

    latent_format: LatentFormat | None = None

    def __init__(self, control_model: torch.nn.Module) -> None:
        self.control_model: Any = control_model
        self.control_model_wrapped = make_patcher(control_model)
        self.previous_controlnet: ControlNet | None = None
        self.strength = 1.0
        self.timestep_percent_range = (0.0, 1.0)
        self.cond_hint_original: Tensor | None = None
        self.vae: Any = None
        self.cleanup_self()

    @property
    def text_width(self) -> int:
        """The width of the text embeddings that it reads."""
        width = self.control_model.config.cross_attention_dim
        return width if isinstance(width, int) else width[0]

    def copy(self: Self) -> Self:
        """Return a copy that attaches the same network."""
        return copy.copy(self)

    def set_cond_hint(
        self: Self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
    ) -> Self:
        """Set the image (B, 3, H, W) in 0..1 that is followed, how strongly and when.

        Args:
            vae: encodes the image for networks that read latents.

        Raises:
            ValueError: the network reads latents and there is no VAE.
        """
        if self.latent_format is not None and vae is None:
            raise ValueError("this ControlNet reads latents, expected a VAE at the input vae; connect the model's")
        self.cond_hint_original = cond_hint
        self.strength = strength
        self.timestep_percent_range = timestep_percent_range
        self.vae = vae if self.latent_format is not None else None
        return self

    def set_previous_controlnet(self: Self, controlnet: ControlNet | None) -> Self:
        """Set the one whose additions come on top."""
        self.previous_controlnet = controlnet
        return self

    def chain(self) -> Iterator[ControlNet]:
        """Yield this network and all before it."""
        each: ControlNet | None = self
        while each is not None:
            yield each
            each = each.previous_controlnet

    def get_models(self) -> list[ModelPatcher]:
        """Return the patchers of all in the chain."""
        return [each.control_model_wrapped for each in self.chain()]

    def pre_run(self, model: Any) -> None:
        """Prepare the chain for a run of a `BaseModel`."""
        for each in self.chain():
            each.model_sampling = model.model_sampling
            each.pixels_per_latent = model.latent_format.spacial_downscale_ratio
            start, end = each.timestep_percent_range
            to_sigma = model.model_sampling.percent_to_sigma
            each.timestep_range = to_sigma(start), to_sigma(end)

    def cleanup(self) -> None:
        """Forget the run."""
        for each in self.chain():
            each.cleanup_self()

    def cleanup_self(self) -> None:
        """Forget the run of this network alone."""
        self.model_sampling: Any = None
        self.pixels_per_latent = 0
        self.timestep_range = (math.inf, -math.inf)
        self.cond_hint: Tensor | None = None
        self._size: tuple[int, int] = (0, 0)

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Control | None:
        """Return what the chain adds to the denoiser's blocks at one step.

        Args:
            x_noisy: latents (B, C, H, W) of `batched_number` conditionings.
            t: sigma of each sample (B,).
            cond: the denoiser's arguments: `c_crossattn`, `y`, `time_ids`, `guidance`.

        Returns:
            None outside its times.

        Raises:
            ValueError: it was made for another family.
        """
        previous = self.previous_controlnet
        before = previous and previous.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if t[0] > self.timestep_range[0] or t[0] < self.timestep_range[1]:
            return before
        self._check(cond["c_crossattn"])
        dtype = next(self.control_model.parameters()).dtype

        def cast(value: Any) -> Any:
            return value.to(x_noisy.device, dtype) if isinstance(value, Tensor) else value

        hint = broadcast_hint(cast(self._prepared(x_noisy.shape)), x_noisy.shape[0], batched_number)
        x = cast(self.model_sampling.calculate_input(t, x_noisy))
        timestep = self.model_sampling.timestep(t).float()
        added = self.predict(x, timestep, hint, {name: cast(value) for name, value in cond.items()})
        return merge(added, before)

    def _check(self, text: Tensor) -> None:
        if text.shape[-1] != self.text_width:
            raise ValueError(
                f"the ControlNet reads text of width {self.text_width}, but the model's has {text.shape[-1]}; take a "
                "ControlNet that was made for the model's family"
            )

    def _prepared(self, shape: torch.Size) -> Tensor:
        """Return the image for latents of a shape, kept for the run."""
        if self.cond_hint is None or self._size != tuple(shape[-2:]):
            self._size = (shape[-2], shape[-1])
            self.cond_hint = self.prepare_hint(*self._size)
        return self.cond_hint

    def _resized(self, height: int, width: int) -> Tensor:
        """Return the image (B, H, W, 3), its middle cut to the proportions of latents height x width."""
        if self.cond_hint_original is None:
            raise ValueError("the ControlNet has no image; attach it with Apply ControlNet")
        pixels = self.pixels_per_latent if self.vae is None else self.vae.spacial_compression_encode()
        image = self.cond_hint_original.movedim(1, -1)
        return resize(image, width * pixels, height * pixels, "nearest-exact", "center")

    def prepare_hint(self, height: int, width: int) -> Tensor:
        """Return the image (B, ...) as the network reads it, for latents of a size."""
        return self._resized(height, width).movedim(-1, 1)

    def predict(self, x: Tensor, timestep: Tensor, hint: Tensor, cond: dict[str, Any]) -> Control:
        """Call the network: scaled latents x (B, C, H, W), timestep (B,), hint (B, 3, 8 H, 8 W)."""
        added = {}
        if self.control_model.config.addition_embed_type == "text_time":
            added = {"text_embeds": cond["y"], "time_ids": cond["time_ids"]}
        down, middle = self.control_model(
            x,
            timestep,
            cond["c_crossattn"],
            hint,
            conditioning_scale=self.strength,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return {"input": [], "middle": [middle], "output": list(down)}


class FluxControlNet(ControlNet):
    """A diffusers FluxControlNetModel, which reads the image as latents.

    Its additions are spread over as many double and single blocks as the transformer has.
    """

    def __init__(self, control_model: torch.nn.Module) -> None:
        super().__init__(control_model)
        self.latent_format = FluxLatents()
        self._blocks = (0, 0)

    @property
    def text_width(self) -> int:
        """The width of the text embeddings that it reads."""
        return self.control_model.config.joint_attention_dim

    def pre_run(self, model: Any) -> None:
        """Prepare the chain for a run of a `BaseModel`."""
        super().pre_run(model)
        network = model.diffusion_model
        for each in self.chain():
            if isinstance(each, FluxControlNet) and hasattr(network, "single_transformer_blocks"):
                each._blocks = len(network.transformer_blocks), len(network.single_transformer_blocks)

    def prepare_hint(self, height: int, width: int) -> Tensor:
        """Return tokens (B, N, 64) of the encoded image."""
        latents = self.vae.encode(self._resized(height, width))
        return patchify(FluxLatents().process_in(latents))[0]

    def predict(self, x: Tensor, timestep: Tensor, hint: Tensor, cond: dict[str, Any]) -> Control:
        """Call the network: latents x (B, C, H, W), timestep 0..1 (B,), hint (B, N, 64)."""
        config = self.control_model.config
        tokens, ids = patchify(x)
        text = cond["c_crossattn"]
        pooled = cond.get("y")
        pooled = x.new_zeros(len(x), config.pooled_projection_dim) if pooled is None else pooled
        double, single = self.control_model(
            tokens,
            hint,
            conditioning_scale=self.strength,
            encoder_hidden_states=text,
            pooled_projections=pooled[:, : config.pooled_projection_dim],
            timestep=timestep.to(x),
            img_ids=ids,
            txt_ids=ids.new_zeros(text.shape[1], ids.shape[1]),
            guidance=cond.get("guidance") if config.guidance_embeds else None,
            return_dict=False,
        )
        return {
            "input": spread(double or [], self._blocks[0]),
            "middle": [],
            "output": spread(single or [], self._blocks[1]),
        }


def spread(samples: Iterable[Tensor], blocks: int) -> list[Tensor | None]:
    """Repeat each of the samples for as many neighbouring blocks as it takes to serve them all."""
    samples = list(samples)
    times = math.ceil(blocks / len(samples)) if samples else 0
    served: list[Tensor | None] = [sample for sample in samples for _ in range(times)]
    return served[:blocks]


def broadcast_hint(hint: Tensor, batch: int, conditionings: int) -> Tensor:
    """Return a batch of images (N, ...), one for each sample of every conditioning (batch, ...).

    One image serves all.
    """
    if hint.shape[0] == 1:
        return hint.expand(batch, *hint.shape[1:])
    return torch.cat([repeat_to_batch_size(hint, batch // conditionings)] * conditionings)


def merge(added: Control, before: Control | None) -> Control:
    """Add what two networks add."""
    if before is None:
        return added
    return {place: [_sum(*pair) for pair in zip_longest(added[place], before[place])] for place in PLACES}


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
