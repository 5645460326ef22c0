"""Files that a server made: where they are, whether they came whole, and under which names they are kept."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ...host.errors import one_line, shown
from .engine import only_told, safe_name
from .errors import EngineLost

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
NUMBERED = re.compile(r"^(?P<stem>.*_)(?P<number>\d{5,})(?P<rest>_?\.[^.]+)$")
"""ComfyUI numbers the files of a prefix through: `texture_00042_.png`."""


@dataclass(frozen=True)
class FileRef:
    """A file as a server names it, with the node that made it, and the list that it stands in."""

    filename: str
    subfolder: str
    type: str = "output"
    node_id: str = field(default="", compare=False)
    kind: str = field(default="images", compare=False)

    @property
    def query(self) -> dict[str, str]:
        """What /view asks for."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


def files_of(outputs: Any, server: str) -> list[FileRef]:
    """Return the saved files of a history entry; previews are left out.

    Raises:
        EngineLost: it is not what ComfyUI answers, or a file would lie outside of the folder that it is kept in.
    """
    found: dict[FileRef, None] = {}
    outputs = {} if outputs is None else outputs
    if not isinstance(outputs, dict) or not all(isinstance(each, dict) for each in outputs.values()):
        raise EngineLost(f"{server}/history: found {shown(outputs)}; expected what nodes showed, as from ComfyUI")
    for node_id, kinds in outputs.items():
        for kind, item in ((kind, item) for kind, items in kinds.items() if isinstance(items, list) for item in items):
            if isinstance(item, dict) and item.get("filename") and item.get("type") == "output":
                place = (str(item["filename"]), str(item.get("subfolder") or ""))
                ref = FileRef(*place, node_id=str(node_id), kind=str(kind))
                if safe_name(ref.subfolder, ref.filename) is None:
                    raise EngineLost(f"{server}/history: found the file {shown(item)}; expected one inside its folder")
                found[ref] = None
    return list(found)


def told_of(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the texts and numbers of a history entry."""
    return only_told({node: found for node, found in outputs.items() if isinstance(found, dict)})


def checked(filename: str, content: bytes) -> str:
    """Return what is wrong with a file; "" where nothing is. Images are decoded once."""
    if not content:
        return "empty"
    if PurePosixPath(filename).suffix.lower() not in IMAGES:
        return ""
    from PIL import Image

    from ...host.images.loading import readable_formats

    try:
        with Image.open(io.BytesIO(content), formats=readable_formats()) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"a damaged image ({one_line(str(error))})"
    return ""


def renumbered(refs: Sequence[FileRef]) -> list[str]:
    """Return the names that files have in an empty folder.

    A server counts over all its runs; here the numbers of each prefix begin with 1, so that a job's files have the
    same names wherever and whenever it ran.

    >>> renumbered([FileRef("a_00007_.png", ""), FileRef("a_00009_.png", "")])
    ['a_00001_.png', 'a_00002_.png']
    """
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for ref in refs:
        if parts := NUMBERED.match(ref.filename):
            numbers[ref.subfolder, parts["stem"]].append(int(parts["number"]))
    names = []
    for ref in refs:
        filename = ref.filename
        if parts := NUMBERED.match(filename):
            place = sorted(set(numbers[ref.subfolder, parts["stem"]])).index(int(parts["number"])) + 1
            filename = f"{parts['stem']}{place:05}{parts['rest']}"
        names.append(safe_name(ref.subfolder, filename) or filename)
    return names
