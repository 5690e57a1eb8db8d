"""Takes the name of an elementwise op and its operands, gives LLVM text that computes it.

One row of `TABLE` per op. Functions of one term handle a lane or a vector alike; what they give
equals the NumPy reference of the op's record. Nothing here calls a library or traps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ir.types import DType, boolean, f64
from nncompiler.codegen import elementary, power, trigonometry
from nncompiler.codegen.emit import Emitter
from nncompiler.codegen.term import Term
from nncompiler.codegen.values import Value, constant, number_of

Rule = Callable[[Emitter, Sequence[Value], DType], Value]


def emit_apply(e: Emitter, op: str, args: Sequence[Value], dtype: DType, lanes: int) -> Value:
    """The value of `op` on args, of type `dtype`; scalar args are splat over the lanes.

    Raises ValueError where the op is unknown or does not exist for these dtypes. sin and cos end
    the current block and begin another (`e.block`); all else is straight-line code.
    """
    if op not in TABLE:
        raise ValueError(f"no code is known for the elementwise op '{op}'")
    args = [e.splat(a, lanes) for a in args]
    key = f"{op} {dtype} {', '.join(a.typed for a in args)}"
    known = e.recall(key)
    if known is not None:
        return Value(known, dtype, lanes)
    value = TABLE[op](e, args, dtype)
    e.remember(key, value.text)
    return value


def _real(formula: Callable[..., Term]) -> Rule:
    """A formula that exists for floats only."""

    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        if not dtype.is_float:
            raise ValueError(f"'{formula.__name__}' is not defined for {dtype}")
        return formula(*(Term(e, a) for a in args)).value

    return rule


def _arithmetic(floats: str, integers: str, bools: str) -> Rule:
    """One instruction per kind."""

    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        kind = args[0].dtype.kind
        word = floats if kind == "float" else bools if kind == "bool" else integers
        return e.binary(word, args[0], args[1])

    return rule


def _comparison(floats: str, integers: str) -> Rule:
    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        kind = args[0].dtype.kind
        if kind == "float":
            return e.fcmp(floats, args[0], args[1])
        sign = "" if integers in ("eq", "ne") else "s" if kind == "int" else "u"
        return e.icmp(sign + integers, args[0], args[1])

    return rule


def _rounding(intrinsic: str) -> Rule:
    """Integers are whole already."""

    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        return e.call(intrinsic, dtype, args, args[0].lanes) if dtype.is_float else args[0]

    return rule


def _bitwise(instruction: str) -> Rule:
    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        return e.binary(instruction, args[0], args[1])

    return rule


def _div(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    a, b = args
    return e.fdiv(a, b) if dtype.is_float else _floor_division(e, a, b)


def _floor_division(e: Emitter, a: Value, b: Value) -> Value:
    """Rounded down; x / 0 = 0, and the least integer / -1 wraps to itself."""
    dtype, lanes = a.dtype, a.lanes
    zero, one = constant(0, dtype, lanes), constant(1, dtype, lanes)
    by_zero = e.icmp("eq", b, zero)
    divisor = e.select(by_zero, one, b)
    if dtype.kind == "int":
        least = constant(-(1 << (dtype.bits - 1)), dtype, lanes)
        all_ones = constant(-1, dtype, lanes)
        wraps = e.binary("and", e.icmp("eq", a, least), e.icmp("eq", b, all_ones))
        divisor = e.select(wraps, one, divisor)
    if lanes > 1 and dtype.bits == 32:
        quotient = _quotient_f64(e, a, divisor)
    else:
        quotient = _quotient(e, a, divisor)
    return e.select(by_zero, zero, quotient)


def _quotient(e: Emitter, a: Value, b: Value) -> Value:
    if a.dtype.kind == "uint":
        return e.binary("udiv", a, b)
    quotient = e.binary("sdiv", a, b)
    rest = e.sub(a, e.mul(quotient, b))
    zero = constant(0, a.dtype, a.lanes)
    opposite = e.icmp("slt", e.binary("xor", rest, b), zero)
    inexact = e.binary("and", e.icmp("ne", rest, zero), opposite)
    return e.sub(quotient, e.convert(inexact, a.dtype))


def _quotient_f64(e: Emitter, a: Value, b: Value) -> Value:
    """Exact: quotients that are not whole differ from whole numbers by more than the rounding."""
    quotient = e.fdiv(e.convert(a, f64), e.convert(b, f64))
    return e.convert(e.call("llvm.floor", f64, (quotient,), a.lanes), a.dtype)


def _extreme(name: str) -> Rule:
    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        return (e.maximum if name == "maximum" else e.minimum)(args[0], args[1])

    return rule


def _neg(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    if dtype.is_float:
        return e.fneg(args[0])
    return e.sub(constant(0, dtype, args[0].lanes), args[0])


def _abs(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    (a,) = args
    if dtype.is_float:
        return e.fabs(a)
    return e.maximum(a, _neg(e, args, dtype)) if dtype.kind == "int" else a


def _sign(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    (a,) = args
    if dtype.is_float:
        return elementary.sign(Term(e, a)).value
    one = constant(1, dtype, a.lanes)
    least = e.maximum(a, constant(-1, dtype, a.lanes)) if dtype.kind == "int" else a
    return e.minimum(least, one)


def _relu(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    if dtype.is_float:
        return elementary.relu(Term(e, args[0])).value
    return e.maximum(args[0], constant(0, dtype, args[0].lanes))


def _not(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    ones = True if dtype.kind == "bool" else -1
    return e.binary("xor", args[0], constant(ones, dtype, args[0].lanes))


def _shift(left: bool) -> Rule:
    """Shifts by as many bits as there are, or more, give 0."""

    def rule(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
        a, count = args
        word = "shl" if left else "ashr" if dtype.kind == "int" else "lshr"
        number, zero = number_of(count), constant(0, dtype, a.lanes)
        if number is not None and not 0 <= number < dtype.bits:
            return zero
        shifted = e.binary(word, a, count)
        if number is not None:
            return shifted
        small = e.icmp("ult", count, constant(dtype.bits, count.dtype, a.lanes))
        return e.select(small, shifted, zero)

    return rule


def _where(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    condition = e.convert(args[0], boolean)
    return e.select(condition, args[1], args[2])


def _cast(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    return e.convert(args[0], dtype)


def _bitcast(e: Emitter, args: Sequence[Value], dtype: DType) -> Value:
    if args[0].dtype.bits != dtype.bits:
        raise ValueError(f"bitcast from {args[0].dtype} to {dtype}, which has another width")
    return e.bits(args[0], dtype)


TABLE: Mapping[str, Rule] = {
    "add": _arithmetic("fadd", "add", "or"),
    "sub": _arithmetic("fsub", "sub", "xor"),
    "mul": _arithmetic("fmul", "mul", "and"),
    "div": _div,
    "pow": _real(power.power),
    "maximum": _extreme("maximum"),
    "minimum": _extreme("minimum"),
    "neg": _neg,
    "abs": _abs,
    "sign": _sign,
    "floor": _rounding("llvm.floor"),
    "ceil": _rounding("llvm.ceil"),
    "round": _rounding("llvm.roundeven"),
    "exp": _real(elementary.exp),
    "log": _real(elementary.log),
    "log1p": _real(elementary.log1p),
    "expm1": _real(elementary.expm1),
    "sqrt": _real(Term.sqrt),
    "rsqrt": _real(elementary.rsqrt),
    "tanh": _real(elementary.tanh),
    "sigmoid": _real(elementary.sigmoid),
    "erf": _real(elementary.erf),
    "sin": _real(trigonometry.sin),
    "cos": _real(trigonometry.cos),
    "relu": _relu,
    "eq": _comparison("oeq", "eq"),
    "ne": _comparison("une", "ne"),
    "lt": _comparison("olt", "lt"),
    "le": _comparison("ole", "le"),
    "where": _where,
    "and": _bitwise("and"),
    "or": _bitwise("or"),
    "xor": _bitwise("xor"),
    "not": _not,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "cast": _cast,
    "bitcast": _bitcast,
}
