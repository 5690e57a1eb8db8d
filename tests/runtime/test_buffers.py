"""Takes lifetimes, gives the laws of the arena: no overlap, no waste, growth but no shrinking."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.artifact import BufferSpec, Plan
from runtime.buffers import ALIGNMENT, Arena, address, aligned_copy, aligned_empty, layout


def overlaps(a, b):
    return a[0] < b[1] and b[0] < a[1]


@pytest.mark.parametrize("seed", range(20))
def test_blocks_alive_together_never_overlap(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(0, 5000, 40)]
    lives = [(int(a), int(a + d)) for a, d in rng.integers(0, 12, (40, 2))]
    offsets, total = layout(sizes, lives)
    for i in range(40):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + sizes[i] <= total
        for j in range(i):
            if lives[i][0] <= lives[j][1] and lives[j][0] <= lives[i][1]:
                first = (offsets[i], offsets[i] + sizes[i])
                assert not overlaps(first, (offsets[j], offsets[j] + sizes[j]))


def test_a_chain_needs_two_blocks():
    assert layout([640] * 10, [(i, i + 1) for i in range(10)])[1] == 1280


def test_the_smallest_gap_that_fits_is_taken():
    sizes = [640, 320, 640, 128, 64]
    lives = [(0, 1), (0, 9), (0, 9), (0, 9), (2, 3)]
    offsets, total = layout(sizes, lives)
    assert total == sum(sizes[:4])
    assert offsets[4] == offsets[0]


def make_plan():
    specs = [BufferSpec("a", "f32", [[2, "batch"], 5], "temporary", first=0, last=1)]
    specs += [BufferSpec("b", "f64", [3], "temporary", first=1, last=2)]
    return Plan("p", ["batch"], specs, [], {}, {}, [], [], [], "p", "host")


def test_smaller_extents_keep_the_arena():
    arena = Arena(make_plan())
    assert arena.fit((100,))
    before, size = arena.addresses(), arena.size
    assert not arena.fit((1,))
    assert not arena.fit((100,))
    assert arena.addresses() == before
    assert arena.fit((101,))
    assert arena.size > size
    arena.view(0, (202, 5))[:] = 1
    arena.view(1, (3,))[:] = 2
    assert (arena.view(0, (202, 5)) == 1).all()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 0, 2), (1000, 33)])
def test_arrays_are_aligned(shape):
    for dtype in ("f4", "f8", "?", "u4"):
        array = aligned_empty(shape, dtype)
        assert array.shape == shape
        assert array.size == 0 or address(array) % ALIGNMENT == 0
        assert array.flags.carray


def test_address_is_that_of_the_first_element():
    array = np.arange(12.0).reshape(3, 4)
    assert address(array) == array.ctypes.data
    assert address(array[1:]) == array.ctypes.data + 32
    array.flags.writeable = False
    assert address(array) == array.ctypes.data
    np.testing.assert_array_equal(aligned_copy(array.T), array.T)
