"""Published samplers with ComfyUI's numbers (drop-in replacement for `comfy.k_diffusion.sampling`).

Each is `sample_<name>(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, **options)`
and listed in `SAMPLERS` by name. They are written from the papers they cite and from Katherine Crowson's k-diffusion.
"""

from __future__ import annotations

from .cfg_pp import sample_euler_cfg_pp
from .dpm_solver import sample_dpm_adaptive, sample_dpm_fast
from .dpmpp import sample_dpmpp_2m, sample_dpmpp_2m_sde, sample_dpmpp_3m_sde, sample_dpmpp_sde
from .exponential import sample_res_multistep
from .karras import sample_dpm_2, sample_euler, sample_euler_ancestral, sample_heun, sample_lms
from .multistep import sample_ddpm, sample_deis, sample_ipndm, sample_lcm
from .registry import SAMPLERS
from .uni_pc import sample_uni_pc

__all__ = [
    "SAMPLERS",
    "sample_ddpm",
    "sample_deis",
    "sample_dpm_2",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_euler_cfg_pp",
    "sample_heun",
    "sample_ipndm",
    "sample_lcm",
    "sample_lms",
    "sample_res_multistep",
    "sample_uni_pc",
]
