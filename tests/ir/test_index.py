"""Laws of the index algebra: simplification keeps every value, and bounds hold."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir.index import Index, Var, flatten, unflatten
from ir.types import Extent, TensorType, f32

I, J, K = Var("i", 4), Var("j", 6), Var("k", 3)
VARIABLES = (I, J, K)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[Index, object]:
    """An index expression and the same as a Python function of (i, j, k)."""
    if draw(st.booleans()):
        position = draw(st.integers(0, 2))
        leaf = (Index.of(VARIABLES[position]), lambda p: p[position])
    else:
        constant = draw(st.integers(-9, 9))
        leaf = (Index.of(constant), lambda p: constant)
    if draw(st.integers(0, 3)) == 0:
        return leaf
    a, f = draw(expressions())
    number = draw(st.integers(1, 8))
    match draw(st.sampled_from(["add", "sub", "mul", "div", "mod"])):
        case "add":
            return a + leaf[0], lambda p: f(p) + leaf[1](p)
        case "sub":
            return a - leaf[0], lambda p: f(p) - leaf[1](p)
        case "mul":
            return a * -number, lambda p: f(p) * -number
        case "div":
            return a // number, lambda p: f(p) // number
    return a % number, lambda p: f(p) % number


@given(expressions())
def test_simplification_keeps_every_value_and_bounds_hold(pair: tuple[Index, object]) -> None:
    index, function = pair
    low, high = index.bounds
    for p in itertools.product(range(4), range(6), range(3)):
        value = index.evaluate(dict(zip("ijk", p, strict=True)))
        assert value == function(p)
        assert low is None or low <= value
        assert high is None or value <= high


@given(expressions(), expressions())
def test_substitution_is_evaluation_of_the_parts(a: tuple, b: tuple) -> None:
    outer, inner = a[0], b[0] % 4
    replaced = outer.substitute({I: inner})
    for p in itertools.product(range(4), range(6), range(3)):
        values = dict(zip("ijk", p, strict=True))
        assert replaced.evaluate(values) == outer.evaluate({**values, "i": inner.evaluate(values)})


@given(expressions())
def test_coefficient_is_the_step_of_the_value(pair: tuple[Index, object]) -> None:
    index, _ = pair
    step = index.coefficient(J)
    if step is not None:
        at = [index.evaluate({"i": 1, "j": j, "k": 2}) for j in range(6)]
        assert all(b - a == step for a, b in itertools.pairwise(at))


def test_division_undoes_multiplication_within_bounds() -> None:
    j = Var("j", 64)
    offset = Index.of(I) * 64 + Index.of(j)
    assert offset // 64 == Index.of(I)
    assert offset % 64 == Index.of(j)
    assert str(offset) == "i*64 + j"


def test_unflatten_undoes_flatten_also_with_a_symbolic_axis() -> None:
    batch = Var("b", Extent(1, "batch"))
    indices = (Index.of(batch), Index.of(J), Index.of(K))
    shape = (Extent(1, "batch"), 6, 3)
    offset = flatten(indices, TensorType(f32, shape).strides)
    assert unflatten(offset, shape) == indices


@pytest.mark.parametrize(("index", "low", "high"), [(Index.of(I), 0, 3), (Index.of(5), 5, 5)])
def test_bounds_of_leaves(index: Index, low: int, high: int) -> None:
    assert index.bounds == (low, high)


def test_a_symbolic_variable_has_no_upper_bound() -> None:
    batch = Var("b", Extent(1, "batch"))
    assert (Index.of(batch) * 2 + 1).bounds == (1, None)
    assert (Index.of(batch) * -2).bounds == (None, 0)


def test_quotient_and_remainder_join_to_what_they_were_taken_of() -> None:
    i, j = Index.of(Var("i", 7)), Index.of(Var("j", 400))
    assert (j // 5) * 5 + j % 5 == j
    assert (j // 25) * 50 + ((j // 5) % 5) * 10 + (j % 5) * 2 + i == j * 2 + i
    shifted = j + 1
    assert (shifted // 2) * 2 + shifted % 2 + 3 == j + 4


def test_a_copy_from_another_process_has_a_hash_of_its_own() -> None:
    index = Index.of(Var("i", 8)) * 3 + 1
    assert hash(index) == hash(Index.of(Var("i", 8)) * 3 + 1)
    index.__dict__["hash"] = 12345  # as if it were the other one's, where strings hash otherwise
    copied = pickle.loads(pickle.dumps(index))
    assert copied == index
    assert hash(copied) == hash(Index.of(Var("i", 8)) * 3 + 1)
