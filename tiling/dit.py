"""Seamless transformers with rotary positions: torus RoPE."""

from __future__ import annotations

from torch import Tensor

from ..patching.calls import WHOLE_TOKENS, DenoiserCall, SamplingRun
from ..patching.control_networks import has_token_images
from ..patching.networks import Network
from .axes import Axes
from .circular import NotPeriodicError, circular, wrapping_convolutions
from .hooks import SeamlessHooks, token_size, tokens
from .rolling import Shift, run_rolled, schedule_of, step_index
from .torus import KnownGrids, rotary_embedders, torus

PHASES: tuple[Shift, ...] = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Offsets (down, right) of the token grid from step to step, in halves of a token."""

GRIDS = "tessera_torus_grids"
"""Option of a run: its `KnownGrids`."""

FEWEST_STEPS = 12
"""Shorter runs keep the grid in place: each of its offsets needs steps of its own."""


class TorusDiT(SeamlessHooks):
    """Round rotary frequencies to harmonics of the image, and make padded convolutions circular.

    Steps between tokens are a little larger than those inside, and the border of the image is between tokens. So the
    image moves by half a token from step to step, and every line is inside a token half of the time.
    """

    def unit(self, network: Network) -> int:
        """Return the side of a token.

        Raises:
            NotPeriodicError: there are no rotary positions, or the network does not say how large its tokens are.
        """
        if not any(rotary_embedders(network.module)):
            raise NotPeriodicError(
                f"The method torus_rope needs a transformer with rotary positions (Flux, Qwen-Image, Z-Image, Wan), "
                f"but the model is a {network.name}; use the method auto."
            )
        return token_size(network)

    def summary(self, network: Network) -> str:
        """Say that positions repeat, and whether the token grid moves."""
        list(wrapping_convolutions(network.module))
        positions = "rotary positions repeat with the image (torus RoPE)"
        if self.unit(network) % 2:
            return positions
        return f"{positions}, which runs of {FEWEST_STEPS} steps or more move by half a token from step to step"

    def around_run(self, run: SamplingRun) -> Tensor:
        """Decide once for the run whether the image may move by parts of a token."""
        conds = (cond for _, cond in run.conditionings)
        if has_token_images(conds, run.options):
            run.options[WHOLE_TOKENS] = True
        run.options[GRIDS] = KnownGrids()
        return super().around_run(run)

    def step(self, call: DenoiserCall, axes: Axes) -> Tensor:
        """Call the denoiser inside `torus` and `circular`; reference latents have their own period."""
        unit = self.unit(call.network)
        images = [call.x, *call.reference_latents]
        sizes = [tokens((p.shape[-2], p.shape[-1]), unit) for p in images]
        shift = phase_at(call, axes, unit)
        with torus(call.module, axes, sizes, known=call.options.get(GRIDS)), circular(call.module, axes):
            return run_rolled(call, unit, shift, axes)


def phase_at(call: DenoiserCall, axes: Axes, unit: int) -> Shift:
    """Return how far (down, right) in latents the image moves in this call: nothing or half of `unit`."""
    sigmas = schedule_of(call)
    if len(sigmas) - 1 < FEWEST_STEPS or call.options.get(WHOLE_TOKENS):
        return 0, 0
    down, right = PHASES[step_index(sigmas, call.level) % len(PHASES)]
    return down * (unit // 2) * axes.vertical, right * (unit // 2) * axes.horizontal
