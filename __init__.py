"""Tessera: seamless textures and more for ComfyUI; this file is the door the host opens."""

from __future__ import annotations
