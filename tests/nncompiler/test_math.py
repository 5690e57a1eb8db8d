"""Native code of every elementwise op gives what its NumPy reference gives, at every width."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401  (fills the registry)
from ir.op import REGISTRY
from ir.types import DType, boolean, dtype_of, f32, f64, i32, i64, u32, u64
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.llvm import host
from nncompiler.codegen.math import TABLE, emit_apply
from nncompiler.codegen.target import PRESETS, Target, preset
from nncompiler.codegen.values import Value, constant
from tests.bench.ulp import REFERENCES, errors
from tests.native import Native, native

Array = np.ndarray[Any, Any]
LANES = (1, 4, 8, 16)
INTEGERS = (i32, i64, u32, u64)
ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("eq", "ne", "lt", "le")
UNARY = ("neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "relu")
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-40)


@cache
def floats(dtype: DType) -> Array:
    """Special values, every order of magnitude, and a dense middle."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, 3000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    if dtype is f64:
        bits = rng.integers(0, 1 << 64, 3000, dtype=np.uint64).view(np.float64)
    ends = [s * v for s in (1, -1) for v in (88.6, 88.8, 103.9, 104.1, 709.7, 709.9, 745.2, 1e30)]
    tiny = [np.finfo(dtype.numpy).tiny, np.finfo(dtype.numpy).max, np.finfo(dtype.numpy).eps]
    spread = [rng.normal(size=1500) * scale for scale in (1e-3, 0.3, 4.0, 60.0, 1e5)]
    with np.errstate(all="ignore"):
        parts = [np.array([*SPECIAL, *ends, *tiny]), *spread]
        return np.concatenate([bits, *(p.astype(dtype.numpy) for p in parts)])


@cache
def integers(dtype: DType) -> tuple[Array, Array]:
    """Pairs: all combinations of the ends and of small numbers, and random ones."""
    info, rng = np.iinfo(dtype.numpy), np.random.default_rng(2)
    ends = [info.min, info.min + 1, info.max - 1, info.max, 0, 1, 2, 3, 7, 31, 32, 33, 63, 64]
    ends += [-1, -2, -7] if dtype.kind == "int" else []
    a, b = (v.ravel() for v in np.meshgrid(*[np.array(ends, dtype.numpy)] * 2))
    wild = rng.integers(info.min, info.max, (2, 300), dtype.numpy, endpoint=True)
    return np.concatenate([a, wild[0]]), np.concatenate([b, wild[1] >> (dtype.bits // 2)])


def evaluate(op: str, *arrays: Array, **attrs: Any) -> Array:
    with np.errstate(all="ignore"):
        return REGISTRY[op].evaluate(*arrays, **attrs)


def run(op: str, *arrays: Array, result: DType | None = None, lanes: int = 1) -> Array:
    types = [dtype_of(a) for a in arrays]
    kind = result or (boolean if op in COMPARISONS else types[-1])
    return native(op, types, kind, lanes=lanes)(*arrays)


def test_every_map_record_has_a_row() -> None:
    ops = {name for name, op in REGISTRY.items() if op.lowering.value == "map"}
    assert ops == set(TABLE)


# ------------------------------------------------------------------ approximations

BOUNDS = {32: 2.0, 64: 3.0}


def check_accuracy(op: str, dtype: DType, lanes: int, target: Target, bound: float) -> None:
    x = floats(dtype)
    if op == "erf" and dtype is f64:
        x = np.concatenate([x[3000:3030], x[3030 :: x.size // 400]])
    args = (x,)
    if op == "pow":
        args = tuple(v.ravel() for v in np.meshgrid(x[3000:3030], x[3000:3030]))
        args = tuple(np.concatenate([a, np.roll(np.abs(x), k)]) for k, a in enumerate(args))
    wide = np.float64 if dtype is f32 else np.longdouble
    with np.errstate(all="ignore"):
        exact = REFERENCES[op](*(a.astype(wide) for a in args))
    y = native(op, [dtype] * len(args), dtype, lanes=lanes, target=target)(*args)
    ulp, wrong = errors(y, exact)
    assert not wrong.any(), [(*(a[wrong][0] for a in args), y[wrong][0], exact[wrong][0])]
    worst = int(np.argmax(ulp))
    assert ulp[worst] <= bound, [a[worst] for a in args]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", REFERENCES)
def test_error_is_bounded_and_special_values_are_exact(op: str, dtype: DType, lanes: int) -> None:
    check_accuracy(op, dtype, lanes, host(), BOUNDS[dtype.bits])


def runnable(name: str) -> Target:
    """A preset that this machine can execute, else the test is skipped."""
    target = preset(name)
    if not host().is_x86 or not target.is_x86 or target.vector_bits > host().vector_bits:
        pytest.skip(f"this machine does not run {name}")
    return target


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", REFERENCES)
@pytest.mark.parametrize("name", ["avx2", "sse"])
def test_other_targets_give_the_same_accuracy(name: str, op: str, dtype: DType) -> None:
    target = runnable(name)
    slack = 1.0 if target.has_fma else 1.25  # every product and sum is rounded there
    bound = BOUNDS[dtype.bits] * slack
    check_accuracy(op, dtype, target.lanes(dtype), target, bound)


@pytest.mark.parametrize("op", REFERENCES)
def test_lanes_do_not_change_the_bits(op: str) -> None:
    x = floats(f32)
    args = (np.abs(x), np.roll(x, 1)) if op == "pow" else (x,)
    results = [native(op, [f32] * len(args), f32, lanes=lanes)(*args) for lanes in (1, 16, 32)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 4.0, 0.5, -1.0, -2.5])
def test_constant_exponents_agree_with_numpy(exponent: float) -> None:
    x = floats(f64)
    power = Native(
        lambda e, a: emit_apply(e, "pow", [a[0], constant(exponent, f64)], f64, 8),
        [f64],
        f64,
        lanes=8,
    )
    with np.errstate(all="ignore"):
        ulp, wrong = errors(power(x), np.power(x.astype(np.longdouble), np.longdouble(exponent)))
    assert not wrong.any()
    assert ulp.max() <= 3


def test_no_library_is_called() -> None:
    for name in PRESETS:
        target = preset(name)
        if target.is_x86 == host().is_x86:
            for op in REFERENCES:
                code = native(op, [f32] * (2 if op == "pow" else 1), f32, lanes=8, target=target)
                assert "call" not in code.assembly, (name, op)


# ------------------------------------------------------------------ exact ops


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISONS])
def test_binary_ops_on_floats(op: str, dtype: DType, lanes: int) -> None:
    a, b = (v.ravel() for v in np.meshgrid(floats(dtype)[3000:3040], floats(dtype)[3000:3040]))
    np.testing.assert_array_equal(run(op, a, b, lanes=lanes), evaluate(op, a, b))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISONS, "and", "or", "xor", "shl", "shr"])
def test_binary_ops_on_integers(op: str, dtype: DType, lanes: int) -> None:
    a, b = integers(dtype)
    expected = evaluate(op, a, b)
    if op == "div":
        expected = np.where(b == 0, 0, expected)
    np.testing.assert_array_equal(run(op, a, b, lanes=lanes), expected)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [f32, f64, i32, i64], ids=str)
@pytest.mark.parametrize("op", UNARY)
def test_unary_ops(op: str, dtype: DType, lanes: int) -> None:
    if not dtype.is_float and op in ("floor", "ceil", "round", "sqrt"):
        pytest.skip("floats only")
    x = floats(dtype) if dtype.is_float else integers(dtype)[0]
    np.testing.assert_array_equal(run(op, x, lanes=lanes), evaluate(op, x))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("op", ["and", "or", "xor", "not", "eq", "ne"])
def test_bools(op: str, lanes: int) -> None:
    a, b = np.arange(64) % 2 == 0, np.arange(64) % 3 == 0
    args = (a,) if op == "not" else (a, b)
    np.testing.assert_array_equal(run(op, *args, lanes=lanes), evaluate(op, *args))


@pytest.mark.parametrize("lanes", LANES)
def test_where_and_not(lanes: int) -> None:
    a, b = integers(i32)
    np.testing.assert_array_equal(run("where", a < b, a, b, lanes=lanes), np.where(a < b, a, b))
    np.testing.assert_array_equal(run("not", a, lanes=lanes), ~a)


ALL = (f32, f64, i32, i64, u32, u64, boolean)


@pytest.mark.parametrize("lanes", [1, 8, 16])
@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts_truncate_and_saturate(source: DType, lanes: int) -> None:
    x = floats(source) if source.is_float else np.arange(32) % 3 == 0
    if source in INTEGERS:
        x = integers(source)[0]
    for result in ALL:
        if result != source:
            expected = evaluate("cast", x, dtype=result)
            np.testing.assert_array_equal(run("cast", x, result=result, lanes=lanes), expected)


@pytest.mark.parametrize(("source", "result"), [(f32, i32), (u32, f32), (f64, u64), (i64, u64)])
def test_bitcast_keeps_bits(source: DType, result: DType) -> None:
    x = floats(source) if source.is_float else integers(source)[0]
    y = run("bitcast", x, result=result, lanes=8)
    np.testing.assert_array_equal(y.view(np.uint8), x.view(np.uint8))


# ------------------------------------------------------------------ the emitter


def test_equal_operations_are_written_once() -> None:
    e = Emitter(host())
    x = Value("%x", f32, 16)
    first = emit_apply(e, "sin", [x], f32, 16)
    lines = len(e.lines)
    assert emit_apply(e, "sin", [x], f32, 16) == first
    assert len(e.lines) == lines


def test_values_of_a_closed_scope_are_not_reused() -> None:
    e = Emitter(host())
    e.push()
    inner = e.op("add i64 %i, 1")
    e.pop()
    assert e.op("add i64 %i, 1") != inner


def test_integer_pow_is_refused() -> None:
    e = Emitter(host())
    with pytest.raises(ValueError, match="i32"):
        emit_apply(e, "pow", [Value("%x", i32), Value("%y", i32)], i32, 1)


@pytest.mark.parametrize("combine", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("lanes", [2, 3, 8, 16])
def test_reduction_over_lanes(combine: str, lanes: int) -> None:
    total = Native(lambda e, a: e.splat(e.reduce(combine, a[0]), lanes), [f32], f32, lanes=lanes)
    x = np.random.default_rng(0).integers(-3, 4, 4 * lanes).astype(np.float32)
    x[0] = np.nan
    rows = x.reshape(4, lanes)
    expected = getattr(np, combine)(rows, axis=1)
    np.testing.assert_array_equal(total(x).reshape(4, lanes)[:, 0], expected)


def test_cpu_is_chosen_from_features() -> None:
    from nncompiler.codegen.target import choose_cpu

    base = PRESETS["avx512"]
    assert choose_cpu("rocketlake", {"amx-tile", "avx512bw"}, base) == "sapphirerapids"
    assert choose_cpu("generic", {"sse4a", "avx512f", "avx512vp2intersect"}, base) == "znver5"
    assert replace(base).lanes(f32) == 16
