"""Tokens in the file names of a UI-format workflow: `%date:yyyy-MM-dd%` and `%KSampler.seed%`, as ComfyUI's interface
fills them in before it sends a graph. The rest (%year%, %width%, ...) is for whoever saves."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

TOKEN = re.compile(r"%([^%]+)%")
FORBIDDEN = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def fill_in_prefixes(prompt: dict[str, dict[str, Any]], now: time.struct_time) -> None:
    """Fill in the tokens of every `filename_prefix` of a graph, in place."""
    for node in prompt.values():
        prefix = node["inputs"].get("filename_prefix")
        if isinstance(prefix, str):
            node["inputs"]["filename_prefix"] = TOKEN.sub(lambda token: _filled(token, prompt, now), prefix)


def _filled(token: re.Match[str], prompt: Mapping[str, Mapping[str, Any]], now: time.struct_time) -> str:
    if token[1].startswith("date:"):
        return _date(token[1].removeprefix("date:"), now)
    title, _, name = token[1].partition(".")
    for node in prompt.values():
        if title in (node["class_type"], node["_meta"]["title"]) and isinstance(
            node["inputs"].get(name), (str, int, float)
        ):
            return FORBIDDEN.sub("_", str(node["inputs"][name]))
    return token[0]


def _date(form: str, now: time.struct_time) -> str:
    parts = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}
    years = {"yyyy": str(now.tm_year), "yy": f"{now.tm_year % 100:02}"}
    return re.sub(
        r"yyyy|yy|dd?|MM?|hh?|mm?|ss?",
        lambda found: years.get(found[0]) or str(parts[found[0][0]]).zfill(len(found[0])),
        form,
    )
