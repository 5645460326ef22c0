"""What the scheduler bridge costs: a step through it over the same `scheduler.step` called bare. Budget: 1.5.

The model answers at once with fixed latents, so that only the bridge is timed; runs of both kinds alternate in one
process, in processor time, and the ratio is the median over pairs.

    python benchmarks/scheduler_bridge.py                       512 px of Stable Diffusion
    python benchmarks/scheduler_bridge.py --shape 1 16 128 128  1024 px of Flux
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from tessera.host import model_sampling as host
from tessera.samplers import build, registry, sampler, spacing
from torch import Tensor

BUDGET = 1.5
# These have no `step` of diffusers' usual form to compare with.
LEFT_OUT = {"KarrasVeScheduler", "ScoreSdeVeScheduler", "DDIMInverseScheduler"}


class Epsilon(host.ModelSamplingDiscrete, host.EPS):
    """Stable Diffusion's."""


class Instant:
    """A model that answers with the same latents at once."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer
        self.model_sampling = Epsilon()
        self.inner_model = SimpleNamespace(inner_model=self)
        self.latent_image, self.noise = None, None

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        return self.answer


def bare(entry: registry.Entry, x: Tensor, answer: Tensor, steps: int) -> float:
    """Seconds of a step, bare."""
    scheduler = build.make(
        entry.name,
        {**entry.config, "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012},
    )
    arguments = {"original_inference_steps": steps} if "LCM" in entry.name else {}
    scheduler.set_timesteps(steps, **arguments)
    generator = torch.Generator().manual_seed(0)
    takes = build.only_known(scheduler.step, {"generator": generator})
    timesteps = scheduler.timesteps
    scheduler.is_scale_input_called = True
    start = time.process_time()
    for t in timesteps:
        x = scheduler.step(answer, t, x, return_dict=False, **takes)[0]
    return (time.process_time() - start) / len(timesteps)


def bridged(entry: registry.Entry, x: Tensor, answer: Tensor, steps: int) -> float:
    """Seconds of a call through the bridge, from the first step of a run to its last."""
    model = Instant(answer)
    sigmas = spacing.sigmas(entry, model.model_sampling, steps)
    choice = sampler.Choice(entry)
    times = []
    sampler.sample(model, x, sigmas, {"seed": 0}, lambda step: times.append(time.process_time()), choice=choice)
    calls_between = {"n": steps - 1, "n + 1": steps, "2n - 1": 2 * (steps - 1)}[entry.calls]
    return (times[-1] - times[0]) / calls_between


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(1, 4, 64, 64))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    x, answer = (torch.randn(*args.shape, device=args.device) for _ in range(2))
    ratios = []
    for entry in registry.ENTRIES:
        if entry.name in LEFT_OUT:
            continue
        pairs = [(bare(entry, x, answer, args.steps), bridged(entry, x, answer, args.steps)) for _ in range(args.pairs)]
        ratios.append(statistics.median(through / plain for plain, through in pairs))
        plain, through = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        print(f"{entry.name:34} bare {plain:6.3f} ms, bridged {through:6.3f} ms, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, worst {max(ratios):.2f}, budget {BUDGET}")


if __name__ == "__main__":
    main()
