"""Takes f32 or f64 terms, gives sin and cos for arguments of any size.

x = n pi + r with |r| <= pi/2 (n is half of an odd number for cos), so that one odd polynomial
serves both. Up to `near` n pi is subtracted in three or four parts; if a lane is beyond, a block
that is skipped otherwise sums x/pi modulo 2 from pieces of 1/pi whose products are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ir.types import f64
from nncompiler.codegen import coefficients as table
from nncompiler.codegen.elementary import flip_sign, format_of
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.term import Term, horner
from nncompiler.codegen.values import Value, constant, literal

_FRACTION = 1300  # bits of table.INVERSE_PI behind the point
_PIECE = 26  # bits of a piece: its product with 27 bits is exact in f64
_PIECES = 46
_SCALE = 400  # pieces are 2^400 too large, arguments 2^400 too small: none is denormal


@dataclass(frozen=True, slots=True)
class Parts:
    """pi as a sum of numbers whose products with n are exact; valid for |x| <= near."""

    pi: tuple[float, ...]
    near: float


def parts_of(x: Term) -> Parts:
    """With a fused multiply-add full-width parts will do, else n times a part must be exact."""
    if x.dtype.bits == 32:
        if x.e.target.has_fma:
            return Parts(_split_pi((24, 24, 24)), 2.0**18)
        return Parts(_split_pi((10, 10, 10, 24)), 2.0**14)
    if x.e.target.has_fma:
        return Parts(_split_pi((53, 53, 53)), 2.0**30)
    return Parts(_split_pi((30, 30, 30, 53)), 2.0**22)


def _split_pi(widths: tuple[int, ...]) -> tuple[float, ...]:
    """pi in parts of so many bits each."""
    rest, parts = table.PI, []
    for width in widths:
        drop = max(0, rest.bit_length() - width)
        head = rest >> drop << drop
        parts.append(math.ldexp(head >> drop, drop - table.PI_BITS))
        rest -= head
    return tuple(parts)


def sin(x: Term) -> Term:
    y = x.abs()
    r, t = _reduce(y, 0.0)
    odd = t.bits() << (x.dtype.bits - 1)
    return flip_sign(_sin_near(r), odd ^ x.bits())


def cos(x: Term) -> Term:
    """cos((q + 1/2) pi + r) = -(-1)^q sin(r)."""
    r, t = _reduce(x.abs(), 0.5)
    even = (t.bits() ^ 1) << (x.dtype.bits - 1)
    return flip_sign(_sin_near(r), even)


def _sin_near(r: Term) -> Term:
    z = r * r
    coefficients = table.SIN_F32 if r.dtype.bits == 32 else table.SIN_F64
    return (r * z).fma(horner(z, coefficients), r)


def _reduce(x: Term, offset: float) -> tuple[Term, Term]:
    """(r, t): x = (q + offset) pi + r for x >= 0; q stands in the low bits of t."""
    f, parts, e = format_of(x), parts_of(x), x.e
    t = (x.fma(1 / math.pi, -offset) if offset else x * (1 / math.pi)) + f.magic
    n = t - f.magic + offset if offset else t - f.magic
    r = x
    for part in parts.pi:
        r = n.fma(-part, r)
    far, done, before = e.new_label("far"), e.new_label("near"), e.block
    beyond = x.is_("ogt", parts.near)
    e.branch_if(_any(e, beyond.value), far, done)
    e.push()
    e.label(far)
    far_r, far_t = (
        beyond.where(other, near)
        for other, near in zip(_reduce_far(x, offset), (r, t), strict=True)
    )
    e.branch(done)
    e.pop()
    after = e.block
    e.label(done)
    chosen = []
    for near, other in ((r, far_r), (t, far_t)):
        pairs = f"[ {near.value.text}, %{before} ], [ {other.value.text}, %{after} ]"
        chosen.append(x.of(e.value(f"phi {x.value.type} {pairs}", x.dtype, x.lanes, key=False)))
    return chosen[0], chosen[1]


def _any(e: Emitter, condition: Value) -> Value:
    """Whether a lane is true."""
    if condition.lanes == 1:
        return condition
    integer = f"i{condition.lanes}"
    bits = e.op(f"bitcast {condition.typed} to {integer}")
    return Value(e.op(f"icmp ne {integer} {bits}, 0"), condition.dtype)


def _reduce_far(x: Term, offset: float) -> tuple[Term, Term]:
    """The same for every x, in f64: Payne and Hanek's method, as a loop over pieces of 1/pi."""
    wide = x.to(f64) * 2.0**-_SCALE
    high, low = _fractions(wide)
    if offset:
        shifted, error = two_sum(high, high.constant(-offset))
        low = low + error
    else:
        shifted = high
    q = shifted.round()
    r = ((shifted - q) + low) * math.pi
    return r.to(x.dtype), q.to(x.dtype) + format_of(x).magic


def _fractions(x: Term) -> tuple[Term, Term]:
    """x/pi modulo 2 as a sum of two terms."""
    e = x.e
    pieces, halves = _table(e), _halves(x)
    before, loop, done = e.block, e.new_label("piece"), e.new_label("pieces")
    names = [e.new_name(hint) for hint in ("i", "high", "low")]
    zero = constant(0.0, f64, x.lanes)
    e.branch(loop)
    e.label(loop)
    start = len(e.lines)
    i = names[0]
    high, low = (x.of(Value(name, f64, x.lanes)) for name in names[1:])
    piece = e.op(f"load double, ptr {e.op(f'getelementptr double, ptr {pieces}, i64 {i}')}", False)
    factor = x.of(e.splat(Value(piece, f64), x.lanes))
    for half in halves:
        product = half * factor
        whole = (product * 0.5).round()
        high, error = two_sum(high, whole.fma(-2.0, product))
        low = low + error
    following = e.op(f"add i64 {i}, 1", False)
    entries = [
        ("i64", i, "0", following),
        (zero.type, names[1], zero.text, high.value.text),
        (zero.type, names[2], zero.text, low.value.text),
    ]
    e.lines[start:start] = [
        f"  {name} = phi {kind} [ {first}, %{before} ], [ {last}, %{loop} ]"
        for kind, name, first, last in entries
    ]
    e.do(f"%{loop}.end = icmp eq i64 {following}, {_PIECES}")
    e.do(f"br i1 %{loop}.end, label %{done}, label %{loop}")
    e.label(done)
    return high, low


def _halves(x: Term) -> tuple[Term, Term]:
    """x as the sum of two numbers of at most 27 bits."""
    high = (x.bits() & -(1 << 27)).as_float(f64)
    return high, x - high


def two_sum(a: Term, b: Term) -> tuple[Term, Term]:
    """The rounded sum and its error (Knuth)."""
    total = a + b
    c = total - a
    return total, (a - (total - c)) + (b - c)


def _table(e: Emitter) -> str:
    """The pieces of 1/pi as a constant of the module."""
    name = "@nnc.inverse_pi"
    numbers = ", ".join(f"double {literal(p, f64)}" for p in _pieces())
    e.declare(f"{name} = private unnamed_addr constant [{_PIECES} x double] [{numbers}], align 64")
    return name


def _pieces() -> list[float]:
    mask = (1 << _PIECE) - 1
    return [
        math.ldexp(
            (table.INVERSE_PI >> (_FRACTION - _PIECE * (i + 1))) & mask, _SCALE - _PIECE * (i + 1)
        )
        for i in range(_PIECES)
    ]
