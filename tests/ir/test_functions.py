"""The functions over the records: special values, laws, composites against NumPy, promotion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ir import ops
from ir.graph import Node
from ir.interpret import evaluate
from ir.types import f32, f64
from nncompiler.autodiff import differentiate

# --------------------------------------------------------------------------- special values


def value_of(node: Node) -> Any:
    return evaluate(node).tolist()


def test_relu_and_abs_have_slope_zero_at_zero() -> None:
    x = ops.constant(np.zeros(1), f64)
    for f in (ops.relu, ops.abs):
        (d,) = differentiate(ops.sum(f(x)), [x])
        assert value_of(d) == [0.0]


def test_ties_of_max_and_maximum_share_the_cotangent() -> None:
    x = ops.constant(np.asarray([1.0, 3.0, 3.0]), f64)
    (d,) = differentiate(ops.max(x), [x])
    assert value_of(d) == [0.0, 0.5, 0.5]
    y = ops.constant(np.asarray([1.0, 2.0, 4.0]), f64)
    dx, dy = differentiate(ops.sum(ops.maximum(x, y)), [x, y])
    assert value_of(dx) == [0.5, 1.0, 0.0]
    assert value_of(dy) == [0.5, 0.0, 1.0]


@pytest.mark.parametrize(("power", "slope"), [(0, 0.0), (1, 1.0), (2, 0.0), (3, 0.0), (2.5, 0.0)])
def test_power_has_a_finite_slope_at_zero(power: float, slope: float) -> None:
    x = ops.input("x", f64, (1,))
    p = ops.input("p", f64, ())
    for exponent, feed in ((power, {}), (p, {"p": np.float64(power)})):
        (d,) = differentiate(ops.sum(x**exponent), [x])
        assert evaluate(d, {"x": np.zeros(1), **feed}).tolist() == [slope]


def test_power_of_a_negative_number_has_the_slope_of_its_whole_exponent() -> None:
    x = ops.constant(np.asarray([-2.0]), f64)
    (d,) = differentiate(ops.sum(x**3), [x])
    assert value_of(d) == [12.0]


def test_product_with_a_zero_has_the_product_of_the_others_as_slope() -> None:
    for values, slopes in (([2.0, 0.0, 3.0], [0.0, 6.0, 0.0]), ([0.0, 0.0, 3.0], [0.0, 0.0, 0.0])):
        x = ops.constant(np.asarray(values), f64)
        (d,) = differentiate(ops.prod(x), [x])
        assert value_of(d) == slopes


def test_integer_laws() -> None:
    a = ops.constant(np.asarray([7, -7, 5, -(2**31)], np.int32))
    b = ops.constant(np.asarray([2, 2, 0, -1], np.int32))
    assert value_of(a / b) == [3, -4, 0, -(2**31)]
    assert value_of(a << b) == [28, -28, 5, 0]
    u = ops.constant(np.asarray([2**32 - 1], np.uint32))
    assert value_of(u + 1) == [0]
    assert value_of(u >> 32) == [0]


def test_threefry_gives_the_published_words() -> None:
    """The vectors of Random123's kat_vectors for threefry2x32, 20 rounds."""
    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    vectors = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        (pi[2:], pi[:2], (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, counter, words in vectors:
        k0, k1, c0, c1 = (ops.constant(w, "u32") for w in (*key, *counter))
        assert tuple(map(value_of, ops.threefry2x32((k0, k1), (c0, c1)))) == words


def test_random_values_have_their_moments_and_depend_on_the_counter() -> None:
    for dtype in (f32, f64):
        u = evaluate(ops.uniform(3, 4, (200, 100), dtype))
        n = evaluate(ops.normal(3, 4, (200, 100), dtype))
        assert u.dtype == n.dtype == dtype.numpy
        assert u.min() >= 0
        assert u.max() < 1
        assert abs(u.mean() - 0.5) < 0.01
        assert abs(n.mean()) < 0.02
        assert abs(n.std() - 1) < 0.02
        assert not np.array_equal(u, evaluate(ops.uniform(3, 5, (200, 100), dtype)))


# --------------------------------------------------------------------------- composites


RANDOM = np.random.default_rng(5)
TALL = RANDOM.normal(size=(4, 5, 6))


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda x: ops.mean(x, 1), lambda x: x.mean(1)),
        (lambda x: ops.var(x, (0, 2), ddof=1), lambda x: x.var((0, 2), ddof=1)),
        (lambda x: ops.argmax(x, 1), lambda x: x.argmax(1)),
        (lambda x: ops.argmin(x), lambda x: x.argmin()),
        (lambda x: ops.max(x, -1, keepdims=True), lambda x: x.max(-1, keepdims=True)),
        (lambda x: ops.any(ops.gt(x, 1.5), 0), lambda x: (x > 1.5).any(0)),
        (lambda x: ops.all(ops.lt(x, 1.5), 0), lambda x: (x < 1.5).all(0)),
        (lambda x: ops.logsumexp(x, 1), lambda x: np.log(np.exp(x).sum(1))),
        (lambda x: ops.softmax(x, 1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (lambda x: ops.log_softmax(x), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        (lambda x: ops.moveaxis(x, 0, 2), lambda x: np.moveaxis(x, 0, 2)),
        (lambda x: ops.swapaxes(x, 0, 2), lambda x: np.swapaxes(x, 0, 2)),
        (lambda x: ops.stack([x, x + 1], 1), lambda x: np.stack([x, x + 1], 1)),
        (lambda x: ops.take(x, np.asarray([[2, 0]]), 1), lambda x: np.take(x, [[2, 0]], 1)),
        (
            lambda x: ops.einsum("abc,cd->ad", x, np.ones((6, 2))),
            lambda x: x.sum((1, 2))[:, None] * [1, 1],
        ),
        (lambda x: ops.einsum("abc->cb", x), lambda x: np.einsum("abc->cb", x)),
        (
            lambda x: ops.tensordot(x, x, ([0, 1], [0, 1])),
            lambda x: np.tensordot(x, x, ([0, 1], [0, 1])),
        ),
        (lambda x: x[1], lambda x: x[1]),
        (lambda x: x[:, -2], lambda x: x[:, -2]),
        (lambda x: x[..., ::2], lambda x: x[..., ::2]),
        (lambda x: x[::-1, 4:0:-2], lambda x: x[::-1, 4:0:-2]),
        (lambda x: x[None, 1, ..., None], lambda x: x[None, 1, ..., None]),
        (lambda x: x[:, [0, 2, 2]], lambda x: x[:, [0, 2, 2]]),
        (lambda x: x[3:1], lambda x: x[3:1]),
    ],
)
def test_composite_equals_numpy(ours: Any, numpys: Any) -> None:
    value = evaluate(ours(ops.constant(TALL)))
    expected = np.asarray(numpys(TALL))
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (3, 4)),
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((2, 3), (4, 3, 2)),
        ((1, 2, 3), (1, 3, 2)),
        ((4, 2, 3), (3,)),
        ((0, 3), (3, 2)),
    ],
)
def test_matmul_equals_numpy(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = RANDOM.normal(size=a), RANDOM.normal(size=b)
    value = evaluate(ops.matmul(ops.constant(x), ops.constant(y)))
    np.testing.assert_allclose(value, x @ y, atol=1e-12)
    assert value.shape == (x @ y).shape


def test_argmax_takes_the_first_nan_as_numpy() -> None:
    x = np.asarray([[1, np.nan, 3, np.nan], [4, 4, 1, 2]])
    assert value_of(ops.argmax(ops.constant(x), 1)) == [1, 0]


def test_logsumexp_and_softmax_do_not_overflow() -> None:
    x = ops.constant(np.asarray([[1000.0, 1000.0], [-np.inf, -np.inf]]))
    assert value_of(ops.logsumexp(x, 1)) == [1000 + math.log(2), -math.inf]
    assert value_of(ops.softmax(x[0:1], 1)) == [[0.5, 0.5]]


def test_take_along_an_axis_behind_a_symbolic_one() -> None:
    x = ops.input("x", f64, ("batch", 5))
    taken = ops.take(x, ops.constant(np.asarray([4, 0, 9], np.int32)), 1)
    data = RANDOM.normal(size=(3, 5))
    np.testing.assert_array_equal(evaluate(taken, {"x": data}), data[:, [4, 0, 4]])


# --------------------------------------------------------------------------- promotion, errors


def test_numbers_adopt_the_dtype_of_the_value() -> None:
    x = ops.input("x", f32, (3,))
    assert (x + 1).dtype == (2.5 * x).dtype == (x + np.ones(3)).dtype == f32
    n = ops.input("n", "i32", (3,))
    assert (n + 1).dtype == n.dtype
    with pytest.raises(TypeError, match="cast it explicitly"):
        _ = n + 0.5
    with pytest.raises(ValueError, match="out of range"):
        _ = n + 2**40


@pytest.mark.parametrize(
    "build",
    [
        lambda x, n: n + ops.input("u", "u32", (3,)),
        lambda x, n: x + ops.input("y", f32, (4,)),
        lambda x, n: x @ ops.input("y", f32, (4, 2)),
        lambda x, n: ops.exp(n),
        lambda x, n: ops.where(x, x, x),
        lambda x, n: x.reshape(7),
        lambda x, n: ops.sum(x, 1),
        lambda x, n: ops.transpose(x, (1, 0)),
        lambda x, n: ops.concatenate([n, ops.input("u", "u32", (3,))]),
        lambda x, n: ops.gather(x, x),
        lambda x, n: ops.input("z", f32, (3, "batch")),
        lambda x, n: ops.input("z", f32, ("batch", 3))[1:],
        lambda x, n: ops.flip(ops.input("z", f32, ("batch", 3)), 0),
        lambda x, n: ops.pad(ops.input("z", f32, ("batch",)), (1,), (0,)),
        lambda x, n: ops.input("z", f32, ("batch", 3)).T,
        lambda x, n: ops.input("z", f32, ("batch", 3)).reshape(3),
    ],
)
def test_types_that_do_not_fit_raise(build: Any) -> None:
    with pytest.raises(ValueError):
        build(ops.input("x", f32, (3,)), ops.input("n", "i32", (3,)))


def test_symbolic_axis_is_merged_and_split() -> None:
    x = ops.input("x", f32, ("batch", 4, 2))
    merged = x.reshape(-1)
    assert str(merged.type) == "f32[8*batch]"
    assert str(merged.reshape(-1, 8).type) == "f32[batch,8]"
    assert merged.reshape("batch", 8).type == merged.reshape(-1, 8).type
