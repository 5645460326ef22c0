"""Circular convolutions: networks commute with rolling their input, and are untouched afterwards."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from margins import within
from naming import naming
from peft import LoraConfig, inject_adapter_in_model
from tessera.patching.control_networks import controls
from tessera.patching.networks import Network
from tessera.tiling import circular as circular_module
from tessera.tiling.axes import TILINGS, Axes
from tessera.tiling.circular import NotPeriodicError, circular
from tessera.tiling.hooks import check_size, whole_axes
from tessera.tiling.seam import repeat
from tessera.tiling.unet import check_unet
from torch import Tensor, nn
from torch.nn import functional as F

EXACT = 1e-5
TOLERANCES = {torch.float32: EXACT, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""About five times the distance of neighbouring numbers at 1 in half precision."""
WRAPPING = ["both", "horizontal", "vertical"]

Run = Callable[[Tensor], Tensor]


def _predict(unet: Any, x: Tensor) -> Tensor:
    text = torch.linspace(-1, 1, 5 * 16).view(1, 5, 16).to(x)
    added = {"text_embeds": torch.ones(1, 16).to(x), "time_ids": torch.ones(1, 6).to(x)}
    return unet(x, 10, text, added_cond_kwargs=added).sample


def _decode(vae: Any, z: Tensor) -> Tensor:
    return vae.decode(z).sample


def _encode(vae: Any, x: Tensor) -> Tensor:
    return vae.encode(x).latent_dist.mean


def _shifts(axes: Axes, down: int, right: int) -> tuple[int, int]:
    return down * axes.vertical, right * axes.horizontal


def _error(run: Run, x: Tensor, shift: tuple[int, int], scale: float) -> float:
    """Relative L2 distance between the output for a rolled input and the rolled output."""
    rolled, moved = run(x.roll(shift, (-2, -1))), run(x).roll([round(s * scale) for s in shift], (-2, -1))
    return float((rolled - moved).norm() / moved.norm())


@pytest.mark.parametrize("tiling", WRAPPING)
@pytest.mark.parametrize(
    ("network", "run", "shape", "shift", "scale"),
    [
        ("wan_vae", _decode, (1, 4, 1, 6, 8), (1, 3), 4),
        ("wan_vae", _encode, (1, 3, 5, 24, 32), (4, 12), 1 / 4),
        ("qwen_vae", _decode, (1, 4, 2, 6, 8), (1, 3), 4),
        ("qwen_vae", _encode, (1, 3, 1, 24, 32), (4, 12), 1 / 4),
        ("sd15_unet", _predict, (1, 4, 16, 24), (8, 8), 1),
        ("sdxl_unet", _predict, (1, 4, 12, 16), (4, 8), 1),
        ("autoencoder", _decode, (1, 4, 6, 8), (1, 3), 8),
        ("autoencoder", _encode, (1, 3, 48, 64), (8, 24), 1 / 8),
    ],
)
def test_rolling_the_input_rolls_the_output(
    request: pytest.FixtureRequest,
    network: str,
    run: Callable[[Any, Tensor], Tensor],
    shape: tuple[int, ...],
    shift: tuple[int, int],
    scale: float,
    tiling: str,
) -> None:
    module, axes = request.getfixturevalue(network), TILINGS[tiling]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    moved = _shifts(axes, *shift)
    plain = _error(partial(run, module), x, moved, scale)
    with circular(module, axes):
        wrapped = _error(partial(run, module), x, moved, scale)
    assert wrapped <= EXACT
    assert plain > 500 * EXACT


@pytest.mark.parametrize(
    ("network", "run", "shape", "shift", "scale"),
    [
        ("sd15_unet", _predict, (1, 4, 16, 24), (8, 8), 1),
        ("autoencoder", _decode, (2, 4, 6, 8), (1, 3), 8),
        ("autoencoder", _encode, (1, 3, 48, 64), (8, 24), 1 / 8),
    ],
)
def test_rings_that_are_computed_anew_are_what_padding_gives(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    run: Callable[[Any, Tensor], Tensor],
    shape: tuple[int, ...],
    shift: tuple[int, int],
    scale: float,
) -> None:
    module = request.getfixturevalue(network)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with circular(module, TILINGS["both"]):
        padded = run(module, x)
        monkeypatch.setattr(circular_module, "RING", 0)
        ring = run(module, x)
        assert _error(partial(run, module), x, shift, scale) <= EXACT
    assert float((ring - padded).norm() / padded.norm()) <= EXACT


@pytest.mark.parametrize("tiling", WRAPPING)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("network", "run", "shape", "shift", "scale"),
    [("sd15_unet", _predict, (1, 4, 16, 24), (8, 8), 1), ("autoencoder", _decode, (1, 4, 6, 8), (1, 3), 8)],
)
def test_networks_wrap_in_their_own_precision(
    request: pytest.FixtureRequest,
    network: str,
    run: Callable[[Any, Tensor], Tensor],
    shape: tuple[int, ...],
    shift: tuple[int, int],
    scale: float,
    dtype: torch.dtype,
    tiling: str,
) -> None:
    module, axes = deepcopy(request.getfixturevalue(network)).to(dtype), TILINGS[tiling]
    exact = deepcopy(module).double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    moved = _shifts(axes, *shift)
    assert _error(partial(run, module), x, moved, scale) > 0.5
    with circular(module, axes), circular(exact, axes):
        made, wanted = run(module, x), run(exact, x.double())
        rounding = float((made.double() - wanted).norm() / wanted.norm())
        assert rounding <= 10 * TOLERANCES[dtype]
        # Both runs are rounded, each in its own way.
        assert within(_error(partial(run, module), x, moved, scale), 3 * 2**0.5 * rounding)
    assert made.dtype == dtype
    assert bool(made.isfinite().all())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("size", [(512, 512), (2, 2**17), (1, 2**18)])
@pytest.mark.parametrize("bias", [True, False])
def test_large_images_wrap_exactly(size: tuple[int, int], bias: bool, dtype: torch.dtype) -> None:
    conv, x = nn.Conv2d(2, 2, 3, padding=1, groups=2, bias=bias).to(dtype), torch.randn(1, 2, *size).to(dtype)
    with torch.no_grad(), circular(conv, TILINGS["both"]):
        made = conv(x)
    padded = F.pad(x, (1, 1, 1, 1), mode="circular")
    tolerance = TOLERANCES[dtype]
    expected = F.conv2d(padded, conv.weight, conv.bias, groups=2)
    torch.testing.assert_close(made, expected, atol=tolerance / 10, rtol=tolerance)


@pytest.mark.parametrize("kind", ["half_drop", "brick"])
@pytest.mark.parametrize(
    ("network", "run", "shape", "unit", "scale"),
    [
        ("sd15_unet", _predict, (1, 4, 16, 16), 8, 1),
        ("autoencoder", _decode, (1, 4, 6, 8), 1, 8),
        ("autoencoder", _encode, (1, 3, 48, 64), 8, 1 / 8),
    ],
)
def test_shifted_repeats_are_the_straight_repeat_of_two(
    request: pytest.FixtureRequest,
    network: str,
    run: Callable[[Any, Tensor], Tensor],
    shape: tuple[int, ...],
    unit: int,
    scale: float,
    kind: str,
) -> None:
    """One period of a brick lattice is the upper half of a straight one that holds two rows of bricks."""
    module, axes = request.getfixturevalue(network), TILINGS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    double = repeat(x.movedim(1, -1), 1 + axes.half_drop, 1 + axes.brick, axes).movedim(-1, 1)
    with circular(module, axes):
        small = run(module, x)
    with circular(module, TILINGS["both"]):
        large = run(module, double)
    part = large[..., : small.shape[-2], : small.shape[-1]]
    assert float((part - small).norm() / small.norm()) <= EXACT
    with pytest.raises(NotPeriodicError, match="shifted by half"), circular(module, axes):
        odd = x[..., : shape[2] - unit, : shape[3] - unit] if scale != 1 else x[..., :15, :15]
        run(module, odd)


@pytest.mark.parametrize(("tiling", "shift"), [("horizontal", (8, 0)), ("vertical", (0, 8))])
def test_the_other_axis_keeps_its_edges(sd15_unet: Any, tiling: str, shift: tuple[int, int]) -> None:
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with circular(sd15_unet, TILINGS[tiling]):
        assert _error(partial(_predict, sd15_unet), x, shift, 1) > 0.05


def test_latent_that_is_no_torus_breaks_the_property(sd15_unet: Any) -> None:
    x = torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    with circular(sd15_unet, TILINGS["both"]):
        assert _error(partial(_predict, sd15_unet), x, (8, 0), 1) > 0.05


@pytest.mark.parametrize("kind", [None, RuntimeError, KeyboardInterrupt])
def test_afterwards_the_network_was_never_touched(autoencoder: Any, kind: type[BaseException] | None) -> None:
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    before, keys = _decode(autoencoder, z), {name: set(module.__dict__) for name, module in autoencoder.named_modules()}

    def stop(*_: object) -> None:
        if kind:
            raise kind

    hook = autoencoder.decoder.mid_block.register_forward_hook(stop)
    try:
        with circular(autoencoder, TILINGS["both"]):
            _decode(autoencoder, z)
        assert kind is None
    except (RuntimeError, KeyboardInterrupt):
        assert kind is not None
    hook.remove()
    assert torch.equal(_decode(autoencoder, z), before)
    assert {name: set(module.__dict__) for name, module in autoencoder.named_modules()} == keys


def test_nested_blocks_take_turns() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 1, 5, 6)
    with circular(conv, TILINGS["both"]):
        outer = conv(x)
        with circular(conv, TILINGS["horizontal"]):
            inner = conv(x)
            with circular(conv, TILINGS["off"]):
                off = conv(x)
        assert torch.equal(conv(x), outer)
    assert torch.equal(conv(x), off)
    assert not torch.allclose(inner, outer)
    assert not torch.allclose(inner, off)


def test_another_owner_of_the_hook_gets_it_back() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
    conv.__dict__["_conv_forward"] = other = lambda x, weight, bias: x * 7
    with circular(conv, TILINGS["both"]):
        assert conv(torch.ones(1, 1, 3, 3)).shape == (1, 1, 3, 3)
    assert conv.__dict__["_conv_forward"] is other


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    kernel=st.sampled_from([(3, 3), (1, 3), (5, 3), (3, 5)]),
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    tiling=st.sampled_from(WRAPPING),
)
def test_equals_the_convolution_of_the_repeated_image(
    height: int, width: int, kernel: tuple[int, int], stride: int, groups: int, tiling: str
) -> None:
    """Cut out of a 3 x 3 repeat (zeros where an axis does not wrap), the plain convolution gives the same."""
    axes = TILINGS[tiling]
    down, across = kernel[0] // 2, kernel[1] // 2
    conv = nn.Conv2d(2, 4, kernel, stride, (down, across), groups=groups).requires_grad_(False)
    x = torch.randn(2, 2, height, width)
    rows = [*range(height)] * 3 if axes.vertical else [*range(height)]
    columns = [*range(width)] * 3 if axes.horizontal else [*range(width)]
    repeated = F.pad(x[:, :, rows][:, :, :, columns], (across, across, down, down))
    top, left = height * axes.vertical, width * axes.horizontal
    cut = repeated[:, :, top : top + height + 2 * down, left : left + width + 2 * across]
    with circular(conv, axes):
        torch.testing.assert_close(conv(x), F.conv2d(cut, conv.weight, conv.bias, stride, groups=groups))


@pytest.mark.parametrize("tiling", WRAPPING)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (4, 3), (1, 2), (5, 4)])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
def test_padding_that_keeps_the_size_wraps(
    kind: type[nn.Conv2d | nn.Conv3d], kernel: tuple[int, int], dilation: int, tiling: str
) -> None:
    """Padding "same" has no number, and more at the end than at the start where the kernel is even."""
    frames = (4,) if kind is nn.Conv3d else ()
    size: Any = (*(2 for _ in frames), *kernel)
    conv = kind(2, 3, size, padding="same", dilation=dilation).requires_grad_(False)
    x, axes = torch.randn(1, 2, *frames, 9, 11), TILINGS[tiling]
    plain = conv(x)
    with circular(conv, axes):
        made = conv(x)
        assert _error(conv, x, _shifts(axes, 4, 5), 1) < EXACT
        with circular(conv, TILINGS["off"]):
            torch.testing.assert_close(conv(x), plain)
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(made[inside], plain[inside])
    if not axes.vertical:  # what rows see beyond the border stays
        torch.testing.assert_close(made[..., 4:-4], plain[..., 4:-4])
    if not axes.horizontal:
        torch.testing.assert_close(made[..., 4:-4, :], plain[..., 4:-4, :])
    assert conv.padding == "same"


def test_weights_cast_or_patched_by_a_subclass_arrive() -> None:
    class Cast(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight * 2, None)

    conv = Cast(1, 1, 3, padding=1).requires_grad_(False)
    x = torch.randn(1, 1, 4, 4)
    with circular(conv, TILINGS["both"]):
        expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), conv.weight * 2)
        torch.testing.assert_close(conv(x), expected)


def test_lora_on_convolutions_wraps_too() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1))
    adapted = inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"], init_lora_weights=False), network).eval()
    x = torch.randn(1, 2, 6, 6)
    with torch.no_grad(), circular(adapted, TILINGS["both"]):
        assert _error(adapted, x, (2, 3), 1) < EXACT
    with torch.no_grad():
        assert _error(adapted, x, (2, 3), 1) > 0.05


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(1, 1, 3),
        nn.ZeroPad2d(1),
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(1, 1, 3),
    ],
)
def test_layers_without_a_periodic_form_are_refused(layer: nn.Module) -> None:
    first = nn.Conv2d(1, 1, 3, padding=1)
    with (
        pytest.raises(NotPeriodicError, match=type(layer).__name__),
        circular(nn.Sequential(first, layer), TILINGS["both"]),
    ):
        pass
    assert "_conv_forward" not in first.__dict__


def test_layers_that_see_no_border_are_let_be() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 1),
        nn.Conv2d(1, 1, 2, 2),
        nn.Conv2d(1, 1, 1, padding="same"),
        nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(1, 1, (3, 1, 1), padding="same"),
    )
    with circular(layers, TILINGS["both"]):
        assert not any("_conv_forward" in layer.__dict__ for layer in layers)


def test_downsampling_is_read_from_the_network(sd15_unet: Any, sdxl_unet: Any, autoencoder: Any) -> None:
    assert Network(nn.ModuleDict({"inner": sd15_unet}), 4).downsampling == 8
    assert Network(sdxl_unet, 4).downsampling == 4
    with pytest.raises(ValueError, match="AutoencoderKL"):
        check_unet(Network(autoencoder, 4))


@pytest.mark.parametrize(
    ("size", "tiling", "words"),
    [
        ((64, 60), "both", naming("width", 64, 480, 448, 512)),
        ((60, 64), "vertical", naming("height", 64, 480, 448, 512)),
        ((64, 4), "horizontal", naming("width", 64, 32)),
        # Half of it has to be whole units, too.
        ((24, 64), "half_drop", naming("height", 128, 192, 256)),
        ((64, 24), "brick", naming("width", 128, 192, 256)),
        ((64, 60), "half_drop", naming("width", 64, 480, 448, 512)),
        ((60, 64), "brick", naming("height", 64, 480, 448, 512)),
    ],
)
def test_sizes_that_break_the_torus_name_the_nearest_good_ones(size: tuple[int, int], tiling: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_size(size, TILINGS[tiling], 8, 8)


def test_sizes_count_along_wrapping_axes_only() -> None:
    check_size((60, 64), TILINGS["horizontal"], 8, 8)
    check_size((64, 60), TILINGS["vertical"], 8, 8)
    check_size((33, 33), TILINGS["off"], 8, 8)


def test_repeats_that_are_shifted_by_half_need_a_middle_on_that_side_only() -> None:
    check_size((16, 24), TILINGS["half_drop"], 8, 8)
    check_size((24, 16), TILINGS["brick"], 8, 8)


def test_a_region_of_the_image_does_not_wrap() -> None:
    both = TILINGS["both"]
    assert whole_axes(both, (8, 16), (16, 16)) == Axes(True, False)
    assert whole_axes(both, (16, 16), (16, 16)) == whole_axes(both, (5, 5), None) == both


def test_controls_are_found_with_their_chain_once() -> None:
    class Canny:
        previous_controlnet = None

    class Depth:
        previous_controlnet = Canny()

    conds = [{"control": Depth()}, {}, {"control": Depth.previous_controlnet}]
    assert [type(control) for control in controls(conds)] == [Depth, Canny]
