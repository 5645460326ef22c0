"""Words of our own for the style presets of hosted services, so that no service and no model is needed."""

from __future__ import annotations

WORDS = {
    "3d-model": "clean 3d model, soft studio lighting, rendered in detail",
    "analog-film": "shot on film, visible grain, soft faded colours",
    "anime": "anime drawing, crisp outlines, flat cel shading, bright colours",
    "base": "",
    "cinematic": "film still, wide frame, dramatic light, shallow focus",
    "comic-book": "comic book panel, bold ink lines, halftone shading",
    "digital-art": "digital painting, clean shapes, rich colour",
    "enhance": "sharp, detailed, balanced light",
    "fantasy-art": "fantasy painting, grand scale, magical light",
    "isometric": "isometric view, parallel lines, tidy small world",
    "line-art": "line drawing, thin black lines on white, no shading",
    "low-poly": "low polygon model, flat facets, simple colours",
    "modeling-compound": "clay figure, soft dents and fingerprints",
    "neon-punk": "night city of neon, violet and cyan glow, wet reflections",
    "origami": "folded paper, sharp creases, plain background",
    "photographic": "photograph, natural light, true colours, fine detail",
    "pixel-art": "pixel art, few colours, hard square pixels",
    "tile-texture": "repeating surface texture, even light, seen from straight above",
    "ANIME": "anime drawing, crisp outlines, flat cel shading, bright colours",
    "CREATIVE": "inventive composition, surprising forms and colours",
    "DYNAMIC": "",
    "ENVIRONMENT": "wide landscape, deep space, weather and light in the air",
    "GENERAL": "clear subject, balanced light",
    "ILLUSTRATION": "book illustration, deliberate shapes, painted by hand",
    "LEONARDO": "",
    "NONE": "",
    "PHOTOGRAPHY": "photograph, natural light, true colours, fine detail",
    "RAYTRACED": "ray traced rendering, exact reflections and shadows",
    "RENDER_3D": "3d rendering, smooth materials, studio lighting",
    "SKETCH_BW": "pencil sketch, black on white paper, loose strokes",
    "SKETCH_COLOR": "coloured pencil sketch, loose strokes on white paper",
}
"""What a style adds to a prompt, by the name in OctoAI's document, or upper case in Leonardo's; some add nothing."""

PHOTO_WORDS = {
    "BOKEH": "background of soft discs of light, shallow focus",
    "CINEMATIC": "film still, wide frame, dramatic light",
    "CINEMATIC_CLOSEUP": "film still, face fills the frame, shallow focus",
    "FASHION": "fashion photograph, styled clothes, studio light",
    "FILM": "shot on film, visible grain, soft faded colours",
    "FOOD": "food photograph, fresh and appetising, close view",
    "HDR": "high dynamic range, detail in lights and shadows",
    "LONG_EXPOSURE": "long exposure, motion drawn out to smooth trails",
    "MACRO": "macro photograph, tiny details fill the frame",
    "MINIMALISTIC": "minimal composition, few shapes, empty space",
    "MONOCHROME": "black and white photograph, rich greys",
    "MOODY": "dark tones, low light, quiet mood",
    "NEUTRAL": "natural colours, even light, no effects",
    "PORTRAIT": "portrait photograph, soft light on the face",
    "RETRO": "photograph from the seventies, warm faded colours",
    "STOCK_PHOTO": "stock photograph, clean bright light, friendly",
    "UNPROCESSED": "unprocessed photograph, straight out of the camera",
    "VIBRANT": "vivid saturated colours, strong light",
}
"""Likewise for the styles of Leonardo's photoReal."""

STYLES = WORDS | PHOTO_WORDS
"""All of them, in the order of the documents."""


def described(prompt: str, *additions: str) -> str:
    """Return a prompt with further words behind it, each once.

    >>> described("moss", "sharp", "", "sharp")
    'moss, sharp'
    """
    return ", ".join(dict.fromkeys(part for part in (prompt, *additions) if part))


def styled(prompt: str, style: str) -> str:
    """Return a prompt with the words of a style behind it.

    Args:
        style: a key of `STYLES`.

    Raises:
        ValueError: there is no such style.

    >>> styled("a fox", "pixel-art")
    'a fox, pixel art, few colours, hard square pixels'
    """
    if style not in STYLES:
        raise ValueError(f"style: found {style!r}; expected one of {', '.join(STYLES)}; choose one")
    return described(prompt.strip().rstrip(" ,"), STYLES[style])
