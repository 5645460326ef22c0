"""Rolling: shifts that cover the image, what moves along, and two cuts that hide each other's seam."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from margins import within
from naming import naming
from tessera.patching.calls import WHOLE_TOKENS, DenoiserCall
from tessera.patching.control_networks import has_token_images
from tessera.patching.networks import Network
from tessera.tiling.axes import TILINGS
from tessera.tiling.circular import NotPeriodicError
from tessera.tiling.dit import FEWEST_STEPS, PHASES, TorusDiT, phase_at
from tessera.tiling.roll import roll
from tessera.tiling.rolling import Rolling, blend_cuts, roll_control, shift_at
from torch import Tensor, nn

BOTH = TILINGS["both"]
TOKENS_OF_TWO: Any = SimpleNamespace(patch_size=(1, 2, 2), modules=lambda: iter(()))


def test_shifts_are_whole_units_along_wrapping_axes_and_spread() -> None:
    shifts = [shift_at(seed=2**63, index=i, size=(64, 48), axes=BOTH, unit=2) for i in range(30)]
    assert all(down % 2 == right % 2 == 0 and 0 <= down < 64 and 0 <= right < 48 for down, right in shifts)
    for values, length in zip(zip(*shifts, strict=True), (64, 48), strict=True):
        gaps = torch.tensor(sorted(values)).diff(append=torch.tensor([min(values) + length]))
        assert int(gaps.max()) <= length // 6
    assert shift_at(1, 3, (64, 48), BOTH, 2) == shift_at(1, 3, (64, 48), BOTH, 2)
    assert shift_at(1, 3, (64, 48), TILINGS["horizontal"], 2)[0] == 0
    assert shift_at(1, 3, (64, 48), TILINGS["vertical"], 2)[1] == 0


def _seamed(x: Tensor) -> Tensor:
    """A model that knows positions: it draws a ramp from the left edge to the right one."""
    return x + torch.linspace(-1, 1, x.shape[-1])


def test_two_cuts_hide_the_seam_of_each_other() -> None:
    x = torch.zeros(1, 1, 8, 32)

    def run(shift: tuple[int, int]) -> Tensor:
        return _seamed(x.roll(shift, (-2, -1))).roll((-shift[0], -shift[1]), (-2, -1))

    axes = TILINGS["horizontal"]
    one, blended = run((0, 6)), blend_cuts(run, (0, 6), (8, 32), axes, unit=2)
    steps = [(y - y.roll(1, -1)).abs().mean((0, 1, 2)) for y in (one, blended)]
    assert steps[0].max() > 1.9
    assert steps[1].max() < 0.3
    same = blend_cuts(lambda _: x + 3, (0, 6), (8, 32), axes, unit=2)
    torch.testing.assert_close(same, x + 3)


@pytest.mark.parametrize("tiling", ["both", "horizontal", "vertical"])
@pytest.mark.parametrize("shift", [(0, 0), (4, 6), (12, 2)])
def test_a_cut_weighs_nothing_where_its_seam_lies_and_all_where_the_others_does(
    tiling: str, shift: tuple[int, int]
) -> None:
    axes, height, width = TILINGS[tiling], 16, 24
    shift = (shift[0] * axes.vertical, shift[1] * axes.horizontal)
    seen: list[tuple[int, int]] = []

    def run(moved: tuple[int, int]) -> Tensor:
        seen.append(moved)
        return torch.full((1, 1, height, width), 1.0 if len(seen) == 1 else 0.0)

    weight = blend_cuts(run, shift, (height, width), axes, unit=2)[0, 0]
    (down, right), other = shift, seen[1]
    assert seen[0] == shift
    assert [(b - a) * 2 for a, b in zip(shift, other, strict=True)] == [height * axes.vertical, width * axes.horizontal]
    # An image that is moved down by `down` is cut at the row `-down`.
    rows, columns = weight[-down % height], weight[:, -right % width]
    theirs = weight[-other[0] % height], weight[:, -other[1] % width]
    far = height // 4, width // 4
    if axes.vertical and not axes.horizontal:
        assert rows.max() < 0.02 and theirs[0].min() > 0.98
    if axes.horizontal and not axes.vertical:
        assert columns.max() < 0.02 and theirs[1].min() > 0.98
    if axes.horizontal and axes.vertical:
        assert weight.roll((down, right), (0, 1))[2 * far[0], 2 * far[1]] > 0.98
        assert weight.roll(other, (0, 1))[2 * far[0], 2 * far[1]] < 0.02
    # The two lines of pixels at a seam are as far from it as each other.
    moved = weight.roll((down, right), (0, 1))
    # Where both seams cross, weights are quotients of numbers that are 1e-4 at least.
    assert within((moved - moved.flip(0, 1)).abs().max(), torch.finfo(torch.float32).eps / 1e-4)


def test_what_has_the_size_of_the_latents_moves_along() -> None:
    """The network adds up what it is given; moved along, all of it lies in one place again."""
    sigmas = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    x, extra, reference = (torch.randn(1, 2, 8, 12, generator=generator) for _ in range(3))
    tokens = torch.randn(1, 24, 2, generator=generator)
    coarse = torch.randn(1, 2, 4, 6, generator=generator)
    seen: dict[str, Any] = {}

    def network(
        x: Tensor, t: Tensor, c_concat: Tensor, text: Tensor, control: Any, options: dict[str, Any], ref_latents: Any
    ) -> Tensor:
        seen.update(text=text, options=options)
        grid = control["output"][1].unflatten(1, (4, 6)).movedim(-1, 1)
        small = control["output"][0] + grid
        return x + c_concat + ref_latents[0] + small.repeat_interleave(2, -1).repeat_interleave(2, -2)

    call = {
        "x": x,
        "t": torch.tensor([3.0]),
        "c_concat": extra,
        "c_crossattn": torch.ones(1, 8, 12),
        "control": {"output": [coarse, tokens]},
        "transformer_options": {"sample_sigmas": sigmas, "tessera_seed": 5},
        "ref_latents": [reference],
    }
    setattr(network, "class_obj", SimpleNamespace(diffusion_model=TOKENS_OF_TWO))  # noqa: B010
    out = Rolling(BOTH).step(DenoiserCall(network, call), BOTH)
    still = network(x, call["t"], extra, call["c_crossattn"], call["control"], {}, [reference])
    torch.testing.assert_close(out, still)
    assert seen["text"] is call["c_crossattn"]


def _calls(steps: int) -> list[int]:
    """Calls of a network in each step of a run that is rolled."""
    sigmas, counts = torch.linspace(4, 0, steps + 1), [0] * steps
    for step in range(steps):

        def network(x: Tensor, *_: Any, step: int = step) -> Tensor:
            counts[step] += 1
            return x

        setattr(network, "class_obj", SimpleNamespace(diffusion_model=TOKENS_OF_TWO))  # noqa: B010
        options = {"sample_sigmas": sigmas}
        call = {"x": torch.zeros(1, 1, 8, 12), "t": sigmas[step : step + 1], "c_concat": None, "c_crossattn": None}
        call |= {"control": None, "transformer_options": options}
        Rolling(BOTH).step(DenoiserCall(network, call), BOTH)
    return counts


def test_the_last_quarter_of_the_steps_has_two_cuts() -> None:
    assert _calls(12) == [1] * 9 + [2] * 3
    assert _calls(20) == [1] * 15 + [2] * 5
    assert _calls(3) == [1, 1, 1]


def test_the_report_says_how_many_steps_take_twice_the_time() -> None:
    promised = re.search(r"last (\d+)% take twice", Rolling(BOTH).summary(Network(nn.Linear(1, 1), 4)))
    assert promised is not None
    assert sum(_calls(100)) == 100 + int(promised[1])


def test_residuals_of_another_shape_are_refused() -> None:
    assert roll_control(None, (2, 2), (8, 12), 2) is None
    with pytest.raises(ValueError, match=naming("(1, 7, 3)", "12 x 8")):
        roll_control(torch.zeros(1, 7, 3), (2, 2), (8, 12), 2)


def test_shifted_repeats_cannot_be_rolled() -> None:
    with pytest.raises(NotPeriodicError, match="only be rolled"):
        Rolling(TILINGS["brick"]).unit(Network(nn.Linear(1, 1), 4))


def test_units_are_read_from_the_network() -> None:
    assert Rolling(BOTH).unit(Network(TOKENS_OF_TWO, 16)) == 2
    assert Rolling(BOTH).unit(Network(nn.Linear(1, 1), 16)) == 1


@pytest.mark.parametrize("tiling", ["both", "brick", "half_drop"])
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 3), (2, 1), (-2, -1), (-1, 5)])
def test_moving_a_image_moves_the_plane_that_its_repeats_fill(tiling: str, shift: tuple[int, int]) -> None:
    axes, (height, width) = TILINGS[tiling], (6, 8)
    image = torch.randn(2, height, width, generator=torch.Generator().manual_seed(0))

    def plane(y: int, x: int) -> Tensor:
        (above, y), (left, x) = divmod(y, height), divmod(x, width)
        return image[
            :, (y - left * axes.half_drop * height // 2) % height, (x - above * axes.brick * width // 2) % width
        ]

    moved = roll(image, shift, axes)
    for y in range(height):
        for x in range(width):
            assert torch.equal(moved[:, y, x], plane(y - shift[0], x - shift[1]))
    assert torch.equal(roll(moved, (-shift[0], -shift[1]), axes), image)


def _call(step: int, steps: int = 20, **more: Any) -> DenoiserCall:
    sigmas = torch.linspace(1, 0, steps + 1)
    options = {"sample_sigmas": sigmas}
    return DenoiserCall(None, {"t": sigmas[step : step + 1], "control": None, "transformer_options": options} | more)


def test_the_grid_of_tokens_lies_elsewhere_at_each_step() -> None:
    assert [phase_at(_call(step), BOTH, 2) for step in range(5)] == [*PHASES, PHASES[0]]
    assert [phase_at(_call(step), TILINGS["vertical"], 4) for step in range(4)] == [(0, 0), (2, 0), (0, 0), (2, 0)]
    assert {phase_at(_call(step), BOTH, 1) for step in range(4)} == {(0, 0)}


def test_the_grid_of_tokens_stays_for_what_belongs_to_it_and_in_short_runs() -> None:
    assert phase_at(_call(1, FEWEST_STEPS), BOTH, 2) == (1, 1)
    assert phase_at(_call(1, FEWEST_STEPS - 1), BOTH, 2) == (0, 0)
    still = _call(1).options | {WHOLE_TOKENS: True}
    assert phase_at(_call(1, transformer_options=still), BOTH, 2) == (0, 0)
    assert phase_at(_call(1, transformer_options={}), BOTH, 2) == (0, 0)


def test_what_belongs_to_whole_tokens_is_found_in_a_run() -> None:
    control = SimpleNamespace(previous_controlnet=None)
    assert not has_token_images([{}, {"control": None}], {"patches": {"post_input": [1]}})
    assert has_token_images([{}, {"control": control}], {})
    assert has_token_images([{"reference_latents": [torch.zeros(1, 4, 8, 8)]}, {}], {})
    assert has_token_images([{}], {"patches": {"double_block": [1]}})
    assert has_token_images([{}], {"patches": {"noise_refiner": [1]}})
    assert has_token_images([{}], {"easycache": object()})


def test_the_report_promises_to_move_only_what_can_move() -> None:
    network: Any = nn.Module()
    network.pe_embedder = type("EmbedND", (nn.Module,), {})()
    for patch, moves in ((2, True), (1, False)):
        network.patch_size = patch
        assert ("by half a token" in TorusDiT(BOTH).summary(Network(network, 16))) is moves
