"""Takes names of functions, gives their largest error in ULP and their time per element.

    python tests/bench/ulp.py                     every 1999th f32, 200,000 f64, all functions
    python tests/bench/ulp.py --stride 1 --type f32 exp      all 2^32 of f32: a minute or two
    python tests/bench/ulp.py --target avx2 --lanes 8 --type f32
    python tests/bench/ulp.py --torch             speed beside PyTorch, interleaved

References: NumPy in float64 for f32, in 80-bit long double for f64 (erf: mpmath).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ir.types import DType, dtype_of, f32, f64
from nncompiler.codegen.llvm import host
from nncompiler.codegen.target import Target, preset
from tests.native import Native, native

Array = np.ndarray[Any, Any]


def _erf(x: Array) -> Array:
    if x.dtype == np.float64:
        from scipy.special import erf

        return np.asarray(erf(x))
    from mpmath import mp

    with mp.workdps(30):
        texts = [mp.nstr(mp.erf(mp.mpf(float(v))), 25) for v in x]
    return np.copysign(np.array([np.longdouble(t) for t in texts]), x)


REFERENCES: dict[str, Callable[..., Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "pow": np.power,
}
MONOTONE = {"exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "rsqrt"}
LIKE_X = {"expm1", "log1p", "tanh", "sin"}
RANGES = {"log": (1e-3, 1e3), "log1p": (-0.9, 1e3), "rsqrt": (1e-3, 1e3), "pow": (1e-2, 1e2)}


def errors(y: Array, exact: Array) -> tuple[Array, Array]:
    """(error in ULP of the rounded exact value, where NaN, infinity or sign are wrong)."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(y.dtype)
        both = np.isfinite(rounded) & np.isfinite(y)
        step = np.abs(np.spacing(np.where(both, rounded, 1)))
        ulp = np.abs(y.astype(exact.dtype) - exact) / step.astype(exact.dtype)
        nan = np.isnan(rounded) & np.isnan(y)
        wrong = (
            ~nan & ~both & ~((y == rounded) | (np.abs(exact) > 0.9999999 * np.finfo(y.dtype).max))
        )
        wrong |= ~nan & (np.signbit(y) != np.signbit(rounded))
    return np.where(both, ulp, 0), wrong


def inputs(op: str, dtype: DType, stride: int) -> Iterator[tuple[Array, ...]]:
    """All bit patterns by stride (f32), or random ones of every size (f64); pairs for pow."""
    rng = np.random.default_rng(0)
    if op == "pow":
        for _ in range(max(2, (1 << 24) // (stride << 16))):
            x = np.exp(rng.normal(size=1 << 16) * 5)
            yield x.astype(dtype.numpy), (rng.normal(size=x.size) * 20).astype(dtype.numpy)
    elif dtype is f32:
        block = stride << 16  # what fits the caches
        for first in range(0, 1 << 32, block):
            last = min(first + block, 1 << 32)
            yield (np.arange(first, last, stride, np.uint64).astype(np.uint32).view(np.float32),)
    else:
        count = 2000 if op == "erf" else 40_000
        bits = rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64)
        spread = [rng.normal(size=count) * scale for scale in (1e-3, 1.0, 20.0, 400.0, 1e6)]
        yield (np.concatenate([bits, *spread]),)


def is_plain(op: str, x: Array, y: Array) -> bool:
    """Whether neighbouring floats are seen to be right from the first and the last one: where a
    monotone function gives one value, or a function that is x near 0 gives that."""
    ends = [0, -1]
    exact = REFERENCES[op](x[ends].astype(np.float64))
    one_sign = bool((np.signbit(y) == np.signbit(exact[0])).all())
    if op in MONOTONE and np.array_equal(y, np.full_like(y, y[0]), equal_nan=True):
        is_nan = bool(np.isnan(y[0]))
        return (one_sign or is_nan) and np.array_equal(exact.astype("f4"), y[ends], equal_nan=True)
    near = np.abs(exact - x[ends]) <= 2.0**-25 * np.abs(x[ends])
    return op in LIKE_X and bool(near.all()) and bool((y == x).all())


def suspects(y: Array, exact: Array, largest: float) -> Array:
    """The numbers of the values whose error may be more than `largest` ULP, or that may be wrong:
    a quick test, as a step of f32 is at least 2^-24 of the value."""
    wide = y.astype(exact.dtype)
    limit = np.abs(exact)
    limit *= largest * 2.0**-24
    wide_error = np.abs(wide - exact)
    fine = (wide_error <= limit) | (wide == exact)
    fine &= np.signbit(y) == np.signbit(exact)
    return np.flatnonzero(~fine)


def worst(op: str, function: Native, dtype: DType, stride: int) -> tuple[float, float, int]:
    """(largest error, where, how many special cases are wrong)."""
    wide = np.float64 if dtype is f32 else np.longdouble
    largest, place, count = 0.0, 0.0, 0
    for args in inputs(op, dtype, stride):
        with np.errstate(all="ignore"):
            y = function(*args)
            if dtype is f32 and len(args) == 1 and is_plain(op, *args, y):
                continue
            exact = REFERENCES[op](*(a.astype(wide) for a in args))
            found = suspects(y, exact, largest) if dtype is f32 else np.arange(y.size)
        if not found.size:
            continue
        ulp, wrong = errors(y[found], exact[found])
        k = int(np.argmax(ulp))
        if ulp[k] > largest:
            largest, place = float(ulp[k]), float(args[0][found[k]])
        count += int(wrong.sum())
    return largest, place, count


def speed_data(op: str, dtype: DType, size: int = 8192) -> tuple[Array, ...]:
    low, high = RANGES.get(op, (-8.0, 8.0))
    x = np.random.default_rng(0).uniform(low, high, size).astype(dtype.numpy)
    return (x, (x * 0.03).astype(dtype.numpy)) if op == "pow" else (x,)


def nanoseconds(run: Callable[[], object], size: int, repeats: int = 20) -> float:
    """Per element; the least of many, as machines are shared."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter_ns()
        for _ in range(10):
            run()
        best = min(best, (time.perf_counter_ns() - start) / 10 / size)
    return best


def beside_torch(op: str, args: tuple[Array, ...]) -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(a) for a in args]
    out = torch.empty_like(tensors[0])
    function = getattr(torch, op)
    return lambda: function(*tensors, out=out)


def report(op: str, dtype: DType, target: Target, options: argparse.Namespace) -> None:
    lanes = options.lanes or target.lanes(dtype)
    count = 2 if op == "pow" else 1
    function = native(op, [dtype] * count, dtype, lanes=lanes, target=target)
    args = speed_data(op, dtype)
    out = np.empty_like(args[0])
    pointers = [out.ctypes.data, *(a.ctypes.data for a in args)]
    ours, theirs = float("inf"), float("inf")
    other = beside_torch(op, args) if options.torch else None
    for _ in range(5):
        ours = min(ours, nanoseconds(lambda: function.run(out.size, *pointers), out.size))
        if other is not None:
            theirs = min(theirs, nanoseconds(other, out.size))
    line = f"{op:8} {dtype}x{lanes:<3} {ours:7.3f} ns"
    if other is not None:
        line += f"  torch {theirs:7.3f} ns ({theirs / ours:.2f} x)"
    if not options.fast:
        largest, place, wrong = worst(op, function, dtype, options.stride)
        line += f"  {largest:6.3f} ULP at {place!r}" + (f"  WRONG: {wrong}" if wrong else "")
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ops", nargs="*", default=list(REFERENCES))
    parser.add_argument("--stride", type=int, default=1999, help="of f32 bit patterns")
    parser.add_argument("--target", default="host")
    parser.add_argument("--lanes", type=int, help="default: a full register")
    parser.add_argument("--type", choices=["f32", "f64"], help="default: both")
    parser.add_argument("--torch", action="store_true", help="time PyTorch too")
    parser.add_argument("--fast", action="store_true", help="speed only")
    options = parser.parse_args()
    target = preset(options.target) if options.target != "host" else host()
    for dtype in (f32, f64) if options.type is None else (dtype_of(options.type),):
        for op in options.ops:
            report(op, dtype, target, options)


if __name__ == "__main__":
    main()
