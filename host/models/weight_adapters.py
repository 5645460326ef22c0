"""Changes of weights as adapters store them: LoRA, LoHa, LoKr, GLoRA, OFT, BOFT, DoRA and plain differences.

Formulas and keys: kohya's scripts, LyCORIS (Yeh et al. 2023, arXiv:2309.14859), peft.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
GENERALIZED = (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight")
BLOCKS, RESCALE = ".oft_blocks", ".rescale"
KRONECKER = (".lokr_w1", ".lokr_w2", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2")

Formula = Callable[..., Tensor]
"""The change of a whole module, in the precision and on the device of one of its weights."""

EVERYTHING = Source("")
"""All rows of a change."""


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
        reads: whether the formula depends on the module's weight, and so takes the whole of it, and the strength.
    """

    kind: str
    formula: Formula
    used: frozenset[str]
    magnitude: Tensor | None = None
    as_peft: bool = False
    widens: bool = False
    replaces: bool = False
    reads: bool = False

    @property
    def needs_whole(self) -> bool:
        """Whether rows of the module change by what the others are."""
        return self.reads or (self.magnitude is not None and not self._norms_rows)

    @property
    def _norms_rows(self) -> bool:
        magnitude = self.magnitude
        return magnitude is not None and (self.as_peft or magnitude.ndim == 1 or len(magnitude) > 1)

    def at(self, strength: float) -> Change:
        """Return the change for a strength, which then is its factor, too."""
        return replace(self, formula=partial(self.formula, strength=strength)) if self.reads else self

    def of_part(self, source: Source, whole: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
        """Return what is added to a weight at strength 1 where it takes the module's whole weight to know it.

        Args:
            source: which rows of the module's weight `weight` is.
            whole: the module's weight for one of its parts.
            weight: the part.
        """
        return source.take(self.of(EVERYTHING, whole(weight))).reshape(weight.shape)

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
        if self._norms_rows:
            magnitude = source.take(magnitude.flatten()).reshape(-1, *[1] * (weight.ndim - 1))
            norm = (changed if self.as_peft else weight).flatten(1).norm(dim=1).reshape(magnitude.shape)
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
    found = (read(file, name) for read in (_low_rank, _hadamard, _kronecker, _generalized, _orthogonal))
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


# GLoRA


def _generalized(file: StateDict, name: str) -> Change | None:
    keys = tuple(name + ending for ending in GENERALIZED)
    if not all(key in file for key in keys):
        return None
    alpha = float(file[name + ALPHA]) if name + ALPHA in file else None
    formula = partial(_general, *(file[key] for key in keys), alpha)
    return replace(_change(file, name, formula, keys), reads=True)


def _general(
    a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor, alpha: float | None, weight: Tensor, strength: float
) -> Tensor:
    """Return alpha / rank * (W A + B) (Chavan et al. 2023, arXiv:2306.07967).

    A = a1 a2 and B = b1 b2, in the other order in files of LyCORIS before version 2; the strength is a factor alone.
    """
    a1, a2, b1, b2 = (factor.to(weight).flatten(1) for factor in (a1, a2, b1, b2))
    older = _is_older(a1, a2, b1, b2, weight)
    down, up, left, right = (a2, a1, b2, b1) if older else (a1, a2, b1, b2)
    narrow = torch.einsum("oi...,ij->oj...", weight.flatten(1) if older else weight, down)
    change = torch.einsum("oj...,ji->oi...", narrow, up).reshape(weight.shape) + (left @ right).reshape(weight.shape)
    return change if alpha is None else alpha / down.shape[1] * change


def _is_older(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor, weight: Tensor) -> bool:
    older = b2.shape[1] == b1.shape[0] == a1.shape[0] == a2.shape[1]
    newer = b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]
    return older and (not newer or weight.shape[0] == weight.shape[1] == len(a2))


# OFT and BOFT


def _orthogonal(file: StateDict, name: str) -> Change | None:
    """Return a rotation of rows; a file's `dora_scale` has no meaning for it."""
    key = name + BLOCKS
    if key not in file or file[key].ndim not in (3, 4):
        return None
    limit = float(file[name + ALPHA]) if name + ALPHA in file else 0.0
    used = {key, name + ALPHA}
    if file[key].ndim == 3:
        formula = partial(_rotated, file[key], limit)
    else:
        formula, used = partial(_butterfly, file[key], limit, file.get(name + RESCALE)), used | {name + RESCALE}
    return Change("weight", formula, frozenset(used & set(file)), reads=True)


def _rotations(blocks: Tensor, limit: float, weight: Tensor) -> Tensor:
    """Return the Cayley transforms of skew-symmetric matrices (..., n, n), whose norm together has a limit."""
    skew = blocks.to(weight)
    skew = skew - skew.mT
    if limit > 0:
        skew = skew * (limit / (skew.norm() + 1e-8)).clamp(max=1.0)
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    return (one + skew) @ (one - skew).inverse()


def _rotated(blocks: Tensor, limit: float, weight: Tensor, strength: float) -> Tensor:
    """Return the change by rotations of groups of rows (Qiu et al. 2023, arXiv:2306.07280).

    The strength counts twice, and `rescale` of files not at all, as in ComfyUI.
    """
    rotations = _rotations(blocks, limit, weight)
    one = torch.eye(rotations.shape[-1], dtype=weight.dtype, device=weight.device)
    groups = weight.unflatten(0, rotations.shape[:2])
    return strength * torch.einsum("knm,kn...->km...", rotations - one, groups).flatten(0, 1)


def _butterfly(blocks: Tensor, limit: float, rescale: Tensor | None, weight: Tensor, strength: float) -> Tensor:
    """Return the change by rotations of pairs of groups ever further apart (Liu et al. 2023, arXiv:2311.06243).

    The strength counts twice, as in ComfyUI.
    """
    one = torch.eye(blocks.shape[-1], dtype=weight.dtype, device=weight.device)
    rows = weight
    for level, rotations in enumerate(_rotations(blocks, limit, weight)):
        distance = 2**level * (blocks.shape[-1] // 2)
        pairs = rows.unflatten(0, (-1, 2, distance)).transpose(1, 2).flatten(0, 2)
        turned = torch.einsum(
            "bij,bj...->bi...", torch.lerp(one, rotations, strength), pairs.unflatten(0, (-1, len(one)))
        )
        rows = turned.flatten(0, 1).unflatten(0, (-1, distance, 2)).transpose(1, 2).flatten(0, 2)
    return (rows if rescale is None else rows * rescale.to(rows)) - weight
