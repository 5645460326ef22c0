"""Changes of weights as adapters store them: LoRA, LoHa, LoKr, DoRA and plain differences.

Formulas and keys: kohya's scripts, LyCORIS (Yeh et al. 2023, arXiv:2309.14859), peft.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..layouts.ldm_layout import Source
from ..layouts.state_dicts import StateDict

FACTORS = (
    (".lora_up.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B", ".lora_A"),
)
"""Endings of the two factors: up (out, rank) and down (rank, in)."""

ALPHA, MIDDLE = ".alpha", ".lora_mid.weight"
RESHAPE, BIAS = ".reshape_weight", ".lora_B.bias"
"""What the files have that widen a layer: the shape, or a bias in the control LoRAs of Black Forest Labs."""

DORA = ".dora_scale"
PEFT_DORA = (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".lora_magnitude_vector.default.weight")
DIFFERENCES = {".diff": "weight", ".diff_b": "bias", ".w_norm": "weight", ".b_norm": "bias", BIAS: "bias"}
REPLACEMENTS = {".set_weight": "weight", ".scale": "weight"}
HADAMARD = (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b")
HADAMARD_CORES = (".hada_t1", ".hada_t2")
KRONECKER = (".lokr_w1", ".lokr_w2", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2")

Formula = Callable[[Tensor], Tensor]
"""The change of a whole module, in the precision and on the device of one of its weights."""


@dataclass(frozen=True)
class Change:
    """A weight change of a module.

    Attributes:
        kind: of the module's parameter, weight or bias.
        formula: the change.
        used: the keys of the file that it came from.
        magnitude: norms that the rows (out, 1) or columns (1, in) of the changed weight get (DoRA, Liu et al. 2024,
            arXiv:2402.09353).
        as_peft: whether rows are normed by the changed weight; by the original one in other files.
        widens: whether the weight gets more columns.
        replaces: whether the formula is the new weight, whatever the strength.
    """

    kind: str
    formula: Formula
    used: frozenset[str]
    magnitude: Tensor | None = None
    as_peft: bool = False
    widens: bool = False
    replaces: bool = False

    def of(self, source: Source, weight: Tensor) -> Tensor:
        """Return what is added to a weight at strength 1, from the module's rows that belong to it.

        Raises:
            RuntimeError: the change is that of a weight of another shape.
        """
        rows = source.take(self.formula(weight))
        if self.widens and weight.ndim == 2:
            return rows
        rows = rows.reshape(weight.shape)
        if self.replaces:
            return rows - weight
        return rows if self.magnitude is None else self._decomposed(source, weight, rows)

    def _decomposed(self, source: Source, weight: Tensor, rows: Tensor) -> Tensor:
        assert self.magnitude is not None
        magnitude, changed = self.magnitude.to(weight), weight + rows
        if self.as_peft or magnitude.ndim == 1 or len(magnitude) > 1:
            magnitude = source.take(magnitude.flatten()).reshape(-1, *[1] * (weight.ndim - 1))
            norm = (changed if self.as_peft else weight).flatten(1).norm(dim=1).reshape(magnitude.shape)
        elif len(source.sizes) > 1:
            raise RuntimeError("columns of a part of a module are normed by the whole of it")
        else:
            magnitude = magnitude.reshape(1, -1, *[1] * (weight.ndim - 2))
            norm = changed.transpose(0, 1).flatten(1).norm(dim=1).reshape(magnitude.shape)
        return changed * (magnitude / (norm + torch.finfo(weight.dtype).eps)) - weight


def read_changes(file: StateDict, name: str) -> list[Change]:
    """Return the changes that a file holds for the module `name`."""
    changes = [
        Change(kind, partial(_stored, file[name + ending]), frozenset({name + ending}), replaces=replaces)
        for table, replaces in ((DIFFERENCES, False), (REPLACEMENTS, True))
        for ending, kind in table.items()
        if name + ending in file
    ]
    found = (read(file, name) for read in (_low_rank, _hadamard, _kronecker))
    return changes + [each for each in found if each is not None]


def _stored(tensor: Tensor, weight: Tensor) -> Tensor:
    return tensor.to(weight)


def _change(file: StateDict, name: str, formula: Formula, keys: tuple[str, ...], widens: bool = False) -> Change:
    """Return the change of a weight, with what says more about it in the file."""
    dora = next((name + ending for ending in (DORA, *PEFT_DORA) if name + ending in file), None)
    used = {key for key in (*keys, name + ALPHA, dora) if key in file}
    magnitude = None if dora is None else file[dora]
    as_peft = dora is not None and not dora.endswith(DORA)
    return Change("weight", formula, frozenset(used), magnitude, as_peft, widens)


def _scale(file: StateDict, name: str, rank: int | None) -> float:
    return float(file[name + ALPHA]) / rank if rank and name + ALPHA in file else 1.0


# LoRA


def _low_rank(file: StateDict, name: str) -> Change | None:
    for up, down in ((name + up, name + down) for up, down in FACTORS):
        if up in file and down in file:
            scale = _scale(file, name, file[down].shape[0])
            formula = partial(_product, file[up], file[down], file.get(name + MIDDLE), scale)
            widens = name + RESHAPE in file or name + BIAS in file
            return _change(file, name, formula, (up, down, name + MIDDLE, name + RESHAPE), widens)
    return None


def _product(up: Tensor, down: Tensor, middle: Tensor | None, scale: float, weight: Tensor) -> Tensor:
    """Return alpha / rank * up @ down (Hu et al. 2021, arXiv:2106.09685), with a Tucker core between them in LoCon."""
    up, down = up.to(weight).flatten(1), down.to(weight)
    if middle is None:
        return scale * up @ down.flatten(1)
    core = torch.einsum("rskl,si->rikl", middle.to(weight), down.flatten(1))
    return scale * up @ core.flatten(1)


# LoHa


def _hadamard(file: StateDict, name: str) -> Change | None:
    keys = tuple(name + ending for ending in HADAMARD)
    if not all(key in file for key in keys):
        return None
    cores = tuple(name + ending for ending in HADAMARD_CORES)
    halves = [(file[keys[i]], file[keys[i + 1]], file.get(cores[i // 2])) for i in (0, 2)]
    scale = _scale(file, name, file[keys[1]].shape[0])
    return _change(file, name, partial(_entrywise, halves, scale), (*keys, *cores))


def _entrywise(halves: list[tuple[Tensor, Tensor, Tensor | None]], scale: float, weight: Tensor) -> Tensor:
    """Return alpha / rank * (A1 @ B1) * (A2 @ B2), entry by entry (Hyeon-Woo et al. 2022, arXiv:2108.06098)."""
    first, second = (_rebuilt(*half, weight) for half in halves)
    return scale * first * second


def _rebuilt(outer: Tensor, inner: Tensor, core: Tensor | None, weight: Tensor) -> Tensor:
    """Return a matrix of its factors, or a kernel of a Tucker decomposition."""
    outer, inner = outer.to(weight), inner.to(weight)
    if core is None:
        return outer @ inner
    return torch.einsum("ij...,jr,ip->pr...", core.to(weight), inner, outer)


# LoKr


def _kronecker(file: StateDict, name: str) -> Change | None:
    w1, w2, w1_a, w1_b, w2_a, w2_b, core = (file.get(name + ending) for ending in KRONECKER)
    if (w1 is None and (w1_a is None or w1_b is None)) or (w2 is None and (w2_a is None or w2_b is None)):
        return None
    factor = w2_b if w2 is None else w1_b if w1 is None else None
    scale = _scale(file, name, None if factor is None else factor.shape[0])
    formula = partial(_blockwise, (w1, w1_a, w1_b, None), (w2, w2_a, w2_b, core), scale)
    return _change(file, name, formula, tuple(name + ending for ending in KRONECKER))


def _blockwise(first: tuple[Tensor | None, ...], second: tuple[Tensor | None, ...], scale: float, w: Tensor) -> Tensor:
    """Return the Kronecker product of two matrices, the second of which may be a kernel; each whole or in factors."""
    left, right = (
        whole.to(w) if whole is not None else _rebuilt(outer, inner, core, w)  # pyright: ignore[reportArgumentType]
        for whole, outer, inner, core in (first, second)
    )
    left = left.reshape(*left.shape, *[1] * (right.ndim - left.ndim))
    return scale * torch.kron(left, right)
