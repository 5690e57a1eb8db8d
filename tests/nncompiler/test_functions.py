"""Compiled Python functions and their derivatives: values, nesting, trees, errors, caching."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

import nncompiler as nnc
from nncompiler.functions import jit
from nncompiler.tree import flatten, unflatten

V = np.array([0.5, -1.0, 2.0])
A = np.random.default_rng(0).normal(size=(3, 2))
B = np.random.default_rng(1).normal(size=(5, 3))


def cube(x: Any) -> Any:
    return nnc.sum(x**3)


def test_jit_equals_numpy_and_compiles_once_per_shape_and_dtype() -> None:
    f = nnc.jit(lambda x, w: nnc.tanh(x @ w))
    np.testing.assert_allclose(f(B, A), np.tanh(B @ A), rtol=1e-14)
    f(B + 1, A)
    assert f.compilations == 1
    assert f(B.astype(np.float32), A.astype(np.float32)).dtype == np.float32
    f(B[:2], A)
    assert f.compilations == 3


def test_python_floats_are_inputs_and_ints_are_static() -> None:
    f = nnc.jit(lambda x, s, n: s * x**n)
    np.testing.assert_allclose(f(V, 2.0, 3), 2 * V**3)
    np.testing.assert_allclose(f(V, 5.0, 3), 5 * V**3)
    assert f.compilations == 1
    np.testing.assert_allclose(f(V, 5.0, 2), 5 * V**2)
    assert f.compilations == 2
    assert f(V.astype(np.float32), 5.0, 2).dtype == np.float32


def test_arguments_and_results_are_trees() -> None:
    f = nnc.jit(lambda p, *, scale: {"sum": p["w"] + p["b"][0], "parts": [p["w"] * scale, 1.0]})
    result = f({"w": V, "b": (V,)}, scale=2.0)
    np.testing.assert_allclose(result["sum"], 2 * V)
    np.testing.assert_allclose(result["parts"][0], 2 * V)
    assert result["parts"][1] == 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x * (x > 0),
        lambda x, i: i * x - (i > 1),
        lambda x, i: (x > 0) + 0 * i,
        lambda x, i: x.astype("float32") * i + x,
    ],
)
def test_dtypes_meet_in_the_common_one(function: Any) -> None:
    i = np.arange(3)
    result = jit(function)(V, i)
    assert result.dtype == function(V, i).dtype
    np.testing.assert_allclose(result, function(V, i), rtol=1e-14)


def test_a_comparison_by_identity_is_no_condition() -> None:
    with pytest.raises(TypeError, match=r"nnc\.equal"):
        jit(lambda x: nnc.where(x == 0, 1.0, x))(V)
    result = jit(lambda x: nnc.where(nnc.equal(x, 0.5), 1.0, x))(V)
    np.testing.assert_array_equal(result, np.where(V == 0.5, 1.0, V))


def test_slope_of_a_masked_value_is_the_mask() -> None:
    np.testing.assert_array_equal(nnc.grad(lambda x: nnc.sum(x * (x > 0)))(V), V > 0)


def test_a_result_may_be_an_argument_or_a_constant() -> None:
    x, c = nnc.jit(lambda x: (x, np.arange(3)))(V)
    np.testing.assert_array_equal(x, V)
    np.testing.assert_array_equal(c, [0, 1, 2])


@pytest.mark.parametrize("value", [V[::2], V[::-1], np.zeros(0), np.float32(2), V.astype(">f8")])
def test_any_layout_is_taken(value: Any) -> None:
    given = np.asarray(value)
    np.testing.assert_allclose(nnc.jit(lambda x: x + x)(value), given + given)


def test_first_to_third_derivatives() -> None:
    f = nnc.sin
    for order in range(1, 4):
        f = nnc.grad(f)
        np.testing.assert_allclose(f(0.7), np.sin(0.7 + order * np.pi / 2), rtol=1e-12)


def test_grad_takes_argnums_as_jax_does() -> None:
    def f(a: Any, b: Any) -> Any:
        return nnc.sum(a * a * b)

    np.testing.assert_allclose(nnc.grad(f)(V, V + 1), 2 * V * (V + 1))
    np.testing.assert_allclose(nnc.grad(f, argnums=-1)(V, V + 1), V * V)
    one, zero = nnc.grad(f, argnums=(1, 0))(V, V + 1)
    np.testing.assert_allclose(one, V * V)
    np.testing.assert_allclose(zero, 2 * V * (V + 1))
    with pytest.raises(ValueError, match="argument 2"):
        nnc.grad(f, argnums=2)(V, V)


def test_gradient_of_a_tree_has_its_nesting() -> None:
    value, gradient = nnc.value_and_grad(lambda p, x: nnc.sum((x @ p["w"] + p["b"]) ** 2))(
        {"w": A, "b": np.zeros(2)}, B
    )
    assert value == pytest.approx(np.sum((B @ A) ** 2))
    np.testing.assert_allclose(gradient["w"], 2 * B.T @ (B @ A))
    np.testing.assert_allclose(gradient["b"], 2 * (B @ A).sum(axis=0))


def test_has_aux_passes_more_results_through() -> None:
    (value, aux), gradient = nnc.value_and_grad(lambda x: (cube(x), x * 2), has_aux=True)(V)
    assert value == pytest.approx(np.sum(V**3))
    np.testing.assert_allclose(aux, 2 * V)
    np.testing.assert_allclose(gradient, 3 * V**2)
    np.testing.assert_allclose(nnc.grad(lambda x: (cube(x), x), has_aux=True)(V)[0], 3 * V**2)


def test_hessian_has_the_shape_of_both_arguments() -> None:
    np.testing.assert_allclose(nnc.hessian(cube)(V), np.diag(6 * V))
    h = nnc.hessian(lambda w: nnc.sum((B @ w) ** 2))(A)
    assert h.shape == (3, 2, 3, 2)
    np.testing.assert_allclose(h, np.einsum("ij,ac->iajc", 2 * B.T @ B, np.eye(2)), atol=1e-12)


def test_hessian_of_several_arguments_has_all_blocks() -> None:
    def f(a: Any, b: Any) -> Any:
        return nnc.sum(a * a * b)

    (aa, ab), (ba, bb) = nnc.hessian(f, argnums=(0, 1))(V, V + 1)
    np.testing.assert_allclose(aa, np.diag(2 * (V + 1)))
    np.testing.assert_allclose(ab, np.diag(2 * V))
    np.testing.assert_allclose(ba, np.diag(2 * V))
    np.testing.assert_allclose(bb, np.zeros((3, 3)))
    tree = nnc.hessian(lambda p: nnc.sum(p["a"] * p["b"]))({"a": V, "b": V})
    np.testing.assert_allclose(tree["a"]["b"], np.eye(3))


def test_hessian_is_the_gradient_of_the_gradient() -> None:
    def row(x: Any) -> Any:
        return nnc.grad(lambda y: nnc.exp(nnc.sum(y * y)))(x)[0]

    f = nnc.hessian(lambda y: nnc.exp(nnc.sum(y * y)))
    np.testing.assert_allclose(nnc.grad(row)(V / 3), f(V / 3)[0], rtol=1e-12)


def test_transformations_nest_inside_jit() -> None:
    f = nnc.jit(lambda x: nnc.sum(nnc.hessian(cube)(x) * 2.0) + nnc.grad(nnc.jit(cube))(x)[0])
    assert f(V) == pytest.approx(12 * V.sum() + 3 * V[0] ** 2)


def test_an_argument_is_no_equal_expression_inside() -> None:
    """d/dy (y * 2x) at y = 2x is 2x, although y and 2x are one node."""
    f = nnc.jit(lambda x: nnc.grad(lambda y: y * (x * 2.0))(x * 2.0))
    assert f(3.0) == 6.0


def test_jvp_and_vjp_are_transposes() -> None:
    def f(x: Any, w: Any) -> Any:
        return nnc.tanh(x @ w), nnc.sum(x)

    rng = np.random.default_rng(3)
    tangents = rng.normal(size=B.shape), rng.normal(size=A.shape)
    cotangents = rng.normal(size=(5, 2)), rng.normal()
    (y, s), (dy, ds) = nnc.jvp(f, (B, A), tangents)
    np.testing.assert_allclose(y, np.tanh(B @ A))
    values, pull = nnc.vjp(f, B, A)
    assert values[1] == pytest.approx(s)
    gx, gw = pull(cotangents)
    left = np.sum(dy * cotangents[0]) + ds * cotangents[1]
    assert left == pytest.approx(np.sum(gx * tangents[0]) + np.sum(gw * tangents[1]))


def test_jvp_of_exp() -> None:
    y, dy = nnc.jvp(nnc.exp, (V,), (np.ones(3),))
    np.testing.assert_allclose(y, np.exp(V))
    np.testing.assert_allclose(dy, np.exp(V))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nnc.grad(lambda x: x * 2.0)(V), TypeError, "scalar"),
        (lambda: nnc.grad(cube)(np.arange(3)), TypeError, "floating point"),
        (lambda: nnc.hessian(cube)(np.arange(3)), TypeError, "floating point"),
        (lambda: nnc.jvp(cube, (V,), ()), TypeError, "primals"),
        (lambda: nnc.jvp(cube, (V,), (V[:2],)), TypeError, "shape"),
        (lambda: nnc.vjp(cube, V)[1](V), TypeError, "shape"),
        (lambda: nnc.jit(lambda x: 1 if x > 0 else 2)(1.0), TypeError, "truth value"),
        (lambda: nnc.jit(lambda x: x @ x)(B), ValueError, "5"),
        (lambda: nnc.jit(lambda x: x)(V * 1j), TypeError, "complex"),
        (lambda: nnc.jit(3), TypeError, "function"),
    ],
)
def test_wrong_uses_are_told(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_functions_on_plain_arrays_are_numpys() -> None:
    np.testing.assert_array_equal(nnc.exp(V), np.exp(V))
    assert nnc.sum(V) == V.sum()
    np.testing.assert_allclose(nnc.sigmoid(V), 1 / (1 + np.exp(-V)))
    np.testing.assert_allclose(nnc.softmax(V).sum(), 1)
    np.testing.assert_array_equal(nnc.one_hot(np.array([0, 2]), 3), np.eye(3)[[0, 2]])


X = np.random.default_rng(5).uniform(0.2, 2.0, (3, 4))
UNARY = """exp log log1p expm1 sqrt tanh sin cos floor ceil sign abs absolute negative square
reciprocal sum prod max min mean var std argmax argmin ravel transpose flip zeros_like ones_like
round amax amin"""
BINARY = """add subtract multiply divide power maximum minimum equal not_equal less less_equal
greater greater_equal"""
LIKE_NUMPY: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(UNARY.split(), (X,)),
    **dict.fromkeys(BINARY.split(), (X, X[0] + 0.5)),
    "logical_and": (X > 1, X < 1.5),
    "logical_or": (X > 1, X < 0.5),
    "logical_xor": (X > 1, X < 1.5),
    "logical_not": (X > 1,),
    "any": (X > 1.9,),
    "all": (X > 0.1,),
    "where": (X > 1, X, 2 * X),
    "clip": (X, 0.5, 1.0),
    "matmul": (X, X.T.copy()),
    "dot": (X, X[0]),
    "outer": (X[0], X[1]),
    "reshape": (X, (2, 6)),
    "swapaxes": (X, 0, 1),
    "expand_dims": (X, 1),
    "squeeze": (X[:, None],),
    "broadcast_to": (X[0], (2, 4)),
    "concatenate": ([X, X], 1),
    "stack": ([X, 2 * X], 1),
    "pad": (X, ((1, 0), (0, 2))),
    "take": (X, np.array([2, 0]), 1),
    "full_like": (X, 3.0),
    "einsum": ("ij,kj->ik", X, X),
}


@pytest.mark.parametrize("name", LIKE_NUMPY)
def test_symbolic_functions_follow_numpy(name: str) -> None:
    arguments = LIKE_NUMPY[name]
    expected = getattr(np, name)(*arguments)
    result = jit(getattr(nnc, name))(*arguments)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "std", "any", "all"])
@pytest.mark.parametrize(("axis", "keepdims"), [(0, False), (-1, True), ((0, 1), False)])
def test_reductions_follow_numpy(name: str, axis: Any, keepdims: bool) -> None:
    x = X > 1 if name in ("any", "all") else X
    expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
    result = jit(lambda x: getattr(nnc, name)(x, axis=axis, keepdims=keepdims))(x)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_takes_degrees_of_freedom(name: str) -> None:
    result = jit(lambda x: getattr(nnc, name)(x, axis=0, ddof=1))(X)
    np.testing.assert_allclose(result, getattr(np, name)(X, axis=0, ddof=1), rtol=1e-13)


@pytest.mark.parametrize("value", [1, None, (1, [2, {"a": 3, "b": ()}], None), {}])
def test_trees_come_back(value: Any) -> None:
    leaves, tree = flatten(value)
    assert unflatten(tree, leaves) == value
    assert tree.size == len(leaves)


def _others(x: Any, *left_out: int) -> float:
    return float(np.prod(np.delete(x, left_out)))


@pytest.mark.parametrize("zeros", [(), (0,), (2,), (0, 2), (0, 1, 3), (0, 1, 2, 3)])
def test_slope_and_curvature_of_a_product_count_its_zeros(zeros: tuple[int, ...]) -> None:
    x = np.array([2.0, -3.0, 0.5, 4.0])
    x[list(zeros)] = 0
    slope = [_others(x, i) for i in range(4)]
    curvature = [[_others(x, i, j) if i != j else 0.0 for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(nnc.grad(nnc.prod)(x), slope, rtol=1e-14)
    np.testing.assert_allclose(nnc.hessian(nnc.prod)(x), curvature, rtol=1e-14)


def test_long_chains_of_operations() -> None:
    def chain(length: int) -> Any:
        def f(x: Any) -> Any:
            for _ in range(length):
                x = nnc.tanh(x)
            return nnc.sum(x)

        return f

    limit, x = sys.getrecursionlimit(), np.ones(4)
    expected = 1.0
    for _ in range(300):
        expected = np.tanh(expected)
    np.testing.assert_allclose(nnc.jit(chain(300))(x), 4 * expected, rtol=1e-5)
    assert np.isfinite(nnc.grad(chain(300))(x)).all()
    with pytest.raises(nnc.CompileError, match="too many operations"):
        nnc.jit(chain(8000))(x)
    assert sys.getrecursionlimit() == limit and gc.isenabled()
