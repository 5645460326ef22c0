"""Qwen-Image and Qwen-Image Edit, whose text encoder sees the images to edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layouts.ldm_layout import Source
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...runtime import devices
from ...sampling.conds import CONDConstant, CONDList
from ...text.clip import CLIP
from ...text.language_models import ChatTokenizer, Chunks, LanguageModelEncoder, build_qwen2, load_chat_tokenizer
from ...text.loading import TextWeights
from ...text.tokenizer import MultiTokenizer
from ...text.vision import build_seeing
from .. import latent_formats
from ..block_hooks import BEHIND, REPLACED, hooked_blocks
from ..model_base import Conds, ModelType
from ..patches import patchify, unpatchify
from ..rotary import ComplexPosEmbed
from ..transformer_base import TransformerModel, empty_module
from .base import Family, Sampling, TextKind, TextSource

HEAD_SIZE = 128
METHODS = ("index", "index_timestep_zero")
"""How references are seen: as noisy as the image, or without noise."""

MARKER = "__index_timestep_zero__"
"""A key in files of models that see references without noise."""

AXES, THETA = (16, 56, 56), 10000
SHIFT = {"shift": 1.15}
LAST = -1
BEGIN, USER, LINE = 151644, 872, 198
"""Tokens: the beginning of a message, "user", and the end of a line."""

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
SEEING = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The template of Qwen-Image Edit for prompts with an image."""

IMAGE = 151655
"""The token <|image_pad|>."""

MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]  # fmt: skip
DEVIATION = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
             3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]  # fmt: skip
"""Of each channel of the VAE's latents (Wan-Video/Wan2.1)."""


class QwenLatents(latent_formats.LatentFormat):
    """Qwen-Image and Wan, whose latents are normed channel by channel."""

    latent_channels = 16

    def process_in(self, latent: Tensor) -> Tensor:
        """Scale the VAE's latents to the denoiser's."""
        return (latent - self._column(MEAN, latent)) / self._column(DEVIATION, latent)

    def process_out(self, latent: Tensor) -> Tensor:
        """Scale the denoiser's latents to the VAE's."""
        return latent * self._column(DEVIATION, latent) + self._column(MEAN, latent)

    def _column(self, values: list[float], latent: Tensor) -> Tensor:
        return torch.tensor(values).to(latent)[:, None, None]


class QwenImage(TransformerModel):
    """A diffusers QwenImageTransformer2DModel."""

    default_type = ModelType.FLUX
    default_latent_format = QwenLatents
    patches, replaced = frozenset({BEHIND}), frozenset({REPLACED})

    def encode_adm(self, **kwargs: Any) -> None:
        """Return None: there is no pooled text."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Add the images to look at.

        Raises:
            ValueError: they are to lie elsewhere than upon the image, each at an index of its own.
        """
        out = super().extra_conds(**kwargs)
        if kwargs.get("reference_latents") is not None:
            config: Any = self.diffusion_model.config
            method = kwargs.get("reference_latents_method") or METHODS[bool(config.get("zero_cond_t"))]
            if method not in METHODS:
                raise ValueError(f"the reference method is {method}, expected {' or '.join(METHODS)} with Qwen-Image")
            out["ref_latents"] = CONDList([self.process_latent_in(each) for each in kwargs["reference_latents"]])
            out["ref_latents_method"] = CONDConstant(method)
        return out

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1 (B,), context (B, L, D) -> (B, C, H, W)."""
        images = [x, *(self._whole(each.to(x)) for each in conds.get("ref_latents") or [])]
        tokens = [patchify(each)[0] for each in images]
        self._see_without_noise(conds.get("ref_latents_method") == METHODS[1])
        shapes = [(1, each.shape[2] // self.patch, each.shape[3] // self.patch) for each in images]
        inputs = torch.cat(tokens, 1), context, conds.get("attention_mask"), timestep, [shapes] * len(x)
        with hooked_blocks(self.diffusion_model, conds.get("transformer_options") or {}, x):
            found = self.diffusion_model(*inputs, return_dict=False)[0]
        return unpatchify(found[:, : tokens[0].shape[1]], x.shape[2], x.shape[3])

    def _see_without_noise(self, wanted: bool) -> None:
        """Let blocks take references as images without noise, as models since 2511 were trained, or not."""
        module: Any = self.diffusion_model
        if wanted and not hasattr(module, "zero_cond_t"):
            raise ValueError(f"the reference method {METHODS[1]} needs a newer diffusers; upgrade it")
        for each in (module, *module.transformer_blocks):
            each.zero_cond_t = wanted

    def _whole(self, image: Tensor) -> Tensor:
        more = (0, -image.shape[3] % self.patch, 0, -image.shape[2] % self.patch)
        return F.pad(image, more, mode="circular") if any(more) else image


class Positions(nn.Module):
    """Rotations of tokens, as ComfyUI counts them: images around their middle, each at an index, text behind the first.

    diffusers counts from one token further up and left where a side is odd, and puts text behind the largest image.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = ComplexPosEmbed(THETA, AXES)

    def forward(
        self, shapes: list[list[tuple[int, int, int]]], device: torch.device, max_txt_seq_len: int
    ) -> tuple[Tensor, Tensor]:
        """Return complex rotations of images (T, D / 2) and of text (L, D / 2)."""
        _, height, width = shapes[0][0]
        images = torch.cat([self._of_image(index, *shape[1:], device) for index, shape in enumerate(shapes[0])])
        text = torch.arange(int(max_txt_seq_len), device=device) + max(height // 2, width // 2)
        turned = self.embed(torch.cat([images, text[:, None].expand(-1, len(AXES))]))
        return turned[: len(images)], turned[len(images) :]

    def _of_image(self, index: int, height: int, width: int, device: torch.device) -> Tensor:
        rows, columns = (torch.arange(side, device=device) - side // 2 for side in (height, width))
        return torch.cartesian_prod(torch.tensor([index], device=device), rows, columns)


class QwenImageTextModel(nn.Module):
    """The last layer of Qwen2.5-VL's language model, without the instruction before the prompt."""

    def __init__(self, qwen25_7b: LanguageModelEncoder) -> None:
        super().__init__()
        self.qwen25_7b = qwen25_7b
        self.sees_images = qwen25_7b.sees_images

    def encode_token_weights(
        self, tokens: dict[str, Chunks], layer: int | None, projected: bool
    ) -> tuple[Tensor, None]:
        """Return text embedding (1, L, D)."""
        ids = [token[0] for token in tokens["qwen25_7b"][0]]
        return self.qwen25_7b.encode_tokens(tokens["qwen25_7b"])[:, instruction_length(ids) :], None


def instruction_length(ids: list[int]) -> int:
    """Return how many tokens come before the prompt: the first message, and the head of the second."""
    begins = [place for place, token in enumerate(ids) if token == BEGIN]
    if len(begins) < 2:
        return 0
    return begins[1] + (3 if ids[begins[1] + 1 : begins[1] + 3] == [USER, LINE] else 0)


def _detect(sd: StateDict) -> bool:
    return "txt_norm.weight" in sd and "transformer_blocks.0.attn.add_q_proj.weight" in sd


def config(sd: StateDict) -> dict[str, Any]:
    """Return the arguments of `QwenImageTransformer2DModel` for weights in its layout."""
    width, channels = sd["img_in.weight"].shape
    return {
        **({"zero_cond_t": True} if MARKER in sd else {}),
        "in_channels": channels,
        "out_channels": sd["proj_out.weight"].shape[0] // 4,
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "attention_head_dim": HEAD_SIZE,
        "num_attention_heads": width // HEAD_SIZE,
        "joint_attention_dim": sd["txt_norm.weight"].shape[0],
    }


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    module = empty_module(QwenImageTransformer2DModel, given or config(sd))
    module.pos_embed = Positions()
    sd = {key: tensor for key, tensor in sd.items() if key != MARKER}
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLUX, SHIFT


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    encode = load_chat_tokenizer(source.tokenizer_folder("qwen25_7b"), "Qwen2.5-VL")
    weights, dtype = parts["qwen25_7b"].weights, devices.text_encoder_dtype(wide_range=True)
    encoder = build_seeing(weights, dtype, [LAST]) or LanguageModelEncoder(build_qwen2(weights, dtype), [LAST])
    tokenizer = ChatTokenizer(encode, TEMPLATE, seeing=SEEING, image=IMAGE)
    return CLIP(QwenImageTextModel(encoder), MultiTokenizer(qwen25_7b=tokenizer))


FAMILY = Family(
    name="Qwen-Image",
    model=QwenImage,
    detect=_detect,
    diffusers_class="QwenImageTransformer2DModel",
    folder="transformer",
    build=_build,
    originals={},
    text=TextKind(("qwen25_7b",), ("qwen_image",), _text),
    sampling=_sampling,
    lora_sources=lambda keys: {key: Source(key) for key in keys},
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"(qwen|firered)[-_]image(?!.*layered)",
)
