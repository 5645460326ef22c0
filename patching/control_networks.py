"""Control networks and reference images in the conditionings of a host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

IMAGE_PATCHES = ("double_block", "noise_refiner")
"""ComfyUI's patches through which control networks of Qwen-Image, Z-Image and Wan add images to tokens."""


def controls(conds: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """Yield the control objects attached to conditionings with their chains, each once."""
    seen: set[int] = set()
    for cond in conds:
        control = cond.get("control")
        while control is not None and id(control) not in seen:
            seen.add(id(control))
            yield control
            control = control.previous_controlnet


def network_of(control: Any) -> Any:
    """Return the network of a control object (ControlNet, control LoRA, T2I adapter); None when it has none."""
    return getattr(control, "control_model", None) or getattr(control, "t2i_model", None)


def has_token_images(conds: Iterable[Mapping[str, Any]], options: Mapping[str, Any]) -> bool:
    """Return whether something in a run belongs to whole tokens of the image.

    Control networks, in whatever form, and reference images do; EasyCache compares what steps were given.

    Args:
        conds: all conditionings of a run, as a guider holds them.
        options: the run's transformer options.
    """
    every, patches = list(conds), options.get("patches", {})
    return (
        any(True for _ in controls(every))
        or any(cond.get("reference_latents") for cond in every)
        or any(patches.get(name) for name in IMAGE_PATCHES)
        or "easycache" in options
    )
