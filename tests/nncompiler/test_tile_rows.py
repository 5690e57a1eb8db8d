"""Heights of tiles: positive, and together exactly the rows that there are."""

from __future__ import annotations

import pytest

from nncompiler.schedule.heuristics import tile_rows


@pytest.mark.parametrize("stream", [False, True])
def test_heights_serve_every_number_of_rows(stream: bool) -> None:
    for height in (1, 2, 3, 4, 6, 8, 12, 14):
        for m in range(1, 200):
            left = m
            heights = tile_rows(m, height, stream=stream)
            assert all(0 < h <= max(height, 1) for h in heights)
            for h in heights:
                left %= h
            assert left == 0, (m, height, heights)
