"""Takes numbers, gives colours and widths: blue above zero, red below, paler the nearer to it."""

from __future__ import annotations

import math

Color = tuple[int, int, int]

POSITIVE: Color = (31, 98, 178)
NEGATIVE: Color = (201, 52, 46)
ZERO: Color = (247, 247, 247)
UNKNOWN = "#d9d9d9"  # no number, or none that is finite
PALEST = 0.25  # of an edge, so that the smallest weight is still seen
THIN, THICK = 0.7, 5.0  # of edges, in pixels


def share(value: float, most: float) -> float:
    """|value| as a part of the largest, 0 .. 1."""
    return min(abs(value) / most, 1.0) if most > 0 else 0.0


def filling(value: float, most: float) -> str:
    """The colour of an area: white at zero."""
    return _mixed(value, share(value, most)) if math.isfinite(value) else UNKNOWN


def line(value: float, most: float) -> tuple[str, float]:
    """(colour, width) of an edge of that weight."""
    if not math.isfinite(value):
        return UNKNOWN, THIN
    part = share(value, most)
    if value == 0:
        return _hex((170, 170, 170)), THIN
    return _mixed(value, PALEST + (1 - PALEST) * part), THIN + (THICK - THIN) * part


def ink_on(value: float, most: float) -> str:
    """The colour of letters on such an area."""
    return "#ffffff" if math.isfinite(value) and share(value, most) > 0.55 else "#222222"


def _mixed(value: float, part: float) -> str:
    end = POSITIVE if value > 0 else NEGATIVE
    red, green, blue = (round(z + (c - z) * part) for c, z in zip(end, ZERO, strict=True))
    return _hex((red, green, blue))


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
