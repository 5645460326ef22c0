"""Who runs us, and every name that the pack takes from that host.

ComfyUI says so when it opens the pack's door (`comfy_entrypoint`); the command line and plain Python use the embedded
host. What happens to be importable decides nothing: a ComfyUI that is there but broken raises its own error.
`comfyui` and `embedded` hold the same names; a module asks for them here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .embedded import (
        ComfyExtension,
        ProgressBar,
        add_lora,
        add_replacement,
        add_route,
        calc_cond_batch,
        convert_cond,
        folder_paths,
        io,
        load_clip_vision,
        load_demo,
        manage,
        optimized_attention,
        room_for_model,
        sampling_classes,
        saves_metadata,
        stand_ins,
        throw_exception_if_processing_interrupted,
        ui,
    )

__all__ = [
    "ComfyExtension",
    "ProgressBar",
    "add_lora",
    "add_replacement",
    "add_route",
    "calc_cond_batch",
    "choose",
    "convert_cond",
    "folder_paths",
    "io",
    "load_clip_vision",
    "load_demo",
    "manage",
    "optimized_attention",
    "room_for_model",
    "sampling_classes",
    "saves_metadata",
    "stand_ins",
    "throw_exception_if_processing_interrupted",
    "ui",
]

Host = Literal["comfyui", "embedded"]

_host: Host | None = None


def choose(host: Host) -> None:
    """Say who runs us, before any node is imported; where nobody does, it is the embedded host.

    Raises:
        RuntimeError: names of the other host are in use.
    """
    global _host
    if _host not in (None, host):
        raise RuntimeError(
            f"Tessera runs on {_host} in this process and cannot run on {host} as well; start another process."
        )
    _host = host


def __getattr__(name: str) -> Any:
    """Take a name from the host."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    choose(_host or "embedded")
    if _host == "comfyui":
        from . import comfyui as host
    else:
        from . import embedded as host
    value = globals()[name] = getattr(host, name)
    return value
