"""Where the editor's files are: in the package comfyui-frontend-package, which is served as it is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "comfyui_frontend_package"


def editor_folder() -> Path | None:
    """Return the folder of the editor's files; None where the package is not installed."""
    found = find_spec(PACKAGE)
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "static"
        if (folder / "index.html").is_file():
            return folder
    return None
