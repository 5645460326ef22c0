"""Which edges of an image meet."""

from __future__ import annotations

from typing import NamedTuple


class Axes(NamedTuple):
    """Axes along which an image repeats.

    Attributes:
        horizontal: the left and the right edge meet (the width wraps).
        vertical: the top and the bottom edge meet (the height wraps).
        half_drop: the repeat to the right is shifted down by half the height.
        brick: the repeat below is shifted right by half the width.
    """

    horizontal: bool
    vertical: bool
    half_drop: bool = False
    brick: bool = False

    def units(self, unit: int) -> tuple[int, int]:
        """Return of what (height, width) must be multiples: `unit`, or two where repeats are shifted along it by half.

        >>> TILINGS["half_drop"].units(64)
        (128, 64)
        """
        return unit * (1 + self.half_drop), unit * (1 + self.brick)


TILINGS: dict[str, Axes] = {
    "both": Axes(True, True),
    "horizontal": Axes(True, False),
    "vertical": Axes(False, True),
    "off": Axes(False, False),
    "half_drop": Axes(True, True, half_drop=True),
    "brick": Axes(True, True, brick=True),
}

REPEATS: dict[str, Axes] = {
    "straight": TILINGS["both"],
    **{name: TILINGS[name] for name in ("half_drop", "brick", "horizontal", "vertical")},
}
"""Ways to lay out repeats: of an image that tiles along both axes, or along one."""


def edges_that_meet(axes: Axes) -> str:
    """Name the edges that meet, for reports and errors."""
    names = [name for name, wraps in (("left-right", axes.horizontal), ("top-bottom", axes.vertical)) if wraps]
    if not names:
        return "no edges meet"
    shift = " shifted by half (half drop)" if axes.half_drop else " shifted by half (brick)" if axes.brick else ""
    return f"{' and '.join(names)} edges meet{shift}"
