"""Types of values that are only linked, never typed in: those of `comfy_api.latest.io`."""

from __future__ import annotations

from .inputs import ComfyTypeIO


class BoundingBox(ComfyTypeIO):
    """A rectangle in pixels: a dictionary of x, y, width and height."""

    io_type = "BOUNDING_BOX"


class Image(ComfyTypeIO):
    """Images: floats (B, H, W, C) in 0..1."""

    io_type = "IMAGE"


class Mask(ComfyTypeIO):
    """Masks: floats (B, H, W) in 0..1."""

    io_type = "MASK"


class Latent(ComfyTypeIO):
    """A dict with `samples` (B, C, h, w) and what belongs to them."""

    io_type = "LATENT"


class Conditioning(ComfyTypeIO):
    """A list of (embedding, options) pairs."""

    io_type = "CONDITIONING"


class Model(ComfyTypeIO):
    """A denoiser: a ModelPatcher."""

    io_type = "MODEL"


class Clip(ComfyTypeIO):
    """A text encoder with its tokenizer."""

    io_type = "CLIP"


class Vae(ComfyTypeIO):
    """An autoencoder."""

    io_type = "VAE"


class ClipVision(ComfyTypeIO):
    """An image encoder."""

    io_type = "CLIP_VISION"


class ClipVisionOutput(ComfyTypeIO):
    """What an image encoder says of an image."""

    io_type = "CLIP_VISION_OUTPUT"


class ControlNet(ComfyTypeIO):
    """A control network."""

    io_type = "CONTROL_NET"


class StyleModel(ComfyTypeIO):
    """What turns an encoded image into tokens of a prompt."""

    io_type = "STYLE_MODEL"


class LatentOperation(ComfyTypeIO):
    """A function of latents."""

    io_type = "LATENT_OPERATION"


class UpscaleModel(ComfyTypeIO):
    """A model that enlarges images."""

    io_type = "UPSCALE_MODEL"


class BackgroundRemoval(ComfyTypeIO):
    """A model that finds what is in front."""

    io_type = "BACKGROUND_REMOVAL"


class Noise(ComfyTypeIO):
    """A source of noise."""

    io_type = "NOISE"


class Sampler(ComfyTypeIO):
    """A sampler: one way to walk down the noise levels."""

    io_type = "SAMPLER"


class Sigmas(ComfyTypeIO):
    """Noise levels: floats (steps + 1,)."""

    io_type = "SIGMAS"


class Guider(ComfyTypeIO):
    """A denoiser with its prompts: a CFGGuider."""

    io_type = "GUIDER"


class AnyType(ComfyTypeIO):
    """Whatever comes."""

    io_type = "*"
