"""A pytest plugin that records how near numeric comparisons come to their tolerances.

    pytest --margins 0        # print the nearest
    pytest --margins 3        # and fail each test in which one comes nearer than a factor of 3

The margin of a comparison is its tolerance over its error, at the worst element. One that must fail (`not allclose`)
has the inverse: how far apart the values are, in tolerances. Seen are `within` below, `torch.testing.assert_close`,
`torch.allclose` and `pytest.approx`, called by these names from a file of the tests. Not seen are bounds in plain
asserts, which say how good a method is (`seam.mean() < 0.02`) and not how it rounds, comparisons without a tolerance
(`torch.equal`, `rtol=0, atol=0`), and other words for a comparison (`math.isclose`, `Tensor.allclose`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import pytest
import torch

# By dtype, as torch.testing.assert_close documents them.
CLOSE = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
}
WORST_SHOWN = 15
_seen: list[tuple[float, str]] = []
_patches = pytest.MonkeyPatch()


def within(error: Any, tolerance: float) -> bool:
    """Tell whether an error (a number or a tensor of one) is below a tolerance that leaves room for rounding alone."""
    found = float(error)
    _record(found / tolerance, found < tolerance)
    return found < tolerance


def _record(ratio: float, held: bool) -> None:
    """Keep the margin of a comparison whose error is `ratio` times its tolerance."""
    margin = ratio if not held else 1 / ratio if ratio > 0 else float("inf")
    frame: Any = sys._getframe(1)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    name = frame.f_code.co_filename
    if not Path(name).is_relative_to(Path(__file__).parent):
        return
    _seen.append((margin, f"{Path(name).name}:{frame.f_lineno}"))


def _ratio(actual: Any, expected: Any, rtol: float, atol: float, either: bool = False) -> float:
    """The largest error over its tolerance, `atol + rtol * |expected|`, or the larger of `either`; 0 if exact."""
    a, e = (torch.as_tensor(value).detach().to("cpu", torch.float64) for value in (actual, expected))
    if not a.numel():
        return 0.0
    relative = rtol * e.abs()
    allowed = relative.clamp_min(atol) if either else relative + atol
    error = (a - e).abs()
    # Two infinities of one sign are equal.
    return float(torch.where((error == 0) | (a == e), 0.0, error / allowed).max())


def _close_ratio(actual: Any, expected: Any, rtol: float | None, atol: float | None) -> float:
    if isinstance(expected, Mapping):
        return max((_close_ratio(actual[key], value, rtol, atol) for key, value in expected.items()), default=0.0)
    if isinstance(expected, Sequence):
        pairs = zip(actual, expected, strict=True)
        return max((_close_ratio(*pair, rtol, atol) for pair in pairs), default=0.0)
    if not isinstance(expected, torch.Tensor | float):
        return 0.0
    dtype = expected.dtype if isinstance(expected, torch.Tensor) else torch.float64
    usual = CLOSE.get(dtype, (0.0, 0.0))
    return _ratio(actual, expected, usual[0] if rtol is None else rtol, usual[1] if atol is None else atol)


def _approx_ratio(actual: Any, expected: Any, rel: float | None, absolute: float | None) -> float:
    if isinstance(expected, Mapping):
        return max((_approx_ratio(actual[key], value, rel, absolute) for key, value in expected.items()), default=0.0)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        pairs = zip(actual, expected, strict=True)
        return max((_approx_ratio(*pair, rel, absolute) for pair in pairs), default=0.0)
    if not isinstance(expected, torch.Tensor | Real):
        return 0.0
    relative = (1e-6 if absolute is None else 0.0) if rel is None else rel
    return _ratio(actual, expected, relative, 1e-12 if absolute is None else absolute, either=True)


def _watched_assert_close(own: Any) -> Any:
    @functools.wraps(own)
    def assert_close(
        actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None, **more: Any
    ) -> None:
        own(actual, expected, rtol=rtol, atol=atol, **more)
        _record(_close_ratio(actual, expected, rtol, atol), True)

    return assert_close


def _watched_allclose(own: Any) -> Any:
    @functools.wraps(own)
    def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, **more: Any) -> bool:
        held = own(a, b, rtol=rtol, atol=atol, **more)
        _record(_ratio(a, b, rtol, atol), held)
        return held

    return allclose


def _watched_approx(own: Any) -> Any:
    @functools.wraps(own)
    def approx(expected: Any, rel: float | None = None, abs: float | None = None, **more: Any) -> Any:  # noqa: A002
        made = own(expected, rel=rel, abs=abs, **more)

        def equals(self: Any, actual: Any) -> bool:
            held = bool(super(type(self), self).__eq__(actual))
            try:
                _record(_approx_ratio(actual, expected, rel, abs), held)
            except (KeyError, TypeError, ValueError):
                # Not a number, or another shape: unequal for that reason.
                assert not held
            return held

        made.__class__ = type("watched", (type(made),), {"__eq__": equals, "__hash__": None})
        return made

    return approx


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--margins`."""
    group = parser.getgroup("margins", "how near numeric comparisons come to their tolerances")
    group.addoption("--margins", type=float, metavar="FACTOR", help="print the nearest, fail below a factor (0: never)")


def pytest_configure(config: pytest.Config) -> None:
    """Watch torch's and pytest's comparisons, where asked to."""
    if config.getoption("margins") is not None:
        _patches.setattr(torch.testing, "assert_close", _watched_assert_close(torch.testing.assert_close))
        _patches.setattr(torch, "allclose", _watched_allclose(torch.allclose))
        _patches.setattr(pytest, "approx", _watched_approx(pytest.approx))


def pytest_unconfigure() -> None:
    """Take the patches off."""
    _patches.undo()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Note the nearest comparison of a test on its report, and fail the test if it is too near."""
    _seen.clear()
    yield
    factor = item.config.getoption("margins")
    if factor is None or not _seen:
        return
    margin, line = min(_seen)
    # Workers of pytest-xdist send plain numbers alone.
    item.user_properties += [("margin", float(margin)), ("margin_line", line), ("comparisons", len(_seen))]
    if margin < factor:
        pytest.fail(f"{line}: a factor of {margin:.2f} from the tolerance, expected {factor:g}", pytrace=False)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the nearest comparisons."""
    if config.getoption("margins") is None:
        return
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    found = [(dict(each.user_properties), each.nodeid) for each in reports if each.when == "call"]
    found = sorted(((seen["margin"], seen["margin_line"], seen["comparisons"], name) for seen, name in found if seen))
    total = sum(comparisons for _, _, comparisons, _ in found)
    terminalreporter.section(f"margins: {total} comparisons in {len(found)} tests, the nearest of all")
    for margin, line, _, name in found[:WORST_SHOWN]:
        terminalreporter.write_line(f"{margin:10.3g}  {line:32} {name}")
