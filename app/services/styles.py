"""Style presets and prompt enhancement: words of our own behind a prompt, so that no service and no model is needed."""

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
LEONARDO_STYLES = tuple(name for name in WORDS if name.isupper())
"""Styles that Leonardo's document prints; PHOTO_WORDS has those of its guide to photoReal."""
OCTOAI_STYLES = tuple(name for name in WORDS if not name.isupper())

PHOTO_REAL = "photograph of a real scene, natural skin and materials"
DEPTH_OF_FIELD = {0.55: "everything in focus", 0.5: "background slightly blurred", 0.45: "background strongly blurred"}
QUALITY = "highly detailed, sharp focus, balanced composition, beautiful light"


def described(prompt: str, *additions: str) -> str:
    """A prompt with further words behind it, each once.

    >>> described("moss", "sharp", "", "sharp")
    'moss, sharp'
    """
    return ", ".join(dict.fromkeys(part for part in (prompt, *additions) if part))
