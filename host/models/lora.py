"""LoRAs as weight changes of one branch of the graph.

Drop-in replacement for `comfy.lora` and `comfy.sd.load_lora_for_models`.

A LoRA names modules by the layout that it was trained on: diffusers' or the original one, with points or with
underscores. `targets` lists every name of every module; what a file holds is looked up there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layouts.ldm_layout import Source, joined
from ..layouts.state_dicts import StateDict, load_state_dict, made_of
from ..runtime.patcher import ModelPatcher, with_patches
from ..text.clip import CLIP
from .families import of_model
from .weight_adapters import EVERYTHING, Change, read_changes

log = logging.getLogger(__name__)

SHOWN = 3


class Target(NamedTuple):
    """A weight that a LoRA module changes: its key without the ending, and which rows of the change it takes."""

    key: str
    source: Source


Targets = dict[str, list[Target]]
Patch = Callable[[Tensor], Tensor]


def load_lora_file(
    model: ModelPatcher | None, clip: CLIP | None, path: str | Path, strength_model: float, strength_clip: float
) -> tuple[ModelPatcher | None, CLIP | None]:
    """Read a file for `load_lora_for_models`.

    Raises:
        ValueError: the file is damaged or fits neither model.
    """
    lora = load_state_dict(path)
    with made_of(Path(path)):
        return load_lora_for_models(model, clip, lora, strength_model, strength_clip)


def load_lora_for_models(
    model: ModelPatcher | None, clip: CLIP | None, lora: StateDict, strength_model: float, strength_clip: float
) -> tuple[ModelPatcher | None, CLIP | None]:
    """Return clones of a MODEL and a CLIP with a LoRA; the originals stay as they are.

    What fits neither, by name or shape, is named in a warning.

    Args:
        model: or None.
        clip: or None.
        lora: the file's tensors in the layout of kohya's scripts, of diffusers or of peft.
        strength_model: factor of the change of the model.
        strength_clip: factor of the change of the text encoders.

    Raises:
        ValueError: nothing in the file fits.
    """
    owners = [
        (model and model.clone(), model_targets(model) if model else {}, strength_model),
        (clip and clip.clone(), clip_targets(clip) if clip else {}, strength_clip),
    ]
    used: set[str] = set()
    for owner, names, strength in owners:
        used |= _add(owner, read_lora(lora, names), strength) if owner else set()
    if not used:
        raise ValueError(f"the LoRA fits neither the model nor the text encoder: it has {_some(lora)}")
    if used != set(lora):
        log.warning("%d tensors of the LoRA are not used: %s", len(set(lora) - used), _some(set(lora) - used))
    return owners[0][0], owners[1][0]


def _add(owner: ModelPatcher | CLIP, changes: list[tuple[list[Target], Change]], strength: float) -> set[str]:
    """Add the changes that fit, one by one since several can concern one weight; return the file's keys in use."""
    patcher = owner.patcher if isinstance(owner, CLIP) else owner
    weights = patcher.model.state_dict()
    used: set[str] = set()
    for targets, change in changes:
        for key, patch in _patches(patcher, targets, change.at(strength)).items():
            if key in weights and _fits(patch, weights[key], change.widens):
                owner.add_patches({key: patch}, 1.0 if change.replaces else strength)
                used |= change.used
    return used


def _patches(patcher: ModelPatcher, targets: list[Target], change: Change) -> dict[str, Patch]:
    """Return what a change of a module adds to each of the weights that are its parts."""
    keys = {f"{target.key}.{change.kind}": target.source for target in targets}
    if not change.needs_whole or set(keys.values()) == {EVERYTHING}:
        return {key: partial(change.of, source) for key, source in keys.items()}
    whole = partial(_whole, patcher, keys, {key: list(patcher.patches.get(key, ())) for key in keys})
    return {key: partial(change.of_part, source, whole) for key, source in keys.items()}


def _whole(patcher: ModelPatcher, keys: dict[str, Source], before: dict[str, list[Any]], part: Tensor) -> Tensor:
    """Return a module's weight with the changes before, in the precision and on the device of one of its parts."""
    weights = {key: patcher.unpatched_weight(key).to(part) for key in keys}
    return joined((source, with_patches(weights[key], before[key])) for key, source in keys.items())


def _fits(patch: Patch, weight: Tensor, widens: bool) -> bool:
    """Return whether a change has its weight's shape, or is wider, without computing it."""
    try:
        changed = patch(torch.empty_like(weight, device="meta"))
    except RuntimeError:
        return False
    if not widens:
        return changed.shape == weight.shape
    return weight.ndim == 2 and len(changed) == len(weight) and changed.shape[1] >= weight.shape[1]


def _some(keys: Iterable[str]) -> str:
    shown = sorted(keys)
    return ", ".join(shown[:SHOWN]) + (" ..." if len(shown) > SHOWN else "")


def read_lora(lora: StateDict, names: Targets) -> list[tuple[list[Target], Change]]:
    """Return the changes in a file, for the modules that are known."""
    return [(targets, change) for name, targets in names.items() for change in read_changes(lora, name)]


# Names


def model_targets(model: ModelPatcher) -> Targets:
    """Return every name by which LoRAs call a module of a denoiser."""
    weights = {key.removeprefix("diffusion_model.") for key in model.model_state_dict("diffusion_model.")}
    family = of_model(model.model)
    own = (family.lora_prefix, "diffusion_model.", "base_model.model.", "")
    names: Targets = {}
    for key, source in family.lora_sources(weights).items():
        module, _, ending = key.rpartition(".")
        if ending != "weight":
            continue
        target = Target(f"diffusion_model.{module}", EVERYTHING)
        for name in _diffusers_names(module, own):
            names.setdefault(name, [target])
        original = source.key.removeprefix("model.diffusion_model.").rpartition(".")[0]
        if original != module:
            part = Target(target.key, source._replace(key=""))
            for name in (original, f"diffusion_model.{original}", _underscored("lora_unet_", original)):
                names.setdefault(name, []).append(part)
    return names


def _underscored(prefix: str, module: str) -> str:
    return prefix + module.replace(".", "_")


def _diffusers_names(module: str, prefixes: tuple[str, ...]) -> list[str]:
    names = [prefix + module for prefix in prefixes]
    names += [_underscored(prefix, module) for prefix in ("lora_unet_", "lora_transformer_", "lycoris_")]
    # Attention processors of diffusers before 0.20.
    processor = re.sub(r"\.to_(q|k|v|out)(\.0)?$", r".processor.to_\1", module)
    return names + [prefix + processor for prefix in prefixes if processor != module]


def clip_targets(clip: CLIP) -> Targets:
    """Return every name by which LoRAs call a module of text encoders."""
    model = clip.cond_stage_model
    modules = [key.removesuffix(".weight") for key in model.state_dict() if key.endswith(".weight")]
    present = {module.partition(".")[0] for module in modules}
    names: Targets = {}
    for module in modules:
        encoder, _, inner = module.partition(".transformer.")
        for name in _text_names(encoder, inner, present):
            names.setdefault(name, [Target(module, EVERYTHING)])
    return names


def _text_names(encoder: str, inner: str, present: set[str]) -> list[str]:
    names = [f"text_encoders.{encoder}.transformer.{inner}"]
    if not encoder.startswith("clip_"):
        names += [f"text_encoders.transformer.{inner}", f"text_encoders.transformer.model.{inner}"]
        names += [f"text_encoders.{encoder}.transformer.model.{inner}"]
    for number in _numbers(encoder, present):
        names += [f"text_encoder{f'_{number}' if number > 1 else ''}.{inner}", _underscored(f"lora_te{number}_", inner)]
        names += [_underscored("lora_te_", inner)] if number == 1 else []
    return names


def _numbers(encoder: str, present: set[str]) -> tuple[int, ...]:
    """Return the numbers that an encoder has in files: L before G before T5, which some count further."""
    clips = sorted((name for name in present if name.startswith("clip_")), reverse=True)
    number = (clips.index(encoder) if encoder in clips else len(clips)) + 1
    alone = (encoder == "clip_g" and number == 1) or (encoder not in clips and clips == ["clip_l"])
    return (number, number + 1) if alone else (number,)
