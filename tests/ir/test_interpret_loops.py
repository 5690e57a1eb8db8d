"""Kernels and loop statements written by hand: interpreted as they read, printed, verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ir.ops  # noqa: F401 - fills the registry that scalar ops are looked up in
from ir.dependence import independent
from ir.index import Guard, Index, Var
from ir.interpret_loops import run_function, run_kernel
from ir.loops import (
    Accumulate,
    Buffer,
    For,
    Function,
    Init,
    Kernel,
    Let,
    Parallel,
    Reduction,
    Scatter,
    Store,
    StoreRow,
    Tile,
    Transpose,
    Vectorize,
    Write,
)
from ir.scalar import Scalar, apply, at, const, load, ref
from ir.text_loops import print_function, print_kernel
from ir.types import Extent, f32, i32
from ir.verify_loops import verify_function, verify_kernel

Array = np.ndarray[Any, Any]
BATCH = Extent(1, "batch")
i, j = Var("i", BATCH), Var("j", 10)
m, n, k = Var("m", BATCH), Var("n", 7), Var("k", 5)


def index(*terms: tuple[Var, int], constant: int = 0) -> Index:
    total = Index((), constant)
    for var, coefficient in terms:
        total = total + Index.of(var) * coefficient
    return total


def op(name: str, *args: Scalar) -> Scalar:
    return apply(name, args, args[0].dtype)


IJ = index((i, 10), (j, 1))
Z = load("z", IJ, f32)
E = op("exp", op("sub", Z, ref("top", f32)))

SOFTMAX = Kernel(
    "softmax",
    "rows",
    (i,),
    (j,),
    (Reduction("top", "max", Z), Reduction("total", "sum", E)),
    (Write("y", IJ, op("div", E, ref("total", f32)), inner=True),),
    (Buffer("z", f32, Extent(10, "batch")), Buffer("y", f32, Extent(10, "batch"), True)),
    schedule=(Parallel("i", 8), Vectorize("j", 16)),
    nodes=("y = softmax",),
)

MN = index((m, 7), (n, 1))
LHS = load("x", index((m, 5), (k, 1)), f32)
RHS = load("w", index((k, 7), (n, 1)), f32)
RELU = op("relu", op("add", ref("acc", f32), load("b", index((n, 1)), f32)))
DENSE_BUFFERS = (
    Buffer("x", f32, Extent(5, "batch")),
    Buffer("w", f32, 35),
    Buffer("b", f32, 7),
    Buffer("y", f32, Extent(7, "batch"), True),
)
DENSE = Kernel(
    "dense_relu",
    "contract",
    (m, n),
    (k,),
    (Reduction("acc", "sum", op("mul", LHS, RHS)),),
    (Write("y", MN, RELU, inner=False),),
    DENSE_BUFFERS,
)

ROW = load("rows", index((i, 1)), i32)
SCATTER = Kernel(
    "rows_added",
    "scatter",
    (i, j),
    (),
    (),
    (),
    (
        Buffer("rows", i32, BATCH),
        Buffer("z", f32, Extent(10, "batch")),
        Buffer("table", f32, 40, True),
    ),
    Scatter("table", index((j, 1)), ROW, 10, Z),
)

INNER = index((j, 1), constant=-1)
PADDED = Kernel(
    "padded",
    "rows",
    (j,),
    (),
    (),
    (
        Write(
            "y",
            index((j, 1)),
            load("x", INNER, f32, guards=(Guard(INNER, 0, 8),), fill=3.0),
            inner=False,
        ),
    ),
    (Buffer("x", f32, 8), Buffer("y", f32, 10, True)),
)
KERNELS = (SOFTMAX, DENSE, SCATTER, PADDED)


def data(batch: int) -> dict[str, Array]:
    random = np.random.default_rng(batch)

    def normal(*shape: int) -> Array:
        return random.normal(size=shape).astype(np.float32)

    return {"x": normal(batch, 5), "w": normal(5, 7), "b": normal(7), "z": normal(batch, 10)}


def flat(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: a.reshape(-1) for name, a in arrays.items()}


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True, initial=-np.inf))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("batch", [0, 1, 3, 200])
def test_rows_kernel_is_a_softmax(batch: int) -> None:
    arrays = data(batch)
    y = np.full(batch * 10, np.nan, np.float32)
    run_kernel(SOFTMAX, {**flat(arrays), "y": y}, {"batch": batch})
    np.testing.assert_allclose(y.reshape(batch, 10), softmax(arrays["z"]), rtol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 13])
def test_contract_kernel_with_epilogue(batch: int) -> None:
    arrays = data(batch)
    y = np.full(batch * 7, np.nan, np.float32)
    run_kernel(DENSE, {**flat(arrays), "y": y}, {"batch": batch})
    expected = np.maximum(arrays["x"] @ arrays["w"] + arrays["b"], 0)
    np.testing.assert_allclose(y.reshape(batch, 7), expected, rtol=1e-4, atol=1e-5)


def test_scatter_kernel_adds_and_ignores_rows_outside() -> None:
    rows = np.array([3, 0, 3, -1, 4, 2**31 - 1], np.int32)
    z = data(6)["z"]
    table = np.full(40, np.nan, np.float32)
    run_kernel(SCATTER, {"rows": rows, "z": z.reshape(-1), "table": table}, {"batch": 6})
    expected = np.zeros((4, 10), np.float32)
    np.add.at(expected, rows[:3], z[:3])
    np.testing.assert_allclose(table.reshape(4, 10), expected, rtol=1e-6)


def test_guards_give_the_fill() -> None:
    x, y = np.arange(8, dtype=np.float32), np.zeros(10, np.float32)
    run_kernel(PADDED, {"x": x, "y": y}, {})
    np.testing.assert_array_equal(y, np.pad(x, 1, constant_values=3.0))


def test_an_update_may_be_written_over_what_another_write_reads() -> None:
    """v' = v / 2 + g, w' = w - v', v' in the memory of v."""
    p = index((n, 1))
    new = op("add", op("mul", load("v", p, f32), const(0.5, f32)), load("g", p, f32))
    kernel = Kernel(
        "momentum",
        "rows",
        (n,),
        (),
        (),
        (
            Write("v'", p, new, inner=False),
            Write("w'", p, op("sub", load("w", p, f32), new), inner=False),
        ),
        tuple(Buffer(name, f32, 7, name[-1] == "'") for name in ("v", "g", "w", "v'", "w'")),
    )
    verify_kernel(kernel)
    v, g, w = (np.arange(7, dtype=np.float32) + t for t in (1, 2, 3))
    v_new = v / 2 + g
    w_new = w - v_new
    run_kernel(kernel, {"v": v, "v'": v, "g": g, "w": w, "w'": w}, {})
    np.testing.assert_array_equal(v, v_new)
    np.testing.assert_array_equal(w, w_new)


# --------------------------------------------------------------------------- loop statements


def tile_function(rows: tuple[int, ...] = (6, 1)) -> Function:
    epilogue = (Let("out", RELU), Store("y", MN, ref("out", f32)))
    tile = Tile(m, n, (k,), "acc", LHS, RHS, epilogue, rows, 1, 4, 4)
    return Function("dense_relu", DENSE_BUFFERS, (tile,))


def rows_function(kind: str) -> Function:
    """softmax with the exponentials kept in thread-local memory."""
    J = index((j, 1))
    body = (
        Init("top", const(float("-inf"), f32)),
        For(j, "vector", 4, (Accumulate("top", "max", Z),)),
        Init("total", const(0, f32)),
        For(
            j,
            kind,
            4 if kind == "vector" else 1,
            (
                Let("e", E),
                Store("row", J, ref("e", f32)),
                Accumulate("total", "sum", ref("e", f32)),
            ),
        ),
        For(j, "vector", 4, (Store("y", IJ, op("div", load("row", J, f32), ref("total", f32))),)),
    )
    return Function(
        "softmax",
        SOFTMAX.buffers,
        (For(i, "parallel", 1, body),),
        (Buffer("row", f32, 10),),
    )


@pytest.mark.parametrize("kind", ["vector", "serial", "unroll"])
def test_rows_with_scratch_run_one_after_the_other(kind: str) -> None:
    function = rows_function(kind)
    verify_function(function)
    assert not independent(function.body[0], str)  # type: ignore[arg-type]
    z = data(9)["z"]
    y = np.full(90, np.nan, np.float32)
    run_function(function, {"z": z.reshape(-1), "y": y}, {"batch": 9}, seed=3)
    np.testing.assert_allclose(y.reshape(9, 10), softmax(z), rtol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 6, 20])
def test_tile_stands_for_its_loop_nest(batch: int) -> None:
    verify_function(tile_function())
    arrays = data(batch)
    y = np.full(batch * 7, np.nan, np.float32)
    run_function(tile_function(), {**flat(arrays), "y": y}, {"batch": batch})
    expected = np.maximum(arrays["x"] @ arrays["w"] + arrays["b"], 0)
    np.testing.assert_allclose(y.reshape(batch, 7), expected, rtol=1e-4, atol=1e-5)


def test_tile_updates_in_place() -> None:
    """w -= x' g in the epilogue of the weight gradient."""
    q, r, t = Var("q", 5), Var("r", 7), Var("t", BATCH)
    here = index((q, 7), (r, 1))
    tile = Tile(
        q,
        r,
        (t,),
        "acc",
        load("x", index((t, 5), (q, 1)), f32),
        load("g", index((t, 7), (r, 1)), f32),
        (Store("w", here, op("sub", load("w", here, f32), ref("acc", f32))),),
        (3, 2),
        1,
        4,
        4,
    )
    buffers = (
        Buffer("x", f32, Extent(5, "batch")),
        Buffer("g", f32, Extent(7, "batch")),
        Buffer("w", f32, 35, True),
    )
    function = Function("update", buffers, (tile,))
    verify_function(function)
    arrays = data(11)
    g = np.random.default_rng(0).normal(size=(11, 7)).astype(np.float32)
    expected = arrays["w"] - arrays["x"].T @ g
    run_function(function, {**flat(arrays), "g": g.reshape(-1)}, {"batch": 11})
    np.testing.assert_allclose(arrays["w"], expected, rtol=1e-4, atol=1e-5)


def test_transpose_copies_into_the_workspace() -> None:
    """y = row sums of x', by way of a transposed copy of x."""
    turned = index((k, 1), (m, 5))
    body = (
        Transpose(k, m, "packed", index((k, 1), (m, 5)), load("x", index((m, 5), (k, 1)), f32), 4),
        For(
            m,
            "unroll vector",
            4,
            (
                Init("sum", const(0, f32)),
                For(k, "serial", 1, (Accumulate("sum", "sum", load("packed", turned, f32)),)),
                Store("y", index((m, 1)), ref("sum", f32)),
            ),
        ),
    )
    buffers = (DENSE_BUFFERS[0], Buffer("y", f32, BATCH, True))
    packed = Buffer("packed", f32, Extent(5, "batch"), True)
    function = Function("sums", buffers, body, workspace=(packed,))
    verify_function(function)
    assert "workspace f32 packed[5*batch];" in print_function(function)
    x, y = data(9)["x"], np.zeros(9, np.float32)
    run_function(function, {"x": x.reshape(-1), "y": y}, {"batch": 9})
    np.testing.assert_allclose(y, x.sum(1), rtol=1e-5)


def test_scatter_add_statement_counts_every_point() -> None:
    stmt = StoreRow("table", Index(), const(1, i32), 1, const(1, f32))
    function = Function(
        "count",
        (Buffer("table", f32, 3, True),),
        (For(n, "parallel", 1, (For(k, "vector", 4, (stmt,)),)),),
    )
    verify_function(function)
    table = np.zeros(3, np.float32)
    run_function(function, {"table": table}, {})
    np.testing.assert_array_equal(table, [0, 35, 0])


def test_carried_values_run_in_order() -> None:
    """A running product, read while it accumulates."""
    body = (
        Init("fact", const(1, f32)),
        For(
            k,
            "serial",
            1,
            (
                Accumulate("fact", "prod", at(index((k, 1), constant=1), f32)),
                Store("y", index((k, 1)), ref("fact", f32)),
            ),
        ),
    )
    function = Function("factorials", (Buffer("y", f32, 5, True),), body)
    verify_function(function)
    y = np.zeros(5, np.float32)
    run_function(function, {"y": y}, {})
    np.testing.assert_array_equal(y, [1, 2, 6, 24, 120])


def test_a_loop_that_shifts_its_own_memory_is_not_independent() -> None:
    shift = Store("y", index((k, 1), constant=1), load("y", index((k, 1)), f32))
    assert not independent(For(k, "serial", 1, (shift,)), str)
    y = np.arange(6, dtype=np.float32)
    function = Function("shift", (Buffer("y", f32, 6, True),), (For(k, "serial", 1, (shift,)),))
    run_function(function, {"y": y}, {})
    np.testing.assert_array_equal(y, 0)


def test_steps_and_tiles_of_a_loop_are_independent() -> None:
    outer, inner = Var("o", 32), Var("p", 8)
    here = index((outer, 1), (inner, 1))
    double = Store("y", here, op("add", load("y", here, f32), load("y", here, f32)))
    nest = For(outer, "parallel", 8, (For(inner, "vector", 8, (double,)),))
    assert independent(nest, str)
    assert not independent(replace(nest, step=4), str)
    y = np.arange(32, dtype=np.float32)
    function = Function("double", (Buffer("y", f32, 32, True),), (nest,))
    verify_function(function)
    run_function(function, {"y": y}, {})
    np.testing.assert_array_equal(y, 2 * np.arange(32))


# --------------------------------------------------------------------------- faults


def copy(source: Index, target: Index) -> Function:
    body = (For(n, "serial", 1, (Store("y", target, load("x", source, f32)),)),)
    return Function("copy", (Buffer("x", f32, 7), Buffer("y", f32, 7, True)), body)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (index((n, 1), constant=1), index((n, 1)), r"copy: x\[7\]"),
        (index((n, 1)), index((n, 1), constant=-1), r"copy: y\[-1\]"),
        (index((n, 2)), index((n, 1)), r"copy: x\[8\]"),
    ],
)
def test_access_out_of_bounds_is_named(source: Index, target: Index, message: str) -> None:
    buffers = {"x": np.zeros(7, np.float32), "y": np.zeros(7, np.float32)}
    with pytest.raises(IndexError, match=message):
        run_function(copy(source, target), buffers, {})
    with pytest.raises(ValueError, match=r"leaves 0 .. 7 - 1"):
        verify_function(copy(source, target))


def test_scratch_that_was_never_written_shows() -> None:
    body = (Store("y", Index(), load("row", Index(), f32)),)
    buffers = (Buffer("y", f32, 1, True),)
    y = np.zeros(1, np.float32)
    run_function(Function("late", buffers, body, (Buffer("row", f32, 1),)), {"y": y}, {})
    assert np.isnan(y[0])


WRONG: list[tuple[str, Callable[[], None], str]] = [
    (
        "buffer not declared",
        lambda: verify_kernel(replace(PADDED, buffers=PADDED.buffers[1:])),
        "'x' is not declared",
    ),
    (
        "not flagged",
        lambda: verify_kernel(replace(PADDED, buffers=(Buffer("x", f32, 8), Buffer("y", f32, 10)))),
        "is not declared as written but stored to",
    ),
    (
        "flagged without a store",
        lambda: verify_kernel(
            replace(PADDED, buffers=(*PADDED.buffers, Buffer("q", f32, 1, True)))
        ),
        "never stored to",
    ),
    (
        "too small",
        lambda: verify_kernel(
            replace(PADDED, buffers=(Buffer("x", f32, 8), Buffer("y", f32, 9, True)))
        ),
        "leaves 0 .. 9 - 1",
    ),
    (
        "too small for every batch",
        lambda: verify_kernel(
            replace(
                SOFTMAX, buffers=(SOFTMAX.buffers[0], Buffer("y", f32, Extent(9, "batch"), True))
            )
        ),
        r"leaves 0 .. 9\*batch - 1",
    ),
    (
        "axis out of scope",
        lambda: verify_kernel(replace(SOFTMAX, reduce_axes=())),
        "variable j .* not in scope",
    ),
    (
        "reduction used before",
        lambda: verify_kernel(replace(SOFTMAX, reductions=SOFTMAX.reductions[::-1])),
        "'top' is used before",
    ),
    (
        "unknown recipe",
        lambda: verify_kernel(replace(SOFTMAX, recipe="magic")),
        "recipe 'magic'",
    ),
    (
        "no elementwise op",
        lambda: verify_kernel(
            replace(PADDED, writes=(Write("y", index((j, 1)), op("sum", const(1, f32)), False),))
        ),
        "'sum' is no elementwise op",
    ),
    (
        "dtypes",
        lambda: verify_kernel(
            replace(PADDED, writes=(Write("y", index((j, 1)), const(1, i32), False),))
        ),
        "'y' holds f32, accessed as i32",
    ),
    (
        "accumulator without init",
        lambda: verify_function(Function("f", (), (Accumulate("t", "sum", const(1, f32)),))),
        "accumulates before its Init",
    ),
    (
        "hidden variable",
        lambda: verify_function(
            Function("f", (), (For(k, "serial", 1, (For(k, "serial", 1, ()),)),))
        ),
        "hides an outer one",
    ),
    (
        "unknown kind",
        lambda: verify_function(Function("f", (), (For(k, "sideways", 1, ()),))),
        "loop kind 'sideways'",
    ),
]


@pytest.mark.parametrize(("check", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_verifier_names_the_fault(check: Callable[[], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.label)
def test_kernels_verify_and_print(kernel: Kernel) -> None:
    verify_kernel(kernel)
    text = print_kernel(kernel)
    assert text.startswith(f"kernel {kernel.label}: {kernel.recipe}\n")
    assert all(b.name in text for b in kernel.buffers)


def test_kernel_reads_like_its_mathematics() -> None:
    assert print_kernel(SOFTMAX) == (
        "kernel softmax: rows\n"
        "  nodes      y = softmax\n"
        "  axes       i < batch\n"
        "  reduce     j < 10\n"
        "  schedule   Parallel(i, 8), Vectorize(j, 16)\n"
        "  top = max over j of z[i*10 + j]\n"
        "  total = sum over j of exp((z[i*10 + j] - top))\n"
        "  y[i*10 + j] = (exp((z[i*10 + j] - top)) / total)  // for every j\n"
        "  // f32 *z /* 10*batch */\n"
        "  // f32 *y /* 10*batch, written */\n"
    )


def test_function_reads_like_c() -> None:
    assert print_function(rows_function("vector")) == (
        "void softmax(f32 *z /* 10*batch */, f32 *y /* 10*batch, written */) {\n"
        "  thread_local f32 row[10];\n"
        "  parallel for (i = 0; i < batch; i += 1) {\n"
        "    f32 top = -inf;\n"
        "    vector for (j = 0; j < 10; j += 4) {  // 4 values of j at once\n"
        "      top = max(top, z[i*10 + j]);\n"
        "    }\n"
        "    f32 total = 0;\n"
        "    vector for (j = 0; j < 10; j += 4) {  // 4 values of j at once\n"
        "      const f32 e = exp((z[i*10 + j] - top));\n"
        "      row[j] = e;\n"
        "      total += e;\n"
        "    }\n"
        "    vector for (j = 0; j < 10; j += 4) {  // 4 values of j at once\n"
        "      y[i*10 + j] = (row[j] / total);\n"
        "    }\n"
        "  }\n"
        "}\n"
    )
    assert "tile for (m < batch, n < 7) {" in print_function(tile_function())
