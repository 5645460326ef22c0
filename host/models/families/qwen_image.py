"""Qwen-Image, drawing alone; its edit models read images with a vision model, which needs ComfyUI."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layouts.ldm_layout import Source
from ...layouts.state_dicts import StateDict, count_blocks, fill
from ...runtime import devices
from ...text.clip import CLIP
from ...text.language_models import ChatTokenizer, Chunks, LanguageModelEncoder, build_qwen2, load_chat_tokenizer
from ...text.loading import TextWeights
from ...text.tokenizer import MultiTokenizer
from .. import latent_formats
from ..model_base import Conds, ModelType, patchify, unpatchify
from ..transformer_base import TransformerModel
from .base import Family, Sampling, TextKind, TextSource

HEAD_SIZE = 128
SHIFT = {"shift": 1.15}
LAST = -1
BEGIN, USER, LINE = 151644, 872, 198
"""Tokens: the beginning of a message, "user", and the end of a line."""

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
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

    def encode_adm(self, **kwargs: Any) -> None:
        """Return None: there is no pooled text."""

    def extra_conds(self, **kwargs: Any) -> Conds:
        """Refuse images to edit.

        Raises:
            ValueError: the conditioning has one.
        """
        if kwargs.get("reference_latents"):
            raise ValueError("Qwen-Image edits no images here; take ReferenceLatent out, or run it in ComfyUI")
        return super().extra_conds(**kwargs)

    def forward_transformer(
        self, x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None, **conds: Any
    ) -> Tensor:
        """Call the transformer once: x (B, C, H, W), timestep 0..1 (B,), context (B, L, D) -> (B, C, H, W)."""
        tokens, _ = patchify(x)
        shape = (1, x.shape[2] // self.patch, x.shape[3] // self.patch)
        found = self.diffusion_model(
            tokens,
            context,
            conds.get("attention_mask"),
            timestep,
            [[shape]] * len(x),
            return_dict=False,
        )[0]
        return unpatchify(found, x.shape[2], x.shape[3])


class QwenImageTextModel(nn.Module):
    """The last layer of Qwen2.5-VL's language model, without the instruction before the prompt."""

    def __init__(self, qwen25_7b: LanguageModelEncoder) -> None:
        super().__init__()
        self.qwen25_7b = qwen25_7b

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
        "in_channels": channels,
        "out_channels": sd["proj_out.weight"].shape[0] // 4,
        "num_layers": count_blocks(sd, "transformer_blocks."),
        "attention_head_dim": HEAD_SIZE,
        "num_attention_heads": width // HEAD_SIZE,
        "joint_attention_dim": sd["txt_norm.weight"].shape[0],
    }


def _build(sd: StateDict, dtype: torch.dtype, given: dict[str, Any] | None) -> torch.nn.Module:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope, QwenImageTransformer2DModel

    with torch.device("meta"):
        module: Any = QwenImageTransformer2DModel.from_config(given or config(sd))
    # Frequencies are no weights, and were made on the meta device, too.
    module.pos_embed = QwenEmbedRope(theta=10000, axes_dim=[16, 56, 56], scale_rope=True)
    return fill(module, sd, dtype, "the transformer")


def _sampling(sd: StateDict) -> Sampling:
    return ModelType.FLUX, SHIFT


def _text(parts: dict[str, TextWeights], source: TextSource) -> CLIP:
    encode = load_chat_tokenizer(source.tokenizer_folder("qwen25_7b"), "Qwen2.5-VL")
    module = build_qwen2(parts["qwen25_7b"].weights, devices.text_encoder_dtype(wide_range=True))
    tokenizer: Any = ChatTokenizer(encode, TEMPLATE)
    return CLIP(QwenImageTextModel(LanguageModelEncoder(module, [LAST])), MultiTokenizer(qwen25_7b=tokenizer))


FAMILY = Family(
    name="Qwen-Image",
    model=QwenImage,
    detect=_detect,
    diffusers_class="QwenImageTransformer2DModel",
    folder="transformer",
    build=_build,
    originals={},
    text=TextKind(("qwen25_7b",), ("qwen_image",), ("text_encoders.qwen25_7b.transformer.",), _text),
    sampling=_sampling,
    lora_sources=lambda keys: {key: Source(key) for key in keys},
    lora_prefix="transformer.",
    wide_range=True,
    file_names=r"qwen[-_]image(?!.*(edit|layered))",
)
