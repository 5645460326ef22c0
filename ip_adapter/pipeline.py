"""Image prompts in plain diffusers: a UNet, Flux or Stable Diffusion 3.5 that sees them inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .attend import COMBINES
from .encoders import check_encoder
from .formats import read_adapter
from .layers import find_layers
from .masks import one_mask
from .network_hooks import FluxHooks, SD3Hooks, UNetHooks
from .prompts import ImagePrompt, LoadedAdapter, activate_all
from .reference import Place, find_projection
from .stack import KeptImages


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
    """Let the UNet or the transformer of a diffusers pipeline see images inside a `with` block.

    Each image has its own scale, type, mask and range of the schedule. On exit, errors included, the network is what it
    was before. Blocks may nest: their images are added.

    Args:
        network: `pipe.unet` (Stable Diffusion 1.5, 2, SDXL) or `pipe.transformer` (Flux.1, SD 3.5).
        adapter: from `load_adapter`; None when all images are saved references.
        prompts: the images, 1 to 100.
        combine: one of `COMBINES`: "sum" adds the images, "share" keeps the total strength, "concat" is one softmax.
        guidance: whether the first half of a batch is unconditional, as pipelines with classifier-free guidance have
            it. None: it is, but in Flux, whose guidance is an input.

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
    hooks = _hooks(network, adapter, prompts, combine, guidance)
    with ExitStack() as stack:
        for handle in hooks.register(network) if hooks.references else ():
            stack.callback(handle.remove)
        yield


def _hooks(
    network: nn.Module,
    adapter: LoadedAdapter | None,
    prompts: Sequence[ImagePrompt],
    combine: str,
    guidance: bool | None,
) -> UNetHooks:
    if combine not in COMBINES:
        raise ValueError(f"combine is {combine!r}, expected one of: {', '.join(COMBINES)}.")
    if not (hasattr(network, "down_blocks") or hasattr(network, "transformer_blocks")):
        raise ValueError(f"{type(network).__name__} is not a network of diffusers; pass pipe.unet or pipe.transformer.")
    layers = find_layers(network)
    weight = next(network.parameters())
    place = Place(weight.device, weight.dtype, find_projection(network))
    with torch.no_grad():
        references = activate_all([_checked(prompt) for prompt in prompts], adapter, layers, combine, place)
    acting = [layer for layer in layers if any(each.acts_at(layer.number) for each in references)]
    first = layers[0]
    kind = FluxHooks if first.in_flux else SD3Hooks if first.in_sd3 else UNetHooks
    return kind(KeptImages(references, acting, weight.dtype), not first.in_flux if guidance is None else guidance)


def _checked(prompt: ImagePrompt) -> ImagePrompt:
    if prompt.mask is not None:
        one_mask(prompt.mask)
    return prompt
