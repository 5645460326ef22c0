"""Runs in ComfyUI's interpreter: small random text encoders and VAEs of ComfyUI's own classes, in files, on inputs.

    python run_encoders.py COMFYUI FOLDER

FOLDER gets the file of each, and `encoders.pt` with the inputs and results by name: token ids and embeddings of text
encoders, images and latents of VAEs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from inside import start

comfyui, folder = sys.argv[1:]
start(comfyui)

import comfy.ldm.wan.vae  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.lora  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.sd  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.flux  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.pixart_t5  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.qwen_image  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.qwen_vl  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.sd2_clip  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.sd3_clip  # noqa: E402  # pyright: ignore[reportMissingImports]
import comfy.text_encoders.z_image  # noqa: E402  # pyright: ignore[reportMissingImports]
import torch  # noqa: E402
from comfy import sdxl_clip  # noqa: E402  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file, save_file  # noqa: E402

sys.path.append(str(Path(__file__).parents[1]))
from tiny_tekken import tekken  # noqa: E402

SMALL = {"hidden_size": 256, "intermediate_size": 320, "num_attention_heads": 2, "num_key_value_heads": 1}
FEW = {"num_hidden_layers": 3}
OPTIONS = {
    **{f"clip_{which}_model_config": FEW for which in "lgh"},
    "t5xxl_model_config": {"num_layers": 2, "d_ff": 256, "num_heads": 4, "d_model": 4096, "vocab_size": 100},
    "qwen3_4b_model_config": SMALL | {"num_hidden_layers": 28},
    "qwen25_7b_model_config": SMALL | FEW,
    "mistral3_24b_model_config": SMALL | {"num_hidden_layers": 30, "final_norm": False, "vocab_size": 400},
}
WEIGHTED = [[(49406, 1.0), (5000, 1.4), (17, 0.6), (49407, 1.0)]]
CHAT = [[(token, 1.0) for token in [151644, 8948, 198, 7, 151645, 198, 151644, 872, 198, 42, 99, 151645, 151643]]]
"""Tokens of a message of the system, of one of the user, and padding."""


def padded(chunks: Any, pad: int) -> Any:
    return [[*chunk, *[(pad, 1.0)] * (77 - len(chunk))] for chunk in chunks]


def randomize(module: torch.nn.Module) -> None:
    """Give weights a spread that keeps activations near one."""
    generator = torch.Generator().manual_seed(7)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        embeds = "embed" in name or "shared" in name
        spread = 1.0 if embeds else weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        weight.data = noise * spread + (weight.ndim == 1 and name.endswith("weight"))


def text(name: str, made: Any, tokens: Any, parts: dict[str, str]) -> dict[str, Any]:
    """Save the encoders of a model, by the parts of its keys, and encode."""
    model = made(device="cpu", dtype=torch.float32, model_options=OPTIONS)
    randomize(model)
    state = model.state_dict()
    for prefix, file in parts.items():
        held = {key.removeprefix(prefix): t.clone() for key, t in state.items() if key.startswith(prefix)}
        save_file(held, Path(folder) / f"{file}.safetensors")
    with torch.inference_mode():
        embedding, pooled = model.encode_token_weights(tokens)[:2]
    names = comfy.lora.model_lora_keys_clip(model, {})
    return {
        "names": names,
        "tokens": tokens,
        "embedding": embedding.clone(),
        "pooled": None if pooled is None else pooled.clone(),
    }


def mistral() -> dict[str, Any]:
    """Flux.2 dev's encoder, the layers of it that are read, on a prompt that ComfyUI splits."""
    tokenizer = comfy.text_encoders.flux.Flux2Tokenizer(tokenizer_data={"tekken_model": tekken()})
    prompt = "(Moss:1.2) on 1234 old stones, it's [INST] \u6c34\u00e4 the\n\n  an end\r\n "
    made = comfy.text_encoders.flux.flux2_te(pruned=True)
    found = text("dev", made, tokenizer.tokenize_with_weights(prompt), {"mistral3_24b.transformer.": "mistral"})
    file = Path(folder) / "mistral.safetensors"
    save_file(load_file(file) | {"tekken_model": tekken()}, file)
    return {**found, "prompt": prompt}


def few_eyes(**given: Any) -> Any:
    """A small vision model of ComfyUI's."""
    small = {"hidden_size": 256, "intermediate_size": 128, "num_layers": 9}
    return VISION(**{**given, **small})


VISION = comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer
comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer = few_eyes


def shown(*sizes: tuple[int, int]) -> Any:
    """A message about images."""
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand(1, *size, 3, generator=generator) for size in sizes]
    seen = [[42, {"type": "image", "data": image, "original_type": "image"}, 43] for image in images]
    tokens = [151644, 8948, 198, 7, 151645, 198, 151644, 872, 198, *(each for run in seen for each in run), 99, 151645]
    return [[(token, 1.0) for token in tokens]]


def frames_vae() -> dict[str, Any]:
    """A small VAE of videos."""
    module = comfy.ldm.wan.vae.WanVAE(
        dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], image_channels=3, conv_out_channels=3, dropout=0.0,
    )  # fmt: skip
    randomize(module)
    save_file(module.state_dict(), Path(folder) / "frames.safetensors")
    vae = comfy.sd.VAE(sd=module.state_dict())
    image = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        latents = vae.encode(image)
        images = vae.decode(latents)
    return {"image": image, "latents": latents.reshape(1, 16, 4, 6), "images": images.reshape(1, 32, 48, 3)}


def both(chunks: Any) -> dict[str, Any]:
    return {"l": padded(chunks, 49407), "g": padded(chunks, 0)}


ends = [[(3, 1.0), (9, 1.3), (1, 1.0), (0, 1.0)]]
qwen3, qwen25 = "qwen3_4b.transformer.", "qwen25_7b.transformer."
cases = {
    "sd2": lambda: text(
        "sd2", comfy.text_encoders.sd2_clip.SD2ClipModel, {"h": padded(WEIGHTED, 0)}, {"clip_h.transformer.": "clip_h"}
    ),
    "refiner": lambda: text(
        "refiner", sdxl_clip.SDXLRefinerClipModel, {"g": padded(WEIGHTED, 0)}, {"clip_g.transformer.": "clip_g"}
    ),
    "sd3": lambda: text(
        "sd3",
        comfy.text_encoders.sd3_clip.sd3_clip(),
        both(WEIGHTED) | {"t5xxl": ends},
        {"clip_l.transformer.": "sd3_l", "clip_g.transformer.": "sd3_g", "t5xxl.transformer.": "sd3_t5"},
    ),
    "chroma": lambda: text(
        "chroma",
        comfy.text_encoders.pixart_t5.pixart_te(),
        {"t5xxl": [ends[0][:-1]]},
        {"t5xxl.transformer.": "chroma_t5"},
    ),
    "z-image": lambda: text("z", comfy.text_encoders.z_image.te(), {"qwen3_4b": [CHAT[0][:-1]]}, {qwen3: "z_qwen"}),
    "klein": lambda: text("klein", comfy.text_encoders.flux.klein_te(), {"qwen3_4b": CHAT}, {qwen3: "klein_qwen"}),
    "flux2-dev": mistral,
    "qwen-image": lambda: text(
        "qwen", comfy.text_encoders.qwen_image.te(), {"qwen25_7b": [CHAT[0][:-1]]}, {qwen25: "qwen25"}
    ),
    "qwen-image-edit": lambda: text(
        "qwen-edit", comfy.text_encoders.qwen_image.te(), {"qwen25_7b": shown((150, 260))}, {qwen25: "qwen25_edit"}
    ),
    "qwen-image-two": lambda: text(
        "qwen-two",
        comfy.text_encoders.qwen_image.te(),
        {"qwen25_7b": shown((60, 90), (30, 20))},
        {qwen25: "qwen25_two"},
    ),
    "frames": frames_vae,
}
found: dict[str, Any] = {}
for each, make in cases.items():
    try:
        found[each] = make()
    except Exception as error:
        found[each] = repr(error)
torch.save(found, Path(folder) / "encoders.pt")
