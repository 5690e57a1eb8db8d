"""Takes formulas, gives the polynomial coefficients of nncompiler/codegen/coefficients.py.

    python tests/bench/minimax.py > nncompiler/codegen/coefficients.py

Every polynomial minimises the largest weighted error (Remez exchange in 60 digits). Coefficients
are rounded one by one, lowest power first, and the rest is fitted again to absorb the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
Function = Callable[[mpf], mpf]


@dataclass(frozen=True)
class Problem:
    """Fit sum(c_i x^i), i < count, to `f` on [low, high]; the error counts times `weight`."""

    f: Function
    weight: Function
    low: mpf
    high: mpf
    count: int


def points(low: mpf, high: mpf, count: int) -> list[mpf]:
    """Chebyshev points, ends included."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]


def remez(p: Problem, powers: Sequence[int], f: Function) -> tuple[list[mpf], mpf]:
    """Coefficients of the given powers, and the largest weighted error."""
    size = len(powers)
    first, tiny = powers[0], (p.high - p.low) / 2000
    grid = [x for x in points(p.low, p.high, 60 * (size + 2)) if not first or abs(x) > tiny]
    weights = [p.weight(x) * abs(x) ** first for x in grid]
    targets = [f(x) / x**first for x in grid]
    powers = [power - first for power in powers]
    chosen = [round((len(grid) - 1) * i / size) for i in range(size + 1)]
    best: tuple[list[mpf], mpf] | None = None
    for _ in range(30):
        rows = mp.matrix(size + 1, size + 1)
        right = mp.matrix(size + 1, 1)
        for i, k in enumerate(chosen):
            for j, power in enumerate(powers):
                rows[i, j] = grid[k] ** power * weights[k]
            rows[i, size] = (-1) ** i
            right[i] = targets[k] * weights[k]
        solution = mp.lu_solve(rows, right)
        c = [solution[j] for j in range(size)]
        errors = [
            (sum(cj * x**q for cj, q in zip(c, powers, strict=True)) - t) * w
            for x, t, w in zip(grid, targets, weights, strict=True)
        ]
        worst = max(abs(v) for v in errors)
        if best is None or worst < best[1]:
            best = (c, worst)
        if worst <= abs(solution[size]) * mpf("1.001"):
            break
        chosen = _alternating(errors, size + 1) or chosen
    assert best is not None
    return best


def _alternating(errors: list[mpf], count: int) -> list[int] | None:
    """Places of `count` extremes of alternating sign."""
    places: list[int] = []
    for k, v in enumerate(errors):
        if places and (errors[places[-1]] > 0) == (v > 0):
            if abs(v) > abs(errors[places[-1]]):
                places[-1] = k
        else:
            places.append(k)
    while len(places) > count:
        drop = 0 if abs(errors[places[0]]) < abs(errors[places[-1]]) else -1
        places.pop(drop)
    return places if len(places) == count else None


def _rest(f: Function, known: Sequence[float], x: mpf) -> mpf:
    """What the coefficients that are known leave of f."""
    return f(x) - sum(mpf(c) * x**i for i, c in enumerate(known))


def fit(p: Problem, bits: int) -> tuple[list[float], float]:
    """Rounded coefficients, lowest power first, and the weighted error as log2."""
    kind = np.float32 if bits == 32 else np.float64
    fixed: list[float] = []
    worst = mpf(1)
    while len(fixed) < p.count:
        c, worst = remez(p, range(len(fixed), p.count), partial(_rest, p.f, tuple(fixed)))
        if bits == 64 and len(fixed) >= 3:  # their rounding no longer counts
            fixed += [float(v) for v in c]
        else:
            fixed.append(float(kind(c[0])))
    return fixed, float(mp.log(worst, 2))


def series(g: Function, order: int) -> Function:
    """g, where rounding of its formula near 0 would show, by more digits."""

    def careful(x: mpf) -> mpf:
        with mp.workdps(60 + 12 * order):
            return g(mpf(x) + mpf(10) ** -40)

    return careful


LN2 = mp.log(2)
HALF = LN2 / 2 * mpf("1.0005")
SQ2 = mp.sqrt(2)


def exp_problem(count: int) -> Problem:
    """expm1(r) = r + r^2 q(r), relative to expm1."""
    return Problem(
        series(lambda r: (mp.expm1(r) - r) / r**2, 2),
        lambda r: abs(r) + mpf("1e-3"),
        -HALF,
        HALF,
        count,
    )


def log_problem(count: int) -> Problem:
    """log1p(f) = f + f^2 q(f), relative to log1p."""
    return Problem(
        series(lambda f: (mp.log1p(f) - f) / f**2, 2),
        lambda f: abs(f) + mpf("1e-3"),
        1 / SQ2 - 1,
        SQ2 - 1,
        count,
    )


def atanh_problem(count: int) -> Problem:
    """log1p(f) = 2 atanh(s), s = f/(2+f); 2 atanh(s) = 2s + s z q(z), z = s^2."""
    top = ((SQ2 - 1) / (SQ2 + 1)) ** 2
    return Problem(
        series(lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z, 2),
        lambda z: z + top / 1000,
        mpf(0),
        top,
        count,
    )


def pow_problem(count: int) -> Problem:
    """atanh(s)/s = 1 + z/3 + z^2 q(z), z = s^2."""
    top = ((SQ2 - 1) / (SQ2 + 1)) ** 2
    return Problem(
        series(lambda z: (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1 - z / 3) / z**2, 4),
        lambda z: mpf(1),
        mpf(0),
        top,
        count,
    )


def sin_problem(count: int) -> Problem:
    """sin(r) = r + r z q(z), z = r^2, |r| <= pi/2 and a little more."""
    top = (mp.pi / 2 * mpf("1.03")) ** 2
    return Problem(
        series(lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 2),
        lambda z: z + top / 1000,
        mpf(0),
        top,
        count,
    )


def erf_small(count: int, top: mpf) -> Problem:
    """erf(x) = x + x q(z), z = x^2."""
    return Problem(
        series(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 2),
        lambda z: mpf(1),
        mpf(0),
        top**2,
        count,
    )


def erf_large(count: int, low: mpf, high: mpf) -> Problem:
    """erfc(t) = exp(-t - t q(t))."""
    return Problem(
        lambda t: -mp.log(mp.erfc(t)) / t - 1, lambda t: t * mp.erfc(t), low, high, count
    )


def log2_problem(count: int) -> Problem:
    """log2(1 + f) = f q(f)."""
    return Problem(
        series(lambda f: mp.log1p(f) / f / LN2, 2), lambda f: mpf(1), 1 / SQ2 - 1, SQ2 - 1, count
    )


def exp2_problem(count: int) -> Problem:
    return Problem(lambda r: mpf(2) ** r, lambda r: mpf(1), mpf("-0.5"), mpf("0.5"), count)


TABLES: dict[str, tuple[str, int, Problem]] = {
    "EXP_F32": ("expm1(r) = r + r^2 q(r), |r| <= ln(2)/2", 32, exp_problem(5)),
    "EXP_F64": ("", 64, exp_problem(10)),
    "LOG_F32": ("log1p(f) = f + f^2 q(f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1", 32, log_problem(9)),
    "ATANH_F64": ("2 atanh(s) = 2 s + s z q(z), z = s^2, |s| <= 0.1716", 64, atanh_problem(7)),
    "SIN_F32": ("sin(r) = r + r z q(z), z = r^2, |r| <= 1.03 pi/2", 32, sin_problem(4)),
    "SIN_F64": ("", 64, sin_problem(8)),
    "ERF_F32": ("erf(x) = x + x q(x^2), |x| <= ERF_SPLIT", 32, erf_small(6, mpf("0.9375"))),
    "ERF_F64": ("", 64, erf_small(12, mpf(1))),
    "ERFC_F32": (
        "erfc(t) = exp(-t - t q(t)), ERF_SPLIT <= t <= 4 (f32), 6 (f64)",
        32,
        erf_large(7, mpf("0.9375"), mpf(4)),
    ),
    "ERFC_F64": ("", 64, erf_large(18, mpf(1), mpf(6))),
    "POW_F64": ("atanh(s) = s + s z/3 + s z^2 q(z), z = s^2", 64, pow_problem(8)),
    "LOG2": ("log2(1 + f) = f q(f), f as in LOG_F32, to f32 accuracy", 64, log2_problem(13)),
    "EXP2": ("2^r = q(r), |r| <= 1/2, to f32 accuracy", 64, exp2_problem(7)),
}


def main() -> None:
    print('"""Takes nothing, gives polynomial coefficients, lowest power first.\n')
    print("Written by tests/bench/minimax.py; every comment gives the weighted error of the fit.")
    print('"""\n')
    with mp.workdps(500):
        print(f"PI_BITS = 240\nPI = {int(mp.floor(mp.pi * mpf(2) ** 240)):#x}  # pi 2^240")
        print("# 2^1300 / pi")
        print("INVERSE_PI = int(")
        digits = f"{int(mp.floor(mpf(2) ** 1300 / mp.pi)):x}"
        for i in range(0, len(digits), 80):
            print(f'    "{digits[i : i + 80]}"')
        print("    , 16)\n")
    print("ERF_SPLIT = {32: 0.9375, 64: 1.0}")
    for name, (formula, bits, problem) in TABLES.items():
        coefficients, error = fit(problem, bits)
        if formula:
            print(f"\n# {formula}")
        print(f"{name} = (  # 2^{error:.1f}")
        for c in coefficients:
            print(f"    {c!r},")
        print(")")


if __name__ == "__main__":
    main()
