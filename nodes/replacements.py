"""Nodes of other packs that one of ours can stand in for, as entries of ComfyUI's NodeReplace.

ComfyUI puts one node in the place of one, and passes its values on as they are. So the nodes below take the words of
the other pack as well, and inputs that count in another unit have a unit. Where two nodes are needed for one, or values
have to be computed, `moving_in` makes a node that does both.
"""

from __future__ import annotations

from typing import Any

FOREIGN_TILINGS = {"enable": "both", "x_only": "horizontal", "y_only": "vertical", "disable": "off"}
"""Words of ComfyUI-seamless-tiling for ours."""


def native_tiling(name: Any) -> Any:
    """Return our word for a tiling of ComfyUI-seamless-tiling; anything else is returned as it is.

    >>> native_tiling("x_only"), native_tiling("half_drop")
    ('horizontal', 'half_drop')
    """
    return FOREIGN_TILINGS.get(name, name) if isinstance(name, str) else name


def _entry(old: str, new: str, widgets: list[str], *values: tuple[str, Any], **inputs: str) -> dict[str, Any]:
    return {
        "old_node_id": old,
        "new_node_id": new,
        "old_widget_ids": widgets,
        "input_mapping": [
            *({"new_id": ours, "old_id": theirs} for ours, theirs in inputs.items()),
            *({"new_id": ours, "set_value": value} for ours, value in values),
        ],
        "output_mapping": [{"old_idx": 0, "new_idx": 0}],
    }


REPLACEMENTS: tuple[dict[str, Any], ...] = (
    _entry("SeamlessTile", "TesseraSeamlessModel", ["tiling", "copy_model"], model="model", tiling="tiling"),
    _entry("MakeCircularVAE", "TesseraSeamlessVAE", ["tiling", "copy_vae"], vae="vae", tiling="tiling"),
    _entry(
        "OffsetImage",
        "TesseraOffsetImage",
        ["x_percent", "y_percent"],
        ("unit", "percent"),
        image="pixels",
        x="x_percent",
        y="y_percent",
    ),
    _entry("IPAdapterModelLoader", "TesseraLoadIPAdapter", ["ipadapter_file"], ip_adapter="ipadapter_file"),
)
