"""What a page of the registry says of a family of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...layouts.ldm_layout import Source
from ...layouts.state_dicts import StateDict
from ...text.clip import CLIP
from ...text.loading import TextWeights
from ...text.tokenizer import PromptTokenizer
from ..model_base import BaseModel, ModelType

Sampling = tuple[ModelType | None, dict[str, Any] | None]
"""What a model predicts and the settings of its noise levels, where they are not the family's."""


@dataclass(frozen=True)
class TextSource:
    """What text encoders need beside their weights.

    `directories`: of textual inversions. `folder`: where tokenizers of other vocabularies than CLIP's are; one for each
    encoder in `folders`. `tokenizers`: of CLIP encoders in diffusers folders.
    """

    directories: list[str]
    folder: Path
    folders: Mapping[str, Path] = field(default_factory=dict)
    tokenizers: Mapping[str, PromptTokenizer] = field(default_factory=dict)

    def tokenizer_folder(self, role: str) -> Path:
        """Return where the tokenizer of an encoder is."""
        return self.folders.get(role, self.folder)


@dataclass(frozen=True)
class TextKind:
    """The text encoders of a family.

    `roles`: what each encoder is to the family, in the order of the folders `text_encoder`, `text_encoder_2`, ... of
    diffusers. `clip_types`: what loaders of text encoders call them. `make`: puts them together, by role. `optional`:
    roles that may be missing. `prefixes`: of their keys in single files, where they are not the usual ones.
    """

    roles: tuple[str, ...]
    clip_types: tuple[str, ...]
    make: Callable[[dict[str, TextWeights], TextSource], CLIP]
    optional: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def prefix(self, role: str) -> str:
        """Return what the keys of an encoder begin with in single files."""
        named = dict(zip(self.roles, self.prefixes, strict=False))
        return named.get(role, f"text_encoders.{role}.transformer.")


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: as users know it.
        model: what samples it.
        detect: whether weights in diffusers' layout are of the family.
        diffusers_class: what folders call its denoiser.
        folder: the name of the denoiser's folder.
        build: the diffusers module of weights, a precision and a configuration, which follows from shapes if None.
        originals: converters from other layouts, each by a key that tells the layout.
        text: its text encoders.
        sampling: what the weights say of predictions and noise levels.
        lora_sources: original names by diffusers' names of weights, for LoRAs.
        lora_prefix: what LoRAs of diffusers put before the names of modules.
        wide_range: whether half precision overflows in it.
        controlled: whether control networks of it can be loaded.
        file_names: a regular expression of what its files are usually called.
    """

    name: str
    model: type[BaseModel]
    detect: Callable[[StateDict], bool]
    diffusers_class: str
    folder: str
    build: Callable[[StateDict, torch.dtype, dict[str, Any] | None], torch.nn.Module]
    originals: Mapping[str, Callable[[StateDict], StateDict]]
    text: TextKind
    lora_sources: Callable[[set[str]], Mapping[str, Source]]
    lora_prefix: str
    file_names: str
    sampling: Callable[[StateDict], Sampling] = lambda sd: (None, None)
    wide_range: bool = False
    controlled: bool = False
