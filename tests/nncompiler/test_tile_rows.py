"""Heights of tiles: positive, and together exactly the rows that there are."""

from __future__ import annotations

import pytest

from ir.types import Extent
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


def test_few_tiles_serve_a_batch_below_the_height() -> None:
    heights = tile_rows(Extent(1, "batch"), 8)
    for rows in range(1, 8):
        left, tiles = rows, 0
        for h in heights:
            tiles, left = tiles + left // h, left % h
        assert (tiles, left) == (rows.bit_count(), 0)
