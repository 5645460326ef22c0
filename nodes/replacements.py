"""Nodes of other packs that ours can stand in for, as entries of ComfyUI's NodeReplace."""

from __future__ import annotations

from typing import Any

REPLACEMENTS: tuple[dict[str, Any], ...] = ()
