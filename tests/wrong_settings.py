"""Settings that are wrong whatever is linked, one case for each rule of the pack's nodes, for both hosts."""

from __future__ import annotations

from typing import Any

import pytest

RANGE = {"start_percent": 0.8, "end_percent": 0.2}
LONG = "a" * 300
SECOND_PASS = {
    "seed": 1,
    "factor": 4.0,
    "denoise": 0.5,
    "steps": 9,
    "cfg": 2.0,
    "sampler_name": "euler",
    "scheduler": "normal",
}

# node id, what is typed in or linked beside its required links, an input that is at fault, what the line must hold
CASES: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("TesseraSeamlessModel", {"tiling": "both", **RANGE}, "start_percent", ["0.8", "0.2", "end_percent"]),
    ("TesseraSeamlessModel", {"tiling": "brick", "method": "rolling"}, "method", ["rolling", "straight"]),
    ("TesseraSeamlessModel", {"tiling": "both", "end_percent": 1.5}, "end_percent", ["1.5", "1.0"]),
    ("TesseraSeamlessModel", {"tiling": "bth"}, "tiling", ["bth", "both"]),
    ("TesseraSeamlessModel", {"tiling": "both", "method": "torus"}, "method", ["torus", "torus_rope"]),
    ("TesseraSeamlessVAE", {"tiling": "bth"}, "tiling", ["bth", "both"]),
    ("TesseraOffsetImage", {"x": 50.0}, "x", ["50", "percent"]),
    ("TesseraOffsetImage", {"y": 101.0, "unit": "percent"}, "y", ["101", "100"]),
    ("TesseraFluxNegative", {"strength": 4.0, **RANGE}, "start_percent", ["0.8", "0.2", "end_percent"]),
    ("TesseraFluxNegative", {"strength": 11.0}, "strength", ["11.0", "10"]),
    ("TesseraFluxNegative", {"strength": 4.0, "method": "nagg"}, "method", ["nag"]),
    ("TesseraImagePrompt", RANGE, "start_percent", ["0.8", "0.2", "end_percent"]),
    ("TesseraImagePrompt", {"blocks": "up_blocks.1"}, "blocks", ["up_blocks.1", "weight"]),
    ("TesseraImagePrompt", {"blocks": "all=nan"}, "blocks", ["all=nan", "weight"]),
    ("TesseraImagePrompt", {"start_percent": -0.1}, "start_percent", ["-0.1", "0.0"]),
    ("TesseraLoadReference", {"reference": "red zigzag (demo)", **RANGE}, "start_percent", ["0.8", "end_percent"]),
    ("TesseraLoadReference", {"reference": "red zigzag (demo)", "blocks": "=1"}, "blocks", ["=1", "weight"]),
    ("TesseraScheduler", {"scheduler": "DDIM", "steps": 9}, "scheduler", ["DDIM", "DDIMScheduler"]),
    ("TesseraScheduler", {"scheduler": "DDIMScheduler", "steps": 9, "solver_order": 2}, "solver_order", ["eta"]),
    ("TesseraScheduler", {"scheduler": "DDIMScheduler", "steps": 1001}, "steps", ["1001", "1000"]),
    ("TesseraScheduler", {"scheduler": "DDIMScheduler", "steps": 9, "eta": 2.0}, "eta", ["2.0", "1.0"]),
    (
        "TesseraScheduler",
        {
            "scheduler": "EDMDPMSolverMultistepScheduler",
            "steps": 9,
            "solver_order": 3,
            "algorithm_type": "sde-dpmsolver++",
        },
        "solver_order",
        ["EDMDPMSolverMultistepScheduler", "algorithm_type", "3"],
    ),
    (
        "TesseraSchedulerKSampler",
        {"scheduler": "PNDMScheduler", "steps": 9, "seed": 1, "cfg": 2.0, "eta": 0.5},
        "eta",
        ["PNDMScheduler"],
    ),
    (
        "TesseraSchedulerCompare",
        {"schedulers": "DDIM, Eulr", "steps": 9, "seed": 1, "cfg": 2.0},
        "schedulers",
        ["Eulr", "EulerDiscreteScheduler"],
    ),
    ("TesseraSchedulerCompare", {"schedulers": " , ", "steps": 9, "seed": 1, "cfg": 2.0}, "schedulers", ["none"]),
    (
        "TesseraSchedulerCompare",
        {"schedulers": "DDIMInverse", "steps": 9, "seed": 1, "cfg": 2.0},
        "schedulers",
        ["DDIMInverseScheduler"],
    ),
    ("TesseraSeeds", {"seeds": "1, two"}, "seeds", ["two"]),
    ("TesseraSeeds", {"seeds": ""}, "seeds", ["found 0 seeds"]),
    ("TesseraSaveImage", {"filename_prefix": "../moss"}, "filename_prefix", ["../moss", "output folder"]),
    ("TesseraSaveImage", {"filename_prefix": "/moss"}, "filename_prefix", ["/moss", "output folder"]),
    ("TesseraSaveImage", {"filename_prefix": ""}, "filename_prefix", ["output folder"]),
    ("TesseraSaveImage", {"filename_prefix": "moss\0"}, "filename_prefix", ["output folder"]),
    ("TesseraSaveImage", {"filename_prefix": LONG}, "filename_prefix", ["300", "240"]),
    ("TesseraSaveReference", {"filename_prefix": "a/../../moss"}, "filename_prefix", ["output folder"]),
    ("TesseraSaveReference", {"filename_prefix": f"{LONG}/moss"}, "filename_prefix", ["300", "240"]),
    ("TesseraSettings", {"family": "SDXL", "rules": "OctoAI", "width": 1000}, "width", ["1000x1024", "1024x1024"]),
    ("TesseraSettings", {"family": "SDXL", "rules": "Leonardo", "steps": 61}, "steps", ["61", "10 to 60"]),
    ("TesseraSettings", {"family": "Flux pro", "rules": "Scenario", "guidance": 9.0}, "guidance", ["9", "2 to 5"]),
    ("TesseraSettings", {"family": "SDXL", "rules": "Leonardo", "count": 8}, "count", ["8", "768"]),
    ("TesseraSettings", {"family": "SDXL", "rules": "Scenario", "aspect_ratio": "wide"}, "aspect_ratio", ["16:9"]),
    ("TesseraSettings", {"family": "SDXL", "rules": "Scenaro"}, "rules", ["Scenaro", "Scenario"]),
    (
        "TesseraSettings",
        {"family": "SDXL", "rules": "Scenario", "aspect_ratio": "wide", "width": ["settings", 0]},
        "aspect_ratio",
        ["16:9"],
    ),
    ("TesseraEnhancePrompt", {"prompt": " \n"}, "prompt", ["no words"]),
    ("TesseraEnhancePrompt", {"prompt": "moss", "instructions": "in winter"}, "instructions", ["rules"]),
    ("TesseraEnhancePrompt", {"prompt": "moss", "model": "rule"}, "model", ["rules"]),
    ("TesseraWrapPad", {"padding": 12, "latent": ["latent", 0]}, "padding", ["12", "8"]),
    ("TesseraWrapPad", {"padding": 64}, "padding", ["Nothing is connected"]),
    ("TesseraWrapPad", {"padding": 5000, "image": ["image", 0]}, "padding", ["5000", "4096"]),
    ("TesseraWrapCrop", {"blend": 0.5}, "blend", ["Nothing is connected"]),
    ("TesseraWrapCrop", {"blend": 1.5, "image": ["image", 0]}, "blend", ["1.5", "1.0"]),
    ("TesseraControlImage", {"method": "hed"}, "method", ["hed", "controlnet_aux"]),
    ("TesseraControlImage", {"method": "soft_edge"}, "method", ["soft_edge", "soft_edges"]),
    ("TesseraSecondPass", {**SECOND_PASS, "factor": 5.0}, "factor", ["5.0", "4.0"]),
]

RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("TesseraSeamlessModel", {"tiling": "off", **RANGE}),
    ("TesseraSeamlessModel", {"tiling": "off", "method": "rolling"}),
    ("TesseraSeamlessModel", {"tiling": "both", "start_percent": 0.8, "end_percent": ["settings", 3]}),
    ("TesseraFluxNegative", {"strength": 0.0, **RANGE}),
    ("TesseraImagePrompt", {"start_percent": 0.5, "end_percent": 0.5, "blocks": "all=0.2, up_blocks.1 = 1,"}),
    ("TesseraScheduler", {"scheduler": "DDIMScheduler", "steps": 500, "denoise": 0.5, "eta": 0.0}),
    (
        "TesseraScheduler",
        {"scheduler": "DDIMScheduler", "steps": 900, "denoise": ["settings", 3], "eta": ["settings", 3]},
    ),
    ("TesseraSchedulerCompare", {"schedulers": "all", "steps": 9, "seed": 1, "cfg": 2.0}),
    ("TesseraSchedulerCompare", {"schedulers": ["settings", 5], "steps": 9, "seed": 1, "cfg": 2.0}),
    ("TesseraSaveImage", {"filename_prefix": "a/b/../%year%_moss"}),
    ("TesseraSettings", {"family": "SDXL", "rules": "OctoAI", "width": 1000, "snap": True}),
    ("TesseraSettings", {"family": "SDXL", "rules": "OctoAI", "width": ["settings", 0]}),
    ("TesseraEnhancePrompt", {"prompt": ["settings", 5]}),
    ("TesseraWrapPad", {"padding": 12, "latent": ["latent", 0], "mask": ["tile", 1]}),
    ("TesseraWrapPad", {"padding": ["settings", 0], "latent": ["latent", 0]}),
    ("TesseraControlImage", {"method": "normal"}),
    ("TesseraSecondPass", {**SECOND_PASS, "factor": ["settings", 3], "vae": ["demo", 2]}),
]


def wrong() -> list[Any]:
    """Each case, under a name that lasts when others are added."""
    return [pytest.param(*case, id=f"{case[0]}-{case[2]}-{number}") for number, case in enumerate(CASES)]


def right() -> list[Any]:
    """Settings that are at a limit, linked or of no effect, so that nothing can be said against them."""
    return [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(RIGHT)]
