"""Image prompts in plain diffusers: a UNet or Flux that sees them for as long as a `with` block lasts.

Hooks take the queries of each layer and add the images to what its attention gives, so that any attention processor,
LoRA and offloading go on working: in a UNet before the output projection, in Flux behind the double block.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..patching.attention import DOUBLE
from .attend import COMBINES
from .encoders import check_encoder
from .formats import read_adapter
from .layers import TOKEN, Layer, find_layers
from .masks import one_mask
from .prompts import ImagePrompt, LoadedAdapter, activate_all
from .reference import ActiveReference, Place, find_projection
from .run import RunMemory
from .stack import KeptImages
from .steps import Step

TIMESTEPS = 1000
"""Training timesteps of the UNets that IP-Adapters are made for."""

FLUX_SHIFT = math.exp(1.15)
"""Shift of Flux's noise levels at one megapixel, with which a fraction of the schedule becomes a sigma."""


class ImageEncoder:
    """An image encoder of transformers in the form that adapters read.

    Args:
        model: such as `CLIPVisionModelWithProjection`; `image_encoder` of a pipeline.
        processor: such as `CLIPImageProcessor`, which is made where none is given; `feature_extractor` of a pipeline.
    """

    def __init__(self, model: Any, processor: Any = None) -> None:
        if processor is None:
            from transformers import CLIPImageProcessor

            processor = CLIPImageProcessor()
        self.model, self.processor = model, processor
        self.image_mean: Sequence[float] = processor.image_mean

    @torch.no_grad()
    def encode_image(self, image: Tensor, crop: bool = True) -> Any:
        """Encode images (B, H, W, 3) in 0..1: cropped to their middle square, or stretched when `crop` is false."""
        side = self.model.config.image_size
        square = {"height": side, "width": side}
        pixels = self.processor(
            images=list(rearrange(image, "b h w c -> b c h w")),
            input_data_format="channels_first",
            do_rescale=False,
            size={"shortest_edge": side} if crop else square,
            do_center_crop=crop,
            crop_size=square,
            return_tensors="pt",
        ).pixel_values
        weight = next(self.model.parameters())
        out = self.model(pixel_values=pixels.to(weight), output_hidden_states=True)
        # SigLIP's has no projection.
        embeds = getattr(out, "image_embeds", getattr(out, "pooler_output", None))
        return SimpleNamespace(image_embeds=embeds, penultimate_hidden_states=out.hidden_states[-2])


def load_adapter(path: str, image_encoder: Any, processor: Any = None) -> LoadedAdapter:
    """Read an IP-Adapter and pair it with an image encoder of transformers, see `ImageEncoder`.

    Args:
        path: `.safetensors`, or a pickle of tensors (`.bin`), of which nothing is executed.
        image_encoder: the model that the adapter was trained with.
        processor: of the encoder.

    Raises:
        ValueError: the file is not an IP-Adapter, or the encoder is not its own.
    """
    loaded = LoadedAdapter(read_adapter(path), ImageEncoder(image_encoder, processor))
    if loaded.adapter.features:
        check_encoder(loaded.adapter, loaded.encoder, type(image_encoder).__name__)
    return loaded


@contextmanager
def image_prompts(
    network: nn.Module,
    adapter: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str = "sum",
    guidance: bool | None = None,
) -> Iterator[None]:
    """Let the UNet or the Flux transformer of a diffusers pipeline see images inside a `with` block.

    Each image has its own scale, type, mask and range of the schedule. On exit, errors included, the network is what it
    was before. Blocks may nest: their images are added.

    Args:
        network: `pipe.unet` (Stable Diffusion 1.5, 2, SDXL) or `pipe.transformer` (Flux.1).
        adapter: from `load_adapter`; None when all images are saved references.
        prompts: the images, 1 to 100.
        combine: one of `COMBINES`: "sum" adds the images, "share" keeps the total strength, "concat" is one softmax.
        guidance: whether the first half of a batch is unconditional, as pipelines with classifier-free guidance have
            it. None: in UNets it is, in Flux, whose guidance is an input, it is not.

    Raises:
        ValueError: network, adapter and images do not fit; inside the block, a mask has another aspect than the image,
            or the batch has no halves.

    Examples:
        >>> import torch, tessera.ip_adapter
        >>> from diffusers import UNet2DConditionModel
        >>> from tessera.ip_adapter import ImagePrompt, Reference, find_layers, image_prompts
        >>> unet = UNet2DConditionModel(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16,
        ...     down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=8,
        ...     up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4)
        >>> layers = find_layers(unet)
        >>> keys_values = {each.number: torch.randn(2, 2, 4, each.channels).unbind() for each in layers}
        >>> reference = Reference(keys_values, 16, len(layers), "random", "random weights")
        >>> inputs = torch.randn(2, 4, 8, 8), 500, torch.randn(2, 7, 16)
        >>> with torch.no_grad(), image_prompts(unet, None, [ImagePrompt(reference, 0.8, "full")]):
        ...     seen = unet(*inputs).sample
        >>> bool(torch.equal(seen, unet(*inputs).sample))
        False

        With a pipeline: `with image_prompts(pipe.unet, adapter, [ImagePrompt(image)]): pipe("moss")`, where `adapter`
        is `load_adapter("ip-adapter_sd15.safetensors", pipe.image_encoder)` and `image` (1, H, W, 3) in 0..1.
    """
    if combine not in COMBINES:
        raise ValueError(f"combine is {combine!r}, expected one of: {', '.join(COMBINES)}.")
    if not (hasattr(network, "down_blocks") or hasattr(network, "transformer_blocks")):
        raise ValueError(f"{type(network).__name__} is not a network of diffusers; pass pipe.unet or pipe.transformer.")
    layers = find_layers(network)
    weight = next(network.parameters())
    place = Place(weight.device, weight.dtype, find_projection(network))
    with torch.no_grad():
        given = [_checked(prompt) for prompt in prompts]
        references = activate_all(given, adapter, layers, combine, place)
    acting = [layer for layer in layers if any(each.acts_at(layer.number) for each in references)]
    guided = not layers[0].in_flux if guidance is None else guidance
    kept = KeptImages(references, acting, weight.dtype)
    hooks = (FluxHooks if layers[0].in_flux else UNetHooks)(kept, guided)
    with ExitStack() as stack:
        for handle in hooks.register(network) if references else ():
            stack.callback(handle.remove)
        yield


def _checked(prompt: ImagePrompt) -> ImagePrompt:
    if prompt.mask is not None:
        one_mask(prompt.mask)
    return prompt


@dataclass(eq=False)
class UNetHooks:
    """What image prompts need in the calls of one network.

    Attributes:
        kept: the images, and the layers where they act.
        guided: whether the first half of a batch is unconditional.
        memory: of the latents' size that was seen last.
        step: the call that is running, None where no image acts in it.
        queries: (B, L, C) of the layers that are running, by number and by which adapters take them.
    """

    kept: KeptImages
    guided: bool
    memory: RunMemory | None = None
    step: Step | None = None
    queries: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    @property
    def references(self) -> Sequence[ActiveReference]:
        """The images."""
        return self.kept.references

    def register(self, network: nn.Module) -> Iterator[RemovableHandle]:
        """Register the hooks of the network and of the layers where an image acts."""
        yield network.register_forward_pre_hook(self._begin, with_kwargs=True)
        for layer in self.kept.layers:
            yield from self._hook(network, layer)

    def _hook(self, network: nn.Module, layer: Layer) -> Iterator[RemovableHandle]:
        attention: Any = network.get_submodule(f"{layer.name}.attn2")

        def see(_: nn.Module, __: Any, q: Tensor) -> None:
            self.queries[layer.number, False] = q

        def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.add(args[0], layer)

        yield attention.to_q.register_forward_hook(see)
        yield attention.to_out[0].register_forward_pre_hook(add)

    def add(self, out: Tensor, layer: Layer) -> None:
        """Add the images to the output of a layer (B, L, C), in place."""
        q = self.queries.pop((layer.number, False))
        if self.step is not None:
            self.step.add(out, q, layer, grid_of(self.step.size, q.shape[1]))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Decide once a call which images act.

        Raises:
            ValueError: a mask has another aspect than the latents, or the batch has no halves.
        """
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        size, rows = self.shape(given)
        if self.guided and rows % 2:
            raise ValueError(
                f"The batch has {rows} rows, but guidance needs an unconditional half; pass guidance=False to "
                "image_prompts where the pipeline runs without classifier-free guidance."
            )
        if self.memory is None or self.memory.size != size:
            self.memory = RunMemory.begin(self.kept, size)
        schedules = [each.schedule for each in self.references]
        level = 0.0 if all(each.whole for each in schedules) else float(torch.as_tensor(given["timestep"]).max())
        active = [i for i, each in enumerate(schedules) if each.covers(level, self.level_at)]
        roles = (1, 0) if self.guided else (0,)
        ids = [(role, None) for role in roles]
        self.step = self.memory.step(ids, active, size, self.device(given)) if active else None

    @staticmethod
    def shape(given: dict[str, Any]) -> tuple[tuple[int, int], int]:
        """Return (height, width) of the latents and the rows of the batch in a call."""
        sample = given["sample"]
        return (sample.shape[-2], sample.shape[-1]), len(sample)

    @staticmethod
    def device(given: dict[str, Any]) -> torch.device:
        """Return the device of a call."""
        return given["sample"].device

    @staticmethod
    def level_at(percent: float) -> float:
        """Return the timestep at a fraction of the schedule, as ComfyUI counts it."""
        if percent <= 0:
            return math.inf
        return (1 - percent) * (TIMESTEPS - 1) if percent < 1 else -math.inf


class FluxHooks(UNetHooks):
    """What image prompts need in the calls of a Flux transformer."""

    text: int = 0
    """Tokens of the prompt in a call."""

    def _hook(self, network: nn.Module, layer: Layer) -> Iterator[RemovableHandle]:
        double = layer.key[0] == DOUBLE
        block: Any = network.get_submodule(f"{'' if double else 'single_'}transformer_blocks.{layer.key[1]}")
        for joint in {each.joint for each in self.references if each.acts_at(layer.number)}:

            def see(_: nn.Module, __: Any, q: Tensor, joint: bool = joint) -> None:
                self.queries[layer.number, joint] = rearrange(q, "b l h d -> b l (h d)")

            yield block.attn.norm_q.register_forward_hook(see)
            if not joint:
                yield block.register_forward_hook(lambda _, __, out: self._add(out[1], layer, 0, False))
            elif double:
                yield block.attn.to_out[0].register_forward_pre_hook(lambda _, args: self._add(args[0], layer, 0, True))
            else:
                yield block.attn.register_forward_hook(lambda _, __, out: self._add(out, layer, self.text, True))

    def _add(self, out: Tensor, layer: Layer, text: int, joint: bool) -> None:
        """Add the images to tokens (B, L, C), in place, of which so many are text; context images stay as they are."""
        q = self.queries.pop((layer.number, joint))
        if self.step is not None:
            height, width = layer.grid(self.step.size)
            own = slice(text + height * width)
            self.step.add(out[:, own], q[:, own], layer, (height, width), None, text, joint)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._begin(module, args, kwargs)
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        self.text = given["encoder_hidden_states"].shape[1]

    @staticmethod
    def device(given: dict[str, Any]) -> torch.device:
        """Return the device of a call."""
        return given["hidden_states"].device

    @staticmethod
    def shape(given: dict[str, Any]) -> tuple[tuple[int, int], int]:
        """Return (height, width) of the latents, from the positions of their tokens, and the rows of the batch."""
        ids = given["img_ids"]
        ids = ids[0] if ids.ndim == 3 else ids
        height, width = (ids[ids[:, 0] == 0][:, 1:].amax(dim=0) + 1).tolist()
        return (TOKEN * int(height), TOKEN * int(width)), len(given["hidden_states"])

    @staticmethod
    def level_at(percent: float) -> float:
        """Return the sigma at a fraction of the schedule, at one megapixel."""
        if percent <= 0 or percent >= 1:
            return math.inf if percent <= 0 else -math.inf
        return FLUX_SHIFT / (FLUX_SHIFT + 1 / (1 - percent) - 1)


def grid_of(size: tuple[int, int], length: int) -> tuple[int, int]:
    """Return (height, width) of the level of a UNet that has `length` pixels; each level halves, rounding up.

    Args:
        size: of the latents (height, width).
        length: pixels of the level.

    Raises:
        ValueError: no level has so many.

    Examples:
        >>> from tessera.ip_adapter.pipeline import grid_of
        >>> grid_of((64, 49), 16 * 13)
        (16, 13)
    """
    height, width = size
    while height * width > length:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != length:
        raise ValueError(
            f"A layer has {length} pixels, which no halving of {size[0]} x {size[1]} latents gives; image prompts need "
            "a UNet that halves its levels."
        )
    return height, width
