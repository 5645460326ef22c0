"""Sampling runs that this pack and ComfyUI make alike: a denoiser in closed form, prompts, and the list of runs.

Knows torch alone, so that ComfyUI's interpreter can import it (`comfyui/sample_closed_form.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Case = dict[str, Any]
TYPES = ("EPS", "V_PREDICTION", "FLOW", "FLUX")
# Steps of the schedules that are compared by themselves.
SCHEDULE_STEPS = (1, 2, 5, 20)


def denoiser(x: Tensor, t: Tensor, context: Tensor, flow: bool) -> Tensor:
    """Smooth stand-in for a network: latents (B, 4, H, W), times 0..1 (B,), text (B, L, D)."""
    t = t.reshape(-1, 1, 1, 1)
    mixed = 0.5 * x + 0.3 * x.roll(1, 1) + 0.2 * x.roll(1, 2) - 0.4 * x.roll(1, 3)
    text = context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)
    slope = (2 * t - 1) / (t**2 + (1 - t) ** 2) if flow else 0.1 + 0.85 * t
    return slope * x + 0.3 * torch.tanh(mixed + text) + 0.2 * text * torch.cos(3 * t)


class Analytic(torch.nn.Module):
    """The denoiser in the place of a UNet. Counts its calls."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.batches: list[int] = []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, **kwargs: Any) -> tuple[Tensor]:
        self.batches.append(x.shape[0])
        flow = self.kind in ("FLOW", "FLUX")
        return (denoiser(x, {"FLOW": t / 1000, "FLUX": t}.get(self.kind, t / 999.0), context, flow),)


def settings(kind: str, zsnr: bool = False) -> dict[str, Any]:
    """Sampling settings of a model type."""
    return {"zsnr": zsnr} | ({"shift": 3.0} if kind == "FLOW" else {})


def image() -> Tensor:
    return torch.sin(torch.arange(128.0) * 1.7).reshape(2, 4, 4, 4) * 3


def mask() -> Tensor:
    """Where an image changes: four columns, from kept to free."""
    return torch.arange(16).reshape(1, 1, 4, 4) % 4 / 3.0


def texts() -> tuple[Tensor, Tensor]:
    i = torch.arange(15.0)
    return torch.cos(i).reshape(1, 3, 5), torch.sin(i * 0.7).reshape(1, 3, 5)


def prompts(kind: str | None) -> tuple[list[list[Any]], list[list[Any]]]:
    pos, neg = texts()
    where = torch.linspace(0, 1, 64).reshape(8, 8)
    positive: dict[str | None, list[list[Any]]] = {
        None: [[pos, {}]],
        "areas": [
            [pos, {}],
            [pos * 2, {"area": (2, 3, 1, 1), "strength": 0.7}],
            [pos * -1, {"area": ("percentage", 0.5, 0.5, 0.0, 0.5)}],
        ],
        "masks": [[pos, {"mask": where, "mask_strength": 0.8}], [pos * -1, {"mask": (where > 0.6).float()[None]}]],
        "percents": [
            [pos, {"start_percent": 0.0, "end_percent": 0.5}],
            [pos * -1, {"start_percent": 0.5, "end_percent": 1.0}],
        ],
        "lengths": [[torch.cat([pos, pos * 0.5], 1), {}]],
    }
    negative = [[neg, {}]]
    if kind == "percents":
        negative = [[neg, {"start_percent": 0.3}], [neg * 2, {"end_percent": 0.45}]]
    return positive[kind], negative


def area_prompts() -> tuple[list[list[Any]], list[list[Any]]]:
    """Areas in cells, in parts of the image, and the bounds of a mask, on 16 x 16 cells."""
    pos, neg = texts()
    where = torch.zeros(32, 32)
    where[4:20, 6:30] = 1.0
    positive = [
        [pos, {}],
        [pos * 2, {"area": (8, 10, 4, 0), "strength": 0.7}],
        [pos * -1, {"area": ("percentage", 0.5, 0.75, 0.5, 0.25)}],
        [pos * 3, {"mask": where, "set_area_to_bounds": True}],
    ]
    return positive, [[neg, {}]]


def _case(kind: str, sampler: str, scheduler: str, steps: int, **more: Any) -> Case:
    return {"type": kind, "sampler": sampler, "scheduler": scheduler, "steps": steps, "cfg": 3.0, "seed": 7, **more}


def _eps(sampler: str, steps: int = 6, **more: Any) -> Case:
    """A run whose result does not hang on the last bit of a number.

    An odd number of `normal` levels has one just between two of the table, and the model would be told either; some
    samplers ask for one level more than steps, and SA-Solver's own range of noise ends at a level of `normal`.
    """
    one_more = sampler in ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")
    unsure = one_more or "sa_solver" in sampler or steps % 2 == 1
    return _case("EPS", sampler, "simple" if unsure and steps > 1 else "normal", steps, **more)


def cases(samplers: list[str], schedulers: list[str]) -> list[Case]:
    """Every sampler on a table of noise levels and on a flow, every schedule, and every other setting with a few."""
    out: list[Case] = []
    for name in samplers:
        out += [_eps(name), _case("EPS", name, "karras", 6, seed=123456789012)]
        out += [_case("FLUX", name, "simple", 6, **({"cfg": 1.0} if name == "euler" else {}))]
    for name in schedulers:
        # Where the last level is left out, it is the even numbers that have one between two of the table.
        steps = 7 if name == "sgm_uniform" else 8
        out += [_case(kind, "dpmpp_2m", name, steps) for kind in ("EPS", "V_PREDICTION", "FLOW")]
    for name in ("euler", "ddim", "dpmpp_2m_sde", "uni_pc", "euler_ancestral", "lms", "ipndm_v", "deis"):
        out += [
            _eps(name, denoise=0.5, image=True),
            _eps(name, denoise=0.7, image=True, mask=True),
            _eps(name, start=1, last=4, full=False),
            _eps(name, start=2, last=4, full=True, add_noise=False, image=True),
        ]
    for name in ("euler", "dpmpp_sde", "heunpp2"):
        out += [_case("FLUX", name, "simple", 6, denoise=0.6, image=True, mask=True)]
        out += [_eps(name, conds=kind) for kind in ("areas", "masks", "percents", "lengths")]
        out += [_eps(name, cfg=1.0)]
    for steps in (1, 2, 3):
        for name in ("euler", "dpmpp_2m", "uni_pc", "heunpp2", "dpm_fast", "deis", "sa_solver"):
            out.append(_eps(name, steps))
    for name, steps in (("normal", 6), ("ddim_uniform", 6), ("sgm_uniform", 7)):
        out.append(_case("V_PREDICTION", "euler", name, steps, zsnr=True))
    return [*out, _eps("euler", batch_index=[3, 1])]
