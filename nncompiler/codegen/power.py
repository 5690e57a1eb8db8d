"""Takes two terms x and y, gives x^y with all the special cases of C's pow.

x^y = 2^(y log2|x|). For f32 the logarithm is computed in f64; for f64 as a sum of two terms, so
that the error of the exponent, up to 1075, stays below one unit of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ir.types import f64
from nncompiler.codegen import coefficients as table
from nncompiler.codegen.elementary import (
    expm1_near,
    flip_sign,
    normalised,
    scale,
    small_int,
    split_exponent,
)
from nncompiler.codegen.term import Term, horner
from nncompiler.codegen.trigonometry import two_sum
from nncompiler.codegen.values import number_of


@dataclass(frozen=True, slots=True)
class Pair:
    """high + low, where low is at most the rounding error of high."""

    high: Term
    low: Term


def power(x: Term, y: Term) -> Term:
    """x^y; a constant y of small size is multiplied out."""
    number = number_of(y.value)
    if number is not None and float(number) in _SMALL:
        return _by_products(x, float(number))
    positive = _power_f32(x.abs(), y) if x.dtype.bits == 32 else _power_f64(x.abs(), y)
    return _with_special_cases(positive, x, y)


_SMALL = (0.0, 1.0, 2.0, 3.0, 4.0, 0.5, -1.0)


def _by_products(x: Term, y: float) -> Term:
    if y == 0.0:
        return x.constant(1.0)
    if y == -1.0:
        return 1.0 / x
    if y == 0.5:
        root = (x + 0.0).sqrt()
        return x.is_("oeq", -math.inf).where(x.constant(math.inf), root)
    square = x * x
    return {1.0: x, 2.0: square, 3.0: square * x, 4.0: square * square}[y]


def _with_special_cases(positive: Term, x: Term, y: Term) -> Term:
    """`positive` = |x|^y, made right for negative x, and for the cases that are 1."""
    half = y * 0.5
    whole = y.round().is_("oeq", y)
    odd = whole & half.round().is_("une", half)
    signed = odd.where(flip_sign(positive, x.bits()), positive)
    undefined = x.is_("olt", 0.0) & x.is_("ogt", -math.inf) & (whole ^ True)
    value = undefined.where(x.constant(math.nan), signed)
    endless = x.abs().is_("oeq", 1.0) & y.abs().is_("oeq", math.inf)
    one = y.is_("oeq", 0.0) | x.is_("oeq", 1.0) | endless
    return one.where(x.constant(1.0), value)


def _power_f32(x: Term, y: Term) -> Term:
    """|x| in f32, normal once it is f64."""
    wide = x.to(f64)
    biased, m = split_exponent(wide)
    f = m.as_float(f64) - 1.0
    log2 = f.fma(horner(f, table.LOG2), small_int(biased, f64) - 1023.0)
    t = (y.to(f64) * _at_ends(log2, wide)).clamp(-200.0, 200.0)
    n = t.round()
    return scale_wide(horner(t - n, table.EXP2), n).to(x.dtype)


def _at_ends(log2: Term, x: Term) -> Term:
    """-inf for 0, and inf and NaN for themselves."""
    finite = x.is_("olt", math.inf).where(log2, x)
    return x.is_("oeq", 0.0).where(x.constant(-math.inf), finite)


def scale_wide(x: Term, n: Term) -> Term:
    """x 2^n in f64 for |n| far from the ends of the range."""
    magic = 1.5 * 2.0**52
    return x * (((n + magic).bits() << 52) + (1023 << 52)).as_float(f64)


def _power_f64(x: Term, y: Term) -> Term:
    log2 = _log2_pair(x)
    high = _at_ends(log2.high, x)
    product = two_product(y, high)
    t = product.high.clamp(-1100.0, 1100.0)
    n = t.round()
    inside = t.is_("oeq", product.high) & log2.high.is_("oeq", high)
    low = inside.where(y.fma(log2.low, product.low), 0.0)
    p = expm1_near(((t - n) + low) * math.log(2))
    return scale(1.0 + p, n)


def _log2_pair(x: Term) -> Pair:
    """log2 of x > 0: k + (2/ln 2) (s + s z/3 + s z^2 q(z)), s = f/(2 + f), z = s^2."""
    scaled, bias = normalised(x)
    biased, m = split_exponent(scaled)
    k = small_int(biased, x.dtype) - bias
    s = _half_angle(m.as_float(x.dtype) - 1.0)
    z = square(s)
    tail = z.high * z.high * horner(z.high, table.POW_F64)
    third = times(z, 1 / 3, _THIRD_LOW)
    w = add(third, tail)
    atanh = plus(s, product_of(s, w))
    scaled_up = times(atanh, _LOG2_E2, _LOG2_E2_LOW)
    high, low = two_sum(k, scaled_up.high)
    return Pair(*quick_sum(high, low + scaled_up.low))


_THIRD_LOW = 1.850371707708594e-17  # 1/3 - float(1/3)
_LOG2_E2 = 2.8853900817779268  # 2 / ln 2
_LOG2_E2_LOW = 4.0710547481862066e-17


def _half_angle(f: Term) -> Pair:
    """f / (2 + f)."""
    d = f + 2.0
    d_low = (2.0 - d) + f
    quotient = f / d
    back = two_product(quotient, d)
    rest = (f - back.high) - back.low - quotient * d_low
    return Pair(quotient, rest / d)


def two_product(a: Term, b: Term) -> Pair:
    """The rounded product and its error."""
    high = a * b
    if a.e.target.has_fma:
        return Pair(high, a.fma(b, -high))
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return Pair(high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2)


def _split(a: Term) -> tuple[Term, Term]:
    """a as the sum of two numbers of 26 and 27 bits."""
    high = (a.bits() & -(1 << 27)).as_float(f64)
    return high, a - high


def quick_sum(a: Term, b: Term) -> tuple[Term, Term]:
    """The rounded sum and its error, for |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def add(a: Pair, b: Term) -> Pair:
    high, low = two_sum(a.high, b)
    return Pair(high, low + a.low)


def plus(a: Pair, b: Pair) -> Pair:
    """For |a| >= |b|."""
    high, low = quick_sum(a.high, b.high)
    return Pair(high, low + (a.low + b.low))


def square(a: Pair) -> Pair:
    return product_of(a, a)


def product_of(a: Pair, b: Pair) -> Pair:
    p = two_product(a.high, b.high)
    return Pair(p.high, a.high.fma(b.low, a.low.fma(b.high, p.low)))


def times(a: Pair, high: float, low: float) -> Pair:
    return product_of(a, Pair(a.high.constant(high), a.high.constant(low)))
