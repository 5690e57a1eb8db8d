"""Takes f32 or f64 terms, gives exp, log, tanh, erf and their kin as inline polynomials.

Range reduction is Cody-Waite's; coefficients come from tests/bench/minimax.py. Errors stay below
2 ULP (f32) and 3 ULP (f64) over the whole range, and 0, -0, infinities, NaN and denormals give
what C's functions give. tests/bench/ulp.py measures both error and speed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ir.types import DType, i32, i64
from nncompiler.codegen import coefficients as table
from nncompiler.codegen.term import Term, by_pairs, horner, sign_mask
from nncompiler.codegen.values import Value, llvm_type


@dataclass(frozen=True, slots=True)
class Format:
    """What formulas need to know of a float type.

    `magic` added to a small number rounds it to an integer, which stands in the low bits.
    `ln2_high` has so few bits that its product with an exponent is exact.
    """

    bits: int
    mantissa: int
    bias: int
    magic: float
    ln2_high: float
    ln2_low: float
    least_normal: float
    tiny: float  # |x| below it: x is the nearest to sin x, expm1 x ...
    sqrt_half: int  # bits of sqrt(1/2)
    exp: tuple[float, ...]
    erf: tuple[float, ...]
    erfc: tuple[float, ...]
    exp_range: tuple[float, float]  # outside of it exp is 0 or inf
    expm1_low: float  # below it expm1 is -1
    tanh_high: float  # above it tanh is 1
    sigmoid_range: tuple[float, float]
    sigmoid_shift: int  # exponent that keeps 1 / sigmoid in range
    erf_high: float

    @property
    def one(self) -> int:
        """The bits of 1.0."""
        return self.bias << self.mantissa

    @property
    def integer(self) -> DType:
        return i32 if self.bits == 32 else i64


F32 = Format(
    bits=32,
    mantissa=23,
    bias=127,
    magic=1.5 * 2**23,
    ln2_high=0.693359375,
    ln2_low=-2.12194440054690583e-4,
    least_normal=2.0**-126,
    tiny=2.0**-25,
    sqrt_half=0x3F3504F3,
    exp=table.EXP_F32,
    erf=table.ERF_F32,
    erfc=table.ERFC_F32,
    exp_range=(-104.0, 89.0),
    expm1_low=-20.0,
    tanh_high=10.0,
    sigmoid_range=(-105.0, 30.0),
    sigmoid_shift=64,
    erf_high=4.0,
)
F64 = Format(
    bits=64,
    mantissa=52,
    bias=1023,
    magic=1.5 * 2**52,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    least_normal=2.0**-1022,
    tiny=2.0**-54,
    sqrt_half=0x3FE6A09E667F3BCD,
    exp=table.EXP_F64,
    erf=table.ERF_F64,
    erfc=table.ERFC_F64,
    exp_range=(-746.0, 710.0),
    expm1_low=-40.0,
    tanh_high=20.0,
    sigmoid_range=(-750.0, 40.0),
    sigmoid_shift=600,
    erf_high=6.0,
)
FORMATS: Mapping[int, Format] = {32: F32, 64: F64}


def format_of(x: Term) -> Format:
    return FORMATS[x.dtype.bits]


@dataclass(frozen=True, slots=True)
class Reduced:
    """exp(x) = 2^n (1 + p)."""

    p: Term
    n: Term
    shifted: Term  # n in the place of the exponent bits, without the bias

    def power(self, offset: int = 0) -> Term:
        """2^(n + offset), which must be a normal number."""
        f = format_of(self.p)
        return (self.shifted + ((f.bias + offset) << f.mantissa)).as_float(self.p.dtype)


def reduce_exp(x: Term) -> Reduced:
    """|x| small enough that n is a good exponent."""
    f = format_of(x)
    t = x.fma(1 / math.log(2), f.magic)
    n = t - f.magic
    r = n.fma(-f.ln2_low, n.fma(-f.ln2_high, x))
    return Reduced(expm1_near(r), n, t.bits() << f.mantissa)


def expm1_near(r: Term) -> Term:
    """exp(r) - 1 for |r| <= log(2)/2."""
    squared = r * r
    return squared.fma(by_pairs(r, squared, format_of(r).exp), r)


def exp(x: Term) -> Term:
    reduced = reduce_exp(x.clamp(*format_of(x).exp_range))
    return scale(1.0 + reduced.p, reduced.n)


def scale(x: Term, n: Term) -> Term:
    """x 2^n for x near 1 and a whole n, rounded once where the result is denormal."""
    if x.e.target.is_x86 and x.e.target.has_masks:
        width = x.lanes * x.dtype.bits
        if x.lanes > 1 and width in (128, 256, 512):
            return x.of(_scalef(x, n, width))
        if x.lanes == 1:
            return x.of(_scalef_scalar(x, n))
    f = format_of(x)
    half = n.fma(0.5, f.magic)
    rest = (n - (half - f.magic)) + f.magic
    for t in (half, rest):
        x = x * ((t.bits() << f.mantissa) + f.one).as_float(x.dtype)
    return x


def _scalef(x: Term, n: Term, width: int) -> Value:
    e, kind = x.e, x.value.type
    name = f"llvm.x86.avx512.mask.scalef.p{'s' if x.dtype.bits == 32 else 'd'}.{width}"
    mask = f"i{max(8, x.lanes)}"
    last = ("i32",) if width == 512 else ()
    e.declare(f"declare {kind} @{name}({', '.join((kind, kind, kind, mask, *last))})")
    text = (
        f"call {kind} @{name}({x.value.typed}, {n.value.typed}, {kind} zeroinitializer, {mask} -1"
    )
    return e.value(text + (", i32 4)" if last else ")"), x.dtype, x.lanes)


def _scalef_scalar(x: Term, n: Term) -> Value:
    e, lanes = x.e, 128 // x.dtype.bits
    kind = llvm_type(x.dtype, lanes)
    name = f"llvm.x86.avx512.mask.scalef.s{'s' if x.dtype.bits == 32 else 'd'}"
    e.declare(f"declare {kind} @{name}({kind}, {kind}, {kind}, i8, i32)")
    a, b = (e.op(f"insertelement {kind} zeroinitializer, {v.value.typed}, i64 0") for v in (x, n))
    text = f"call {kind} @{name}({kind} {a}, {kind} {b}, {kind} zeroinitializer, i8 -1, i32 4)"
    return e.extract(e.value(text, x.dtype, lanes), 0)


def expm1(x: Term) -> Term:
    f = format_of(x)
    reduced = reduce_exp(x.clamp(f.expm1_low, f.exp_range[1]))
    half = reduced.power(-1)
    y = reduced.p.fma(half, half - 0.5)
    return x.abs().is_("olt", f.tiny).where(x, y + y)


def tanh(x: Term) -> Term:
    """t = m / (m + 2) with m = expm1(2x), whose error all but cancels where tanh is near 1: there
    log(2) need not be exact.

    Near 0 the errors of the quotient are undone by t = m/2 - m/2 t.
    """
    f = format_of(x)
    y = x.abs().clamp(None, f.tanh_high)
    shifted = y.fma(2 / math.log(2), f.magic)
    n = shifted - f.magic
    p = expm1_near(n.fma(-math.log(2), y + y))
    s = Reduced(p, n, shifted.bits() << f.mantissa).power()
    m = s.fma(p, s - 1.0)
    t = m / (m + 2.0)
    half = m * 0.5
    better = (-half).fma(t, half)
    return half.is_("olt", 0.5).where(better, t).with_sign(x.sign_bit())


def sigmoid(x: Term) -> Term:
    """c / (c + c exp(-x)); the small c keeps the denominator in range where it is huge.

    c + s + s p is summed from the smaller terms up, so that one rounding counts.
    """
    f = format_of(x)
    reduced = reduce_exp(-x.clamp(*f.sigmoid_range))
    s = reduced.power(-f.sigmoid_shift)
    c = 2.0**-f.sigmoid_shift
    rest = s.fma(reduced.p, s.clamp(None, c))
    return c / (s.clamp(c, None) + rest)


def erf(x: Term) -> Term:
    """x + x q(x^2) near 0, else 1 - exp(-t - t q(t))."""
    f = format_of(x)
    y = x.abs()
    small = y.fma(horner(y * y, f.erf), y)
    t = y.clamp(None, f.erf_high)
    reduced = reduce_exp((-t).fma(horner(t, f.erfc), -t))
    s = reduced.power()
    large = (-s).fma(reduced.p, 1.0 - s)
    positive = y.is_("olt", table.ERF_SPLIT[f.bits]).where(small, large)
    return positive.with_sign(x.sign_bit())


def split_exponent(x: Term) -> tuple[Term, Term]:
    """(k + bias, bits of m): x = 2^k m with m in [sqrt(1/2), sqrt(2)), for normal x > 0."""
    f = format_of(x)
    shifted = x.bits() + (f.one - f.sqrt_half)
    m = (shifted & ((1 << f.mantissa) - 1)) + f.sqrt_half
    biased = x.e.binary("lshr", shifted.value, shifted.lift(f.mantissa))
    return x.of(biased), m


def small_int(x: Term, dtype: DType) -> Term:
    """An integer in [0, 4096) as a float; int64 has no cheap conversion on many machines."""
    f = FORMATS[dtype.bits]
    if f.bits == 32:
        return x.to(dtype)
    power = 2.0**f.mantissa
    return (x | ((f.bias + f.mantissa) << f.mantissa)).as_float(dtype) - power


def normalised(x: Term) -> tuple[Term, Term]:
    """(x or, where it is denormal, x 2^c; the bias or bias + c)."""
    f = format_of(x)
    denormal = x.is_("olt", f.least_normal)
    shift = f.mantissa + 2
    bias = denormal.where(x.constant(float(f.bias + shift)), x.constant(float(f.bias)))
    return denormal.where(x * 2.0**shift, x), bias


def log_sum(f: Term, k: Term) -> Term:
    """k log(2) + log(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1]."""
    form = format_of(f)
    if form.bits == 32:
        rest = (f * f).fma(horner(f, table.LOG_F32), k * form.ln2_low)
        return k.fma(form.ln2_high, f + rest)
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    rest = s.fma(z.fma(horner(z, table.ATANH_F64), half), k * form.ln2_low)
    return k.fma(form.ln2_high, f - (half - rest))


def log(x: Term) -> Term:
    scaled, bias = normalised(x)
    biased, m = split_exponent(scaled)
    y = log_sum(m.as_float(x.dtype) - 1.0, small_int(biased, x.dtype) - bias)
    return log_ends(y, x, x)


def log_ends(y: Term, u: Term, x: Term) -> Term:
    """The logarithm y of u at the ends: log(0) = -inf, log(-1) = NaN, log(inf) = inf."""
    outside = u.is_("oeq", 0.0).where(u.constant(-math.inf), math.nan)
    inside = x.is_("olt", math.inf).where(y, x)
    return u.is_("ugt", 0.0).where(inside, outside)


def log1p(x: Term) -> Term:
    """log(2^k (1 + f)) with 1 + x = 2^k (1 + f), where f = x 2^-k + (2^-k - 1) is rounded once."""
    f = format_of(x)
    u = x + 1.0
    biased, _ = split_exponent(u)
    power = (biased.constant(2 * f.bias + 2) - biased << f.mantissa).as_float(x.dtype)  # 2^(2-k)
    y = log_sum((x * 0.25).fma(power, power * 0.25 - 1.0), small_int(biased, x.dtype) - f.bias)
    return x.abs().is_("olt", f.tiny).where(x, log_ends(y, u, x))


def rsqrt(x: Term) -> Term:
    return 1.0 / x.sqrt()


def sign(x: Term) -> Term:
    one = x.is_("olt", 0.0).where(x.constant(-1.0), x)
    return x.is_("ogt", 0.0).where(x.constant(1.0), one)


def relu(x: Term) -> Term:
    """0 for negative x, else x, also NaN; compiles to one max instruction."""
    return x.is_("olt", 0.0).where(x.constant(0.0), x)


def flip_sign(x: Term, sign: Term) -> Term:
    """x with its sign changed where the top bit of the integer term is set."""
    return (x.bits() ^ (sign & sign_mask(x.dtype))).as_float(x.dtype)
