"""What the scheduler bridge costs: a call through it beside the same `scheduler.step` called bare.

The model answers at once with fixed latents, so that only the bridge is timed; runs of both kinds alternate in one
process, in processor time, and medians over pairs count. The ratio says how much of a scheduler's own work the bridge
is, which users do not feel: Euler's own work is three operations. The budget is of a real step: what the bridge adds
to a call is at most 2 % of a step of Stable Diffusion 1.5 at 512 px with guidance, on a fast GPU (its operations are
counted, not run) and on this processor (`--network` runs it).

    python benchmarks/scheduler_bridge.py                       512 px of Stable Diffusion
    python benchmarks/scheduler_bridge.py --shape 1 16 128 128  1024 px of Flux
    python benchmarks/scheduler_bridge.py --network             and a step of the network, which takes a minute and 4 GB
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tessera.host.sampling import model_sampling as host
from tessera.samplers import build, registry, sampler, spacing
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

# Of a step.
BUDGET = 0.02
# Operations a second that a network of this size reaches in half precision on an H100, a fifth of its dense peak.
GPU = 200e12
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


def bare(entry: registry.SchedulerEntry, x: Tensor, answer: Tensor, steps: int) -> float:
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


def bridged(entry: registry.SchedulerEntry, x: Tensor, answer: Tensor, steps: int) -> float:
    """Seconds of a call through the bridge, from the first step of a run to its last."""
    model = Instant(answer)
    sigmas = spacing.sigmas(entry, model.model_sampling, steps)
    choice = sampler.Choice(entry)
    times = []
    sampler.sample(model, x, sigmas, {"seed": 0}, lambda step: times.append(time.process_time()), choice=choice)
    calls_between = {"n": steps - 1, "n + 1": steps, "2n - 1": 2 * (steps - 1)}[entry.calls]
    return (times[-1] - times[0]) / calls_between


def unet(device: str) -> UNet2DConditionModel:
    """Stable Diffusion 1.5's network, with random weights."""
    with torch.device(device):
        return UNet2DConditionModel(cross_attention_dim=768).eval()


def network_step(network: UNet2DConditionModel, device: str) -> Tensor:
    """One prediction for the prompt and its negative, at 512 px."""
    x, text = torch.zeros(2, 4, 64, 64, device=device), torch.zeros(2, 77, 768, device=device)
    with torch.no_grad():
        return network(x, torch.tensor(500.0, device=device), text, return_dict=False)[0]


def operations() -> float:
    """Additions and multiplications of `network_step`."""
    with FlopCounterMode(display=False) as counter:
        network_step(unet("meta"), "meta")
    return counter.get_total_flops()


def seconds_of_network() -> float:
    """Seconds of processor time of a step on this processor, after one to warm up; the median of three."""
    network, times = unet("cpu"), []
    for _ in range(4):
        start = time.process_time()
        network_step(network, "cpu")
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(1, 4, 64, 64))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--network", action="store_true", help="run a step of Stable Diffusion 1.5's shape, too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    x, answer = (torch.randn(*args.shape) for _ in range(2))
    ratios, added = [], []
    for entry in registry.ENTRIES:
        if entry.name in LEFT_OUT:
            continue
        pairs = [(bare(entry, x, answer, args.steps), bridged(entry, x, answer, args.steps)) for _ in range(args.pairs)]
        ratios.append(statistics.median(through / plain for plain, through in pairs))
        plain, through = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        added.append(statistics.median(through - plain for plain, through in pairs))
        print(f"{entry.name:34} bare {plain:6.3f} ms, bridged {through:6.3f} ms, ratio {ratios[-1]:.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}")
    print(f"added to a call: median {statistics.median(added) * 1e3:.3f} ms, worst {max(added) * 1e3:.3f} ms")
    steps = {f"a GPU at {GPU / 1e12:.0f} TFLOP/s": operations() / GPU}
    if args.network:
        steps["this processor"] = seconds_of_network()
    for where, step in steps.items():
        share = max(added) / step
        verdict = "within" if share <= BUDGET else "OVER"
        print(f"worst of a step on {where}, {step * 1e3:.1f} ms: {share:.2%}, budget {BUDGET:.0%}: {verdict}")


if __name__ == "__main__":
    main()
